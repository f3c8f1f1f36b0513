"""What a hospital keeps of a training: its noise's seed, what it has shared, what that has cost.

One file a plan, ``STATE/trainings/PLAN.json`` (0600), written whole before a part leaves. An
exchange is shared once: exchanges only go up, so that a noise key never lies under two sums, not
after a crash and not if the server asks again. A part is made anew after a crash, and that
releases nothing: of an exchange that is marked here no part is made any more.

The ledger charges an exchange before its part leaves, at the least noise that the plan allows in
its sum. So it is an upper bound: what was lost on the way, or came to no sum, stays charged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.accounting.ledger import FederatedLedger
from repro.errors import InputError
from repro.federated.deploy.plan import TrainingPlan
from repro.federated.deploy.training import Training, fresh_seed, shown
from repro.federated.protocol import Place
from repro.files import write_whole
from repro.formatting import to_json
from repro.randomness import RootSeed
from repro.secagg.errors import Refused

TRAININGS = "trainings"  # folder in a hospital's state


class Kept:
    """A hospital's file of one plan. seed: of its noise, from the operating system unless the plan
    has a public one; it is forgotten when the training is over (``finish``)."""

    def __init__(self, state: Path, plan: TrainingPlan) -> None:
        self._plan = plan
        self._path = state / TRAININGS / f"{plan.digest.hex()[:16]}.json"
        found = _read(self._path)
        if found is None:
            seed = fresh_seed(plan)
            self._content: dict[str, Any] = {
                "plan": plan.digest.hex(),
                "arm": plan.arm,
                "epsilon_at_most": plan.epsilon,
                "seed": seed.root.hex() if seed.private else None,
                "shared": None,
                "ledger": None,
            }
            return
        if found["plan"] != plan.digest.hex():
            raise InputError("state", str(self._path), "this plan's file")
        self._content = found

    def seed(self) -> RootSeed:
        """On the disk before anything is drawn from it. Once it is forgotten, another one, from
        which nothing is drawn any more."""
        if self._plan.seed is not None:
            return fresh_seed(self._plan)
        root = self._content["seed"]
        if root is None:
            return fresh_seed(self._plan)
        self._write()
        return RootSeed(bytes.fromhex(root), "operating system entropy")

    @property
    def shared(self) -> Place | None:
        """The last exchange that a part was shared in."""
        last = self._content["shared"]
        return None if last is None else Place(*last)

    def check(self, at: Place) -> None:
        """Refused for an exchange whose noise has been used, or an earlier one."""
        if self.shared is not None and at <= self.shared:
            raise Refused(
                f"{shown(at)} is asked for, and this hospital has shared its part of "
                f"{shown(self.shared)}: no noise lies under two sums"
            )

    def share(self, training: Training, hospital: int, at: Place) -> None:
        """Charge the exchange and mark it as used; on the disk when this returns."""
        self.check(at)
        ledger = self.ledger(training)
        if ledger is not None:
            others = [one for one in sorted(training.weights) if one != hospital]
            group = sorted([hospital, *others[: training.plan.least - 1]])
            spent, seen = training.spent(at.round, [group])
            for one, event, count in spent:
                if one == hospital:
                    ledger.spend(one, event, count, seen=seen.get(one))
            self._content["ledger"] = ledger.state_dict()
        self._content["shared"] = list(at)
        self._write()

    def ledger(self, training: Training) -> FederatedLedger | None:
        """What this hospital has spent of its own records; None where nothing is promised."""
        ledger = training.ledger()
        if ledger is not None and self._content["ledger"] is not None:
            ledger.load_state_dict(self._content["ledger"])
        return ledger

    def finish(self) -> None:
        """The training is over: no part is made any more, and whoever had the seed could subtract
        the noise, so it is forgotten."""
        self._content["seed"], self._content["shared"] = None, [self._plan.rounds + 1, 0]
        self._write()

    def _write(self) -> None:
        write_whole(self._path, to_json(self._content) + "\n", mode=0o600)


def spent_before(state: Path, plan: TrainingPlan) -> float:
    """Σ ε at most of the other plans under which anything has been shared; ε of several trainings
    on the same records adds up (Dwork and Roth 2014, theorem 3.16), and so does δ."""
    total = 0.0
    for path in sorted((state / TRAININGS).glob("*.json")):
        found = _read(path)
        if found is not None and found["plan"] != plan.digest.hex() and found["shared"]:
            total += float(found["epsilon_at_most"])
    return total


def _read(path: Path) -> dict[str, Any] | None:
    """None if there is no such file. InputError if it is not whole: what was shared is not known
    any more, so nothing may be shared."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping) or not {"plan", "shared", "seed", "ledger"} <= set(
            content
        ):
            raise ValueError("another content")
    except (OSError, ValueError) as problem:
        expected = f"a whole file ({problem}): what was shared is in it; ask for a new plan"
        raise InputError("state", str(path), expected) from None
    return dict(content)
