"""Runs inside a throw-away environment, against the Flower that is installed there.

    python -I inside.py FOLDER

It stands alone: nothing of this package is imported here, and nothing here by the package.
FOLDER has ``settings.json`` (``plan.Settings.question``) and ``updates.npy`` (hospitals, size);
left there are

- ``draws.npy`` (draws, size): the first update as LocalDpMod sends it, again and again;
- ``NAME.npy`` (1 + evaluations, size): the global model before and after every round;
- ``answer.json``: versions, what LocalDpMod's log says, and who failed where, by arrangement.

Server, strategy, workflows and modifiers are Flower's. Messages go through Flower's own
serialisation and from call to call in one process; as in Flower's engine, a client's exception
becomes an error reply, which the server has to make something of.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import random
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

PACKAGES = ("flwr", "numpy", "cryptography", "protobuf", "grpcio")


def load() -> SimpleNamespace:
    """The names used of Flower 1.13 and 1.14; it reports home nothing and prints nothing."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    from flwr import client, common, server
    from flwr.client import mod
    from flwr.common import constant, message, recordset_compat, serde
    from flwr.server import strategy, workflow

    for handler in logging.getLogger("flwr").handlers:
        handler.setLevel(logging.CRITICAL + 1)
    return SimpleNamespace(
        client=client, common=common, server=server, mod=mod, constant=constant, message=message,
        compat=recordset_compat, serde=serde, strategy=strategy, workflow=workflow,
    )  # fmt: skip


class Log(logging.Handler):
    """Keeps what Flower logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []
        logger = logging.getLogger("flwr")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said_deviation(self) -> float | None:
        """The last number in a line about noise: what the modifier says it added."""
        for record in reversed(self.records):
            if "noise" in str(record.msg) and isinstance(record.args, tuple) and record.args:
                return float(str(record.args[0]))
        return None

    def errors(self) -> list[str]:
        lines = (one.getMessage() for one in self.records if one.levelno >= logging.ERROR)
        return list(dict.fromkeys(lines))


def arrays(flat: np.ndarray, shapes: Iterable[Iterable[int]]) -> list[np.ndarray]:
    """A model's arrays from its (size,) vector."""
    parts, start = [], 0
    for shape in map(tuple, shapes):
        count = int(np.prod(shape))
        parts.append(flat[start : start + count].reshape(shape).copy())
        start += count
    return parts


def vector(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])


def modifiers(flower: SimpleNamespace, settings: dict[str, Any]) -> dict[str, Any]:
    """The names of ``plan.Arrangement.mods``, as what Flower calls by them."""
    local_dp = flower.mod.LocalDpMod(
        settings["clip_norm"], settings["sensitivity"], settings["epsilon"], settings["delta"]
    )
    return {
        "local-dp": local_dp,
        "secagg": flower.mod.secaggplus_mod,
        "size": flower.mod.parameters_size_mod,
    }


def new_message(flower: SimpleNamespace, content: Any, kind: str, hospital: int, group: str) -> Any:
    metadata = flower.message.Metadata(
        run_id=1, message_id="", src_node_id=0, dst_node_id=hospital, reply_to_message="",
        group_id=group, ttl=3600.0, message_type=kind,
    )  # fmt: skip
    return flower.message.Message(metadata=metadata, content=content)


def new_context(flower: SimpleNamespace, hospital: int) -> Any:
    state = flower.common.RecordSet()
    return flower.common.Context(
        run_id=1, node_id=hospital, node_config={}, state=state, run_config={}
    )


def draw(flower: SimpleNamespace, settings: dict[str, Any], update: np.ndarray) -> np.ndarray:
    """``update`` (size,) as LocalDpMod sends it, ``draws`` times: (draws, size) float64."""
    common, compat = flower.common, flower.compat
    shapes, kind = settings["shapes"], flower.constant.MessageType.TRAIN
    start = common.ndarrays_to_parameters(arrays(np.zeros_like(update), shapes))

    def train(message: Any, _: Any) -> Any:
        result = common.FitRes(
            status=common.Status(common.Code.OK, ""),
            parameters=common.ndarrays_to_parameters(arrays(update, shapes)),
            num_examples=settings["examples"],
            metrics={},
        )
        return message.create_reply(compat.fitres_to_recordset(result, keep_input=True))

    sent = []
    for _ in range(settings["draws"]):
        content = compat.fitins_to_recordset(common.FitIns(start, {}), keep_input=True)
        message = new_message(flower, content, kind, 1, "1")
        modifier = modifiers(flower, settings)["local-dp"]
        reply = modifier(message, new_context(flower, 1), train)
        result = compat.recordset_to_fitres(reply.content, keep_input=True)
        sent.append(vector(common.parameters_to_ndarrays(result.parameters)))
    return np.stack(sent)


class Federation:
    """Flower's driver, as far as its workflows use one; hospital i is node i + 1."""

    def __init__(self, flower: SimpleNamespace, app: Callable[[Any, Any], Any], count: int) -> None:
        self._flower, self._app = flower, app
        self.run = SimpleNamespace(run_id=1)
        self.failures: list[dict[str, Any]] = []
        self._contexts = {node: new_context(flower, node) for node in range(1, count + 1)}
        self._sent = 0

    def get_node_ids(self) -> list[int]:
        return list(self._contexts)

    def create_message(
        self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: Any = None
    ) -> Any:
        return new_message(self._flower, content, message_type, dst_node_id, group_id)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: Any = None) -> list[Any]:
        return [self._answer(self._serialised(message)) for message in messages]

    def _serialised(self, message: Any) -> Any:
        task = self._flower.serde.message_to_taskins(message)
        self._sent += 1
        task.task_id = f"task {self._sent}"
        return self._flower.serde.message_from_taskins(task)

    def _answer(self, message: Any) -> Any:
        stage = stage_of(message)  # before a modifier takes it out
        try:
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as problem:  # whatever it is: that is what is asked
            self.failures.append(failure(problem, message, stage))
            code = self._flower.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = message.create_error_reply(self._flower.message.Error(code, str(problem)))
        return self._flower.serde.message_from_taskres(self._flower.serde.message_to_taskres(reply))


def stage_of(message: Any) -> str:
    """The secure aggregation's stage that a message asks for, else the kind of message."""
    for record in message.content.configs_records.values():
        if "stage" in record:
            return str(record["stage"])
    return str(message.metadata.message_type)


def failure(problem: BaseException, message: Any, stage: str) -> dict[str, Any]:
    """Round, stage, hospital, and the modifier in which an exception arose or passed last."""
    frames = [
        f"{Path(frame.filename).stem}.{frame.name}"
        for frame in traceback.extract_tb(problem.__traceback__)
        if "mod" in Path(frame.filename).parts
    ]
    return {
        "round": int(message.metadata.group_id),
        "stage": stage,
        "hospital": int(message.metadata.dst_node_id),
        "exception": type(problem).__name__,
        "message": str(problem),
        "where": frames[-1] if frames else "outside every modifier",
    }


def client_app(
    flower: SimpleNamespace, settings: dict[str, Any], mods: list[Any], updates: np.ndarray
) -> Any:
    """Flower's ClientApp around a client that adds its hospital's fixed update to the model."""
    examples = settings["examples"]

    def fit(self: Any, parameters: list[np.ndarray], config: Any) -> Any:
        moved = [p + u for p, u in zip(parameters, self.update, strict=True)]
        return [part.astype(np.float32) for part in moved], examples, {}

    def evaluate(self: Any, parameters: list[np.ndarray], config: Any) -> Any:
        return 0.0, examples, {}

    base = flower.client.NumPyClient
    kind: Any = type("Hospital", (base,), {"fit": fit, "evaluate": evaluate})

    def hospital(context: Any) -> Any:
        client = kind()
        client.update = arrays(updates[context.node_id - 1], settings["shapes"])
        return client.to_client()

    return flower.client.ClientApp(client_fn=hospital, mods=mods)


def arrange(
    flower: SimpleNamespace,
    settings: dict[str, Any],
    arrangement: dict[str, Any],
    updates: np.ndarray,
    rounds: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """A federation of ``len(updates)``: who failed where, and the models (1 + rounds, size)."""
    log = Log()
    models: list[np.ndarray] = []
    named = modifiers(flower, settings)
    app = client_app(flower, settings, [named[name] for name in arrangement["mods"]], updates)
    federation = Federation(flower, app, len(updates))

    def evaluate(_: int, parameters: list[np.ndarray], __: Any) -> tuple[float, dict[str, Any]]:
        models.append(vector(parameters))
        return 0.0, {}

    start = arrays(np.zeros(updates.shape[1], dtype=np.float32), settings["shapes"])
    strategy = flower.strategy.FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.5,
        min_fit_clients=len(updates),
        min_available_clients=len(updates),
        initial_parameters=flower.common.ndarrays_to_parameters(start),
        evaluate_fn=evaluate,
    )
    context = flower.server.LegacyContext(
        context=new_context(flower, 0),
        config=flower.server.ServerConfig(num_rounds=rounds),
        strategy=strategy,
    )
    secure = flower.workflow.SecAggPlusWorkflow(
        num_shares=settings["shares"],
        reconstruction_threshold=settings["threshold"],
        max_weight=settings["max_weight"],
    )
    fit = secure if arrangement["secure"] else None
    raised = None
    try:
        flower.workflow.DefaultWorkflow(fit_workflow=fit)(federation, context)
    except Exception as problem:
        raised = {"exception": type(problem).__name__, "message": str(problem)}
    logging.getLogger("flwr").removeHandler(log)
    facts = {"failures": federation.failures, "raised": raised, "server_errors": log.errors()}
    return facts, np.stack(models)


def fewest(flower: SimpleNamespace, settings: dict[str, Any], updates: np.ndarray) -> int | None:
    """The smallest federation, from two hospitals up, whose model changes in a round."""
    probe = next(o for o in settings["arrangements"] if o["name"] == settings["probe"])
    for count in range(2, len(updates) + 1):
        _, models = arrange(flower, settings, probe, updates[:count], 1)
        if (models[-1] != models[0]).any():
            return count
    return None


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    updates = np.load(folder / "updates.npy")
    flower = load()
    random.seed(settings["seed"])
    np.random.seed(settings["seed"])  # noqa: NPY002 - the generator that Flower draws from
    log = Log()
    np.save(folder / "draws.npy", draw(flower, settings, updates[0]))
    logging.getLogger("flwr").removeHandler(log)
    answer: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "said_deviation": log.said_deviation(),
        "fewest_hospitals": fewest(flower, settings, updates),
        "arrangements": {},
    }
    for arrangement in settings["arrangements"]:
        facts, models = arrange(flower, settings, arrangement, updates, settings["rounds"])
        answer["arrangements"][arrangement["name"]] = facts
        np.save(folder / f"{arrangement['name']}.npy", models)
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
