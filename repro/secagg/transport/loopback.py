"""A whole round between processes on this machine: a TCP server here, a process a hospital."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from repro.secagg.errors import Refused
from repro.secagg.hospital import Contribution
from repro.secagg.keys import Identity
from repro.secagg.protocols import protocol_of
from repro.secagg.rounds import BaseRound
from repro.secagg.simulation import Completed, Drop, Party, Traffic
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.tcp_hospital import take_part
from repro.secagg.transport.tcp_server import TcpServer


@dataclass(frozen=True)
class HospitalProcess:
    """What a hospital's process is started with. vector: picklable, hospital -> its contribution.

    dies: (phase, "before" | "after"): the moment at which it is killed (SIGKILL), if any.
    """

    address: tuple[str, int]
    hospital: int
    secret: bytes
    round: BaseRound
    vector: Callable[[int], Contribution | np.ndarray]
    dies: tuple[str, str] | None = None

    def __call__(self) -> None:
        identity = Identity(lambda _: self.secret)
        hospital = protocol_of(self.round).hospital(self.hospital, identity, self.round)
        # When the round ends without this hospital there is nothing left for it to do.
        with contextlib.suppress(Refused, OSError):
            take_part(self.address, hospital, lambda: self.vector(self.hospital), watch=self._watch)

    def _watch(self, phase: str, moment: str) -> None:
        if self.dies == (phase, moment):
            os.kill(os.getpid(), signal.SIGKILL)


def run_on_loopback(
    party: Party,
    round_: BaseRound,
    vector: Callable[[int], Contribution | np.ndarray],
    *,
    drop: Drop | None = None,
    dies: Mapping[int, tuple[str, str]] | None = None,
    timeout: float = 60.0,
    traffic: Traffic | None = None,
) -> Completed:
    """``simulation.run_round`` with real processes: kill -9 for a drop-out.

    drop: phase -> hospitals killed before they send in it. dies: hospital -> (phase, moment),
    for a kill after sending. timeout: seconds a phase may take; only hospitals that never
    advertise are waited for that long, a killed one is noticed at once.
    """
    phases = list(protocol_of(round_).phases)
    fates = {one: (phase, "before") for phase in reversed(phases) for one in _of(drop, phase)}
    fates.update(dies or {})
    context = multiprocessing.get_context("spawn")
    with TcpServer(limits=Limits(phase=timeout)) as server:
        processes = [
            context.Process(
                target=HospitalProcess(
                    server.address,
                    one,
                    party.hospitals[one].secret,
                    round_,
                    vector,
                    fates.get(one),
                ),
                daemon=True,
            )
            for one in round_.roster
        ]
        for process in processes:
            process.start()
        try:
            return server.run_round(party.server, round_, traffic)
        finally:
            for process in processes:
                process.join(timeout=10)
                process.kill()
                process.join()
                process.close()


def _of(drop: Drop | None, phase: str) -> Collection[int]:
    return (drop or {}).get(phase, ())
