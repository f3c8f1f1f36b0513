"""``repro federation``: train across hospitals as processes, each on its own file."""

from __future__ import annotations

import argparse
import secrets
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli import OneLineParser
from repro.cli.output import Outcome, say
from repro.cli.run import add_dataset, add_device
from repro.cli.secagg_files import first_directory
from repro.cli.secagg_parties import (
    configure_connection,
    configure_listener,
    configure_place,
    listener_of,
    operator_key,
    place_of,
    server_of,
    shown,
    stop,
)
from repro.errors import InputError

if TYPE_CHECKING:
    from repro.federated.deploy.plan import TrainingPlan
    from repro.federated.deploy.training import Training
    from repro.runs.settings import RunSettings
    from repro.secagg.deploy.directory import FederationDirectory
    from repro.secagg.keys import Identity

_HERE = "repro.cli.federation"
# second word -> (module, suffix of its two functions, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "split": (_HERE, "split", "cut a data set into hospitals' files, to try it out"),
    "offer": (_HERE, "offer", "a hospital's word to the operator: its key, its number of records"),
    "plan": (_HERE, "plan", "the operator signs what is trained, and what it will spend"),
    "serve": (_HERE, "serve", "be the server of a plan, to its last round"),
    "join": (_HERE, "join", "be a hospital of a plan, to its last round"),
}
OPENING = 3600.0  # seconds until an opening that too few come to is begun anew


def configure(parser: OneLineParser) -> None:
    parser.explain(commands={name: words[2] for name, words in COMMANDS.items()})
    parser.add_argument("action", choices=list(COMMANDS), metavar="COMMAND", help="see below")


def _configure_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("arm", metavar="ARM", help="noise shared in the secure sum, or fedavg-secagg (repro arms)")
    add("--profile", default="quick", metavar="P", help="its settings (%(default)s)")
    add("--seed", type=int, metavar="S", help="reproducible, NOT private: a rehearsal")


def configure_split(parser: argparse.ArgumentParser) -> None:
    _configure_training(parser)
    add = parser.add_argument
    add("--hospitals", type=int, default=3, metavar="K", help="how many (%(default)s)")
    add("--data", default="auto", metavar="auto|synthetic|FILE", help="what is cut")
    add_dataset(parser)
    add("--out", type=Path, required=True, metavar="DIR", help="where the files go")


def configure_offer(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="offer to write, for the operator")
    add("--key", type=Path, required=True, help="the hospital's private key")
    add("--data", type=Path, required=True, metavar="NPZ", help="its train_images, train_labels")
    add_dataset(parser)
    noise = "hide the number of records: noise of so many (10), 9 times that added (0: exact)"
    add("--count-noise", type=float, default=0.0, metavar="SIGMA", help=noise)


def configure_plan(parser: argparse.ArgumentParser) -> None:
    _configure_training(parser)
    add = parser.add_argument
    add("file", type=Path, metavar="PLAN", help="plan to write")
    add("--operator-key", type=Path, required=True, metavar="KEY", help="signs it")
    add("--server-key", type=Path, required=True, metavar="PUB", help="the server's public key")
    each = "of hospital 0, 1, …: repeatable"
    add("--offer", "--offers", type=Path, action="append", required=True, metavar="FILE", help=each)
    add("--directory", type=Path, metavar="FILE", help="to write (directory.json beside PLAN)")
    add("--rounds", type=int, metavar="R", help="default: the profile's")
    add("--least", type=int, metavar="N", help="no sum of fewer hospitals (all but one)")
    add("--sizes", default="public", metavar="public|private", help="numbers of records")
    norm = "every hospital proves that its update is no longer: fedavg-secagg, 4 hospitals or more"
    add("--norm", type=float, metavar="X", help=norm)


def configure_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("plan", type=Path, metavar="PLAN", help="the operator's plan")
    configure_place(parser)
    configure_listener(parser)
    others = "s to wait for the others once enough are in (%(default)s)"
    add("--stragglers", type=float, default=60.0, metavar="S", help=others)
    add("--model", type=Path, metavar="NPY", help="the last model (STATE/model.npy)")
    add("--test", type=Path, metavar="NPZ", help="test_images, test_labels to judge it on")


def configure_join(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("plan", type=Path, metavar="PLAN", help="the operator's plan")
    add("--data", type=Path, required=True, metavar="NPZ", help="this hospital's records")
    add("--policy", type=Path, required=True, metavar="TOML", help="what it agrees to")
    add("--server", required=True, metavar="HOST:PORT", help="where the server listens")
    configure_place(parser)
    configure_connection(parser)
    add("--model", type=Path, metavar="NPY", help="the last model (STATE/model.npy)")
    add_device(parser)


def _settings(
    arguments: argparse.Namespace, hospitals: int, rounds: int | None = None
) -> RunSettings:
    """Of ``_configure_training``'s arguments."""
    from repro.runs.arms import get_arm
    from repro.runs.composition import compose
    from repro.runs.profiles import get_profile

    arm, profile = get_arm(arguments.arm), get_profile(arguments.profile)
    return compose(arm, profile, hospitals=hospitals, seed=arguments.seed, rounds=rounds)


def execute_split(arguments: argparse.Namespace) -> Outcome:
    from repro.data import load_dataset
    from repro.federated.deploy.split import split_files

    settings = _settings(arguments, arguments.hospitals)
    dataset = load_dataset(arguments.data, arguments.dataset)
    images = split_files(dataset, settings, arguments.out)
    lines = [f"{arguments.out / name}: {count} images" for name, count in images.items()]
    return Outcome({"folder": str(arguments.out), "images": images}, "\n".join(lines))


def execute_offer(arguments: argparse.Namespace) -> Outcome:
    from repro.federated.deploy.plan import write_offer
    from repro.secagg.deploy.keystore import load_identity

    identity = load_identity(arguments.key)
    offer = write_offer(
        arguments.file, identity, arguments.data, arguments.dataset, arguments.count_noise
    )
    data = {**vars(offer), "public": offer.public.hex(), "path": str(arguments.file)}
    told = f"{offer.records} records" + " or somewhat fewer" * (offer.count_noise > 0)
    return Outcome(data, f"{arguments.file}: {told}, key {offer.public.hex()}")


def execute_plan(arguments: argparse.Namespace) -> Outcome:
    from repro.federated.deploy.plan import TrainingPlan, check_sizes, fewest_in_a_sum, load_offers
    from repro.federated.deploy.training import Training
    from repro.secagg.deploy.directory import load_directory
    from repro.secagg.deploy.keystore import load_identity, read_public

    operator, server = load_identity(arguments.operator_key), read_public(arguments.server_key)
    offers = load_offers(arguments.offer)
    check_sizes(arguments.sizes, offers[0].count_noise)
    settings = _settings(arguments, len(offers), arguments.rounds)
    path = arguments.directory or arguments.file.with_name("directory.json")
    earlier = load_directory(path, operator.public) if path.exists() else None
    plan = TrainingPlan(
        arm=arguments.arm,
        profile=arguments.profile,
        rounds=settings.rounds,
        dataset=offers[0].dataset,
        side=offers[0].side,
        hospitals={one: offer.records for one, offer in enumerate(offers)},
        seed=arguments.seed,
        model_seed=secrets.randbits(64) if arguments.seed is None else arguments.seed,
        least=arguments.least or max(len(offers) - 1, fewest_in_a_sum(settings)),
        serial=1 if earlier is None else earlier.serial + 1,
        count_noise=offers[0].count_noise,
        norm=arguments.norm,
    )
    training = Training(plan, device="cpu")
    plan = replace(plan, stated=training.stated(), whitening=training.whitening)
    keys = {one: offer.public for one, offer in enumerate(offers)}
    _directory(training, earlier, operator, server, keys).write(path, operator)
    plan.write(arguments.file, operator)
    data = {"path": str(arguments.file), "directory": str(path), "digest": plan.digest.hex()}
    return Outcome({**data, "plan": dict(plan.stated)}, _described(plan, arguments.file, path))


def _directory(
    training: Training,
    earlier: FederationDirectory | None,
    operator: Identity,
    server: bytes,
    keys: dict[int, bytes],
) -> FederationDirectory:
    """Of the plan's hospitals and settings: the first, or the next after ``earlier``."""
    settings = training.directory_settings()
    if earlier is None:
        return first_directory(operator.public, server, keys, settings)
    gone = set(earlier.hospitals) - set(keys)
    return earlier.changed(hospitals=keys, remove=gone, server=server, settings=settings)


def _described(plan: TrainingPlan, path: Path, directory: Path) -> str:
    lines = [
        f"{path}: {plan.arm}, {len(plan.hospitals)} hospitals, {plan.rounds} rounds, "
        f"{plan.stated['exchanges']} sums of at least {plan.least} hospitals each",
        f"{directory}: who takes part",
        *([f"every update is proved to be no longer than {plan.norm:g}"] if plan.norm else []),
        *([f"{path.with_suffix('.whitening')}: goes with the plan"] if plan.whitening else []),
        "what the whole training spends at most:",
        *_spent(plan.stated["privacy"]),
    ]
    if plan.seed is not None:
        lines.append("  the noise is of a public seed: whoever has the plan can remove it")
    return "\n".join(lines)


def execute_serve(arguments: argparse.Namespace) -> Outcome:
    from repro.federated.deploy.plan import load_plan
    from repro.federated.deploy.server import judged, serve_training
    from repro.federated.deploy.training import statements

    plan = load_plan(arguments.plan, operator_key(arguments.operator))
    signal.signal(signal.SIGTERM, stop)
    training, progress = serve_training(
        plan,
        place_of(arguments),
        listener_of(arguments, OPENING),
        stragglers=arguments.stragglers,
        report=say,
        listening=lambda address: say(f"listening on {shown(*address)}"),
    )
    path = arguments.model or arguments.state / "model.npy"
    _save_model(path, progress.vector)
    failed = sum(not survivors for *_, survivors in progress.sums)
    spent = statements(training.spent_in(progress.sums))
    data: dict[str, Any] = {"model": str(path), "sums": progress.sums, "failed": failed}
    text = f"{path}: after {len(progress.sums)} sums, {failed} of which came to nothing"
    if arguments.test is not None:
        data["accuracy"] = judged(training, progress.vector, arguments.test)
        text += f"; accuracy {100 * data['accuracy']:.2f} % on {arguments.test}"
    lines = [text, "by the sums that were opened, and those that failed, have been spent:"]
    return Outcome({**data, "spent": spent}, "\n".join([*lines, *_spent(spent)]))


def execute_join(arguments: argparse.Namespace) -> Outcome:
    from repro.federated.deploy.hospital import take_part
    from repro.federated.deploy.plan import load_plan
    from repro.federated.deploy.policy import load_policy
    from repro.federated.deploy.training import statements

    plan = load_plan(arguments.plan, operator_key(arguments.operator))
    policy = load_policy(arguments.policy)
    server = server_of(arguments)
    signal.signal(signal.SIGTERM, stop)
    try:
        mine = take_part(
            plan,
            place_of(arguments),
            server,
            arguments.data,
            policy,
            device=arguments.device,
            patience=arguments.patience,
            report=say,
        )
    except TimeoutError as reason:
        return Outcome({"reason": str(reason)}, str(reason), 1)
    if mine.model is None:
        raise InputError("server", "closed", "the last model, which it has not handed out")
    path = arguments.model or arguments.state / "model.npy"
    _save_model(path, mine.model)
    spent = statements(mine.kept.ledger(mine.training))
    lines = [f"{path}: the last model; this hospital's records have spent at most:"]
    return Outcome({"model": str(path), "spent": spent}, "\n".join([*lines, *_spent(spent)]))


def _spent(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each unit, relation and view."""
    return [
        f"  ε = {float(row['epsilon_at_most']):.4g} at δ = {row['delta']:g} per {row['unit']}, "
        f"{row['relation']}, {row['view']}"
        for row in rows
    ]


def _save_model(path: Path, vector: Any) -> None:
    import io

    import numpy as np

    from repro.files import write_whole

    content = io.BytesIO()
    np.save(content, vector.cpu().numpy())
    write_whole(path, content.getvalue())
