"""The same protocol over Flower's network engine: its SuperLink and SuperNodes carry the bytes.

Flower starts a process for each message at a hospital's end, so the hospital itself stands
beside the SuperNode (``repro secagg join --agent``) and the ClientApp only asks it. Flower's own
SecAgg+ takes no part; a lying SuperLink is no more than a lying server, which the protocol
expects.

    # app.py of the Flower app
    from repro.secagg.deploy.flower import client_app, server_app
    client = client_app()
    server = server_app()

Node configuration of each SuperNode: ``agent="/path/of/the/socket"``. Run configuration of the
app: key, directory, operator, state and results (paths, as of ``repro secagg serve``), rounds,
opening and phase (seconds).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.errors import MissingDependency
from repro.secagg.deploy.agent import ask_agent
from repro.secagg.deploy.keystore import parse_public, read_public
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.serving import Service, serve_over
from repro.secagg.errors import Refused
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.protocols import ServerParty, protocol_of
from repro.secagg.rounds import BaseRound
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.tcp_server import Door, Observe, finish, note_answers

ACTION = "secagg"
_RECORD, _FIELD, _REASON = "secagg", "message", "refused"
_LARGEST = 1 << 32  # the agent is on this machine, and its own user's


def client_app() -> Any:
    """Flower's ClientApp for a hospital: it hands every message to the agent beside it."""
    flwr_app, flwr_clientapp = _flwr()
    app: Any = flwr_clientapp.ClientApp()

    @app.query(ACTION)
    def answer(message: Any, context: Any) -> Any:
        path = Path(str(context.node_config["agent"]))
        try:
            reply = {_FIELD: ask_agent(path, message.content[_RECORD][_FIELD], _LARGEST)}
        except (OSError, Refused) as reason:
            reply = {_REASON: str(reason).encode()}
        content = flwr_app.RecordDict({_RECORD: flwr_app.ConfigRecord(reply)})
        return flwr_app.Message(content, reply_to=message)

    return app


def server_app() -> Any:
    """Flower's ServerApp for the server: it holds rounds as ``repro secagg serve`` does."""
    _flwr()
    from flwr.serverapp import ServerApp

    app: Any = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        config = dict(context.run_config)
        key = str(config["operator"])
        operator = read_public(Path(key)) if Path(key).exists() else parse_public(key)
        place = Place(
            Path(str(config["key"])),
            Path(str(config["directory"])),
            operator,
            Path(str(config["state"])),
        )
        seconds = float(config.get("opening", 60.0)), float(config.get("phase", 60.0))
        serve_over(
            FlowerNetwork(grid, *seconds).run_round,
            place,
            Service(Path(str(config["results"]))),
            rounds=int(config.get("rounds", 1)),
            report=lambda line: print(line, file=sys.stderr, flush=True),
        )

    return app


class FlowerNetwork:
    """Holds rounds over a Flower ``Grid``. opening, phase: seconds, see ``Limits``."""

    def __init__(self, grid: Any, opening: float, phase: float) -> None:
        self._grid, self._opening, self._phase = grid, opening, phase

    def run_round(
        self,
        identity: Identity,
        round_: BaseRound,
        traffic: Traffic | None = None,
        *,
        door: Door | None = None,
        observe: Observe = lambda way, phase, hospital, message: None,
    ) -> Completed:
        """One round with the nodes that are there. Raises RoundFailed when too few are left.

        Flower says who its nodes are, so they are told the door's greeting and need no more.
        """
        protocol = protocol_of(round_)
        traffic = Traffic.of(protocol.phases) if traffic is None else traffic
        server, nodes = protocol.server(identity, round_), dict[int, int]()
        everybody = self._gather(len(round_.roster))
        greeting = b"" if door is None else door.greeting
        outgoing: dict[int, Buffer] = dict.fromkeys(everybody, greeting)
        while server.phase != "done":
            phase = server.phase
            received = self._exchange(outgoing, phase, round_)
            answers = server.receive(self._accepted(server, received, nodes, traffic, observe))
            note_answers(server, answers, traffic, observe)
            outgoing = {nodes[one]: message for one, message in answers.items() if one in nodes}
        return finish(server, traffic)

    def _gather(self, wanted: int) -> list[int]:
        """The nodes, when there are as many as hospitals or the opening is over."""
        ends = time.monotonic() + self._opening
        while True:
            nodes = [int(node) for node in self._grid.get_node_ids()]
            if len(nodes) >= wanted or time.monotonic() > ends:
                return nodes
            time.sleep(0.2)

    def _exchange(
        self, outgoing: dict[int, Buffer], phase: str, round_: BaseRound
    ) -> list[tuple[int, bytes]]:
        """(node, reply) of those that answered in time with no more than an honest one would."""
        from flwr.app import ConfigRecord, Message, RecordDict

        messages = [
            Message(
                RecordDict({_RECORD: ConfigRecord({_FIELD: bytes(message)})}),
                dst_node_id=node,
                message_type=f"query.{ACTION}",
            )
            for node, message in outgoing.items()
        ]
        limit, replies = protocol_of(round_).frame_limit(phase, round_), []
        for reply in self._grid.send_and_receive(messages, timeout=self._phase):
            if reply.has_error() or _RECORD not in reply.content:
                continue
            content = reply.content[_RECORD].get(_FIELD)
            if isinstance(content, bytes) and len(content) <= limit:
                replies.append((int(reply.metadata.src_node_id), content))
        return replies

    def _accepted(
        self,
        server: ServerParty,
        received: list[tuple[int, bytes]],
        nodes: dict[int, int],
        traffic: Traffic,
        observe: Observe,
    ) -> Iterator[Buffer]:
        """The replies; each accepted one is counted, and says which node is which hospital."""
        phase = server.phase
        for node, message in received:
            awaited = set(server.awaited)
            yield message
            for hospital in awaited - server.awaited:
                nodes.setdefault(hospital, node)
                traffic.sent(phase, len(message))
                observe("received", phase, hospital, message)


def _flwr() -> tuple[Any, Any]:
    try:
        import flwr.app
        import flwr.clientapp
    except ImportError:
        needed = "secure aggregation over Flower's network"
        how = "pip install -e '.[flower]' in a checkout"
        raise MissingDependency("flwr", needed, how) from None
    return flwr.app, flwr.clientapp


__all__ = ["FlowerNetwork", "client_app", "server_app"]
