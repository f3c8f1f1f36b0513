"""Flower's own SecAgg+ (its workflow and its client modifier), driven in this process.

Both sides are Flower's code, called through a grid that hands messages over without a network
and without serialising them; what is timed is therefore less than Flower's users wait for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from repro.errors import MissingDependency

STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
# Flower's stages by the names of the phases they correspond to; it has no consistency check.
PHASE_OF = dict(zip(STAGES, ("advertise", "share", "masked", "unmask"), strict=True))


def load() -> SimpleNamespace:
    """Flower's modules, silent. Raises MissingDependency when they cannot be imported."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import flwr.compat.common.recorddict_compat as compat
            from flwr import app, common
            from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
            from flwr.server.workflow.secure_aggregation import secaggplus_workflow as workflow
    except ImportError as failure:
        raise MissingDependency(
            f"flwr ({failure})", "Flower's SecAgg+", "pip install 'flwr>=1.14'"
        ) from None
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    with contextlib.suppress(ImportError):  # newer releases name the process that speaks
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    return SimpleNamespace(
        compat=compat, app=app, common=common, mod=secaggplus_mod, workflow=workflow
    )


class FlowerRound:
    """One round of Flower's SecAgg+ over ``vectors``, with the costs of each stage.

    vectors: node -> (P,) float32. lost: given the graph (node -> its closed neighbourhood),
    the nodes that vanish before their masked vector.
    """

    def __init__(
        self,
        flower: SimpleNamespace,
        nodes: Iterable[int],
        vector: Callable[[int], np.ndarray],
        weight: Callable[[int], int],
        *,
        threshold: int,
        lost: Callable[[dict[int, set[int]]], set[int]],
    ) -> None:
        self.flower, self.vector, self.weight = flower, vector, weight
        self.ids = list(nodes)
        self._choose_lost, self.lost = lost, set[int]()
        self.client_seconds = dict.fromkeys(STAGES, 0.0)
        self.server_seconds = dict.fromkeys(STAGES, 0.0)
        self.clients = dict.fromkeys(STAGES, 0)
        self.up_bytes = dict.fromkeys(STAGES, 0)
        self.down_bytes = dict.fromkeys(STAGES, 0)
        self._contexts: dict[int, Any] = {}
        self._stage, self._outside = STAGES[0], 0.0
        self._workflow = flower.workflow.SecAggPlusWorkflow(5, threshold, max_weight=10_000)
        self._state = flower.workflow.WorkflowState()
        self.mean: np.ndarray | None = None

    def run(self) -> np.ndarray:
        """The weighted mean, (P,) float64."""
        context = self._server_context()
        for stage in STAGES:
            self._stage, self._outside = stage, 0.0
            started = time.perf_counter()
            if not getattr(self._workflow, f"{stage}_stage")(self, context, self._state):
                raise RuntimeError(f"Flower's SecAgg+ stopped in {stage}")
            self.server_seconds[stage] = time.perf_counter() - started - self._outside
            if stage == "setup":
                self.lost = self._choose_lost(self._state.nid_to_neighbours)
        assert self.mean is not None
        return self.mean

    def send_and_receive(self, messages: Iterable[Any], *, timeout: Any = None) -> list[Any]:
        """The grid: every addressed node answers, except the lost ones."""
        entered = time.perf_counter()
        late = self._stage in STAGES[2:]
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if late and node in self.lost:
                continue
            self.down_bytes[self._stage] += _size(message)
            self._own_copy(message)
            reply = self._answer(node, message)
            self.up_bytes[self._stage] += _size(reply)
            self.clients[self._stage] += 1
            replies.append(reply)
        self._outside += time.perf_counter() - entered
        return replies

    def _own_copy(self, message: Any) -> None:
        """What serialising would do: Flower's modifier takes entries out of its message."""
        copy = self.flower.app.RecordDict(dict(message.content))
        for name, record in message.content.config_records.items():
            copy.config_records[name] = self.flower.app.ConfigRecord(dict(record))
        message.content = copy

    def _answer(self, node: int, message: Any) -> Any:
        training = 0.0

        def train(request: Any, _: Any) -> Any:
            nonlocal training
            started = time.perf_counter()
            reply = self._trained(node, request)
            training = time.perf_counter() - started
            return reply

        context = self._contexts.setdefault(node, self._context(node))
        started = time.perf_counter()
        reply = self.flower.mod(message, context, train)
        self.client_seconds[self._stage] += time.perf_counter() - started - training
        return reply

    def _trained(self, node: int, request: Any) -> Any:
        common = self.flower.common
        result = common.FitRes(
            status=common.Status(common.Code.OK, ""),
            parameters=common.ndarrays_to_parameters([self.vector(node)]),
            num_examples=self.weight(node),
            metrics={},
        )
        content = self.flower.compat.fitres_to_recorddict(result, keep_input=False)
        return self.flower.app.Message(content, reply_to=request)

    def _context(self, node: int) -> Any:
        app = self.flower.app
        return app.Context(
            run_id=1, node_id=node, node_config={}, state=app.RecordDict(), run_config={}
        )

    def _server_context(self) -> Any:
        app, common = self.flower.app, self.flower.common
        state = app.RecordDict()
        state.config_records["config"] = app.ConfigRecord({"current_round": 1})
        state.array_records["parameters"] = app.ArrayRecord()
        instructions = common.FitIns(common.ndarrays_to_parameters([]), {})
        proxies = [(SimpleNamespace(node_id=node), instructions) for node in self.ids]
        strategy = SimpleNamespace(
            configure_fit=lambda *_: proxies, aggregate_fit=self._take_aggregate
        )
        manager = SimpleNamespace(num_available=lambda: len(self.ids))
        return SimpleNamespace(state=state, strategy=strategy, client_manager=manager)

    def _take_aggregate(self, _: int, results: list[Any], __: Any) -> tuple[None, dict[str, Any]]:
        parameters = results[0][1].parameters
        self.mean = self.flower.common.parameters_to_ndarrays(parameters)[0]
        return None, {}


def _size(message: Any) -> int:
    """Bytes of a message's values, without field names and framing (so in Flower's favour)."""
    total = 0
    for record in message.content.config_records.values():
        for value in record.values():
            total += sum(map(_length, value)) if isinstance(value, list) else _length(value)
    for record in message.content.array_records.values():
        total += sum(len(array.data) for array in record.values())
    return total


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (bytes, str)) else 8


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Flower's deprecation warnings are no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
