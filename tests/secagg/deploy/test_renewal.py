"""New keys, lost states, copied keys: what the commands mend and what the errors say."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from repro.cli import main
from repro.errors import InputError
from repro.secagg.deploy.audit import audit
from repro.secagg.deploy.counter import FileCounter
from repro.secagg.deploy.keystore import load_identity, read_public
from repro.secagg.deploy.transcript import read_log
from tests.secagg.deploy.federation import Deployment


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path, opening=20.0)


def hold_a_round(deployment, places=None):
    """One round with everybody, each at its usual place unless ``places`` says otherwise."""
    places = {name: deployment.place(name) for name in ("server", *"0123")} | (places or {})
    deployment.serve(1, place=places["server"])
    for one in range(4):
        deployment.join(one, 1, place=places[str(one)])
    deployment.finish()
    assert not deployment.errors


def command(capsys, *words):
    status = main(["secagg", *map(str, words)])
    return status, capsys.readouterr().err


def test_a_key_is_rotated_as_the_manual_says(deployment, capsys):
    """Hospital 3 and the server, each with the state it has: a round before, a round after, and
    all logs, the closed ones too, agree."""
    hold_a_round(deployment)
    folder, places, logs = deployment.folder, {}, []
    for name in ("3", "server"):
        state, new = folder / name, folder / name / "new.key"
        assert command(capsys, "keygen", new)[0] == 0
        place = places[name] = replace(deployment.place(name), key=new)
        with pytest.raises(InputError, match="`repro secagg rotate --state"):
            deployment.open(name, place)
        words = ("rotate", "--state", state, "--old", state / "key", "--new", new)
        assert command(capsys, *words)[0] == 0
        logs += [*state.glob("transcript*.log")]
    deployment.publish(
        deployment.directory.changed(
            hospitals={3: read_public(folder / "3" / "new.key.pub")},
            server=read_public(folder / "server" / "new.key.pub"),
        )
    )
    hold_a_round(deployment, places)
    deployment.check(1, range(4))
    logs += [folder / str(one) / "transcript.log" for one in range(3)]
    read = [read_log(path) for path in logs]
    assert len(read) == 7
    found = audit(read)
    assert (found.findings, found.rounds, found.sums) == ((), 2, 2)
    ended, begun = (log.entries for log in read[:2])
    if ended[-1]["event"] != "rotated":
        ended, begun = begun, ended
    assert ended[-1]["next"] == begun[0]["public"]
    assert begun[0]["continues"] in [log.head for log in read]


def test_only_its_own_log_is_rotated_away(deployment, capsys):
    hold_a_round(deployment)
    state = deployment.folder / "3"
    words = ("rotate", "--state", state, "--old", deployment.folder / "2" / "key")
    status, said = command(capsys, *words, "--new", deployment.folder / "1" / "key")
    assert (status, said.count("\n")) == (2, 1)
    assert [path.name for path in state.glob("transcript*")] == ["transcript.log"]


def lose(deployment, name):
    """Everything of a party's but its key."""
    for path in (deployment.folder / name).iterdir():
        if not path.name.startswith("key"):
            path.unlink()


def recover(deployment, capsys, name):
    """As the manual says; the place to go on with."""
    folder = deployment.folder / name
    new, state = folder.with_name(f"{name}-new.key"), folder.with_name(f"{name}-state")
    assert command(capsys, "recover", "--state", state, "--key", new)[0] == 0
    public = read_public(new.with_name(new.name + ".pub"))
    changes = {"server": public} if name == "server" else {"hospitals": {int(name): public}}
    deployment.publish(deployment.directory.changed(**changes))
    return replace(deployment.place(name), key=new, state=state)


def test_a_hospital_that_lost_its_state(deployment, capsys):
    """It is told at its first connection, takes part in nothing, and recovers by the command."""
    hold_a_round(deployment)
    lose(deployment, "3")
    deployment.limits.__dict__["opening"] = 4.0
    deployment.serve(1)
    deployment.lines.clear()
    deployment.join(3, 1)
    deployment.until(lambda: any("a lost state" in line for line in deployment.lines))
    deployment.limits.__dict__["opening"] = 20.0
    place = recover(deployment, capsys, "3")
    deployment.until(lambda: any("the directory lists" in str(e) or "revoked" in str(e)
                                 for e in deployment.errors))  # fmt: skip
    deployment.errors.clear()
    deployment.join(3, 1, place=place)
    deployment.take_part(1, range(3))
    deployment.check(1, range(4))
    assert sum("as hospital 3" in line for line in deployment.lines) == 1


def test_a_server_that_lost_its_state(deployment, capsys):
    """Both ends say what has happened; nobody takes part twice in round 1."""
    hold_a_round(deployment)
    hold_a_round(deployment)
    lose(deployment, "server")
    deployment.limits.__dict__["opening"] = 3.0
    deployment.lines.clear()
    deployment.serve(1)
    for one in range(4):
        deployment.join(one, 1, patience=2.0)
    for said in ("this server has lost its state", "the server has lost its state"):
        deployment.until(lambda said=said: any(said in line for line in deployment.lines))
    deployment.until(lambda: len(deployment.errors) == 4)
    assert not any("taking part" in line for line in deployment.lines)
    place = recover(deployment, capsys, "server")
    deployment.until(lambda: len(deployment.errors) == 5)  # the old server ends: another's key now
    deployment.finish()
    deployment.errors.clear()
    deployment.limits.__dict__["opening"] = 20.0
    hold_a_round(deployment, {"server": place})
    deployment.check(1, range(4))


def test_a_copied_key_is_caught_at_once(deployment):
    """The copy is refused at its first connection, whatever round is open; it begins none."""
    hold_a_round(deployment)
    (deployment.folder / "copy").mkdir()
    shutil.copy(deployment.folder / "3" / "key", deployment.folder / "copy" / "key")
    deployment.serve(1)
    deployment.lines.clear()
    copy = deployment.place("copy")
    deployment.join(3, 1, lambda announced: pytest.fail("trained"), place=copy, patience=1.0)
    deployment.until(lambda: deployment.errors)
    assert any("a copied key" in line for line in deployment.lines)
    assert not (copy.state / "rounds.json").exists()
    deployment.errors.clear()
    deployment.take_part(1)
    deployment.check(2, range(4))


def test_a_counter_that_is_gone_beside_its_log(deployment):
    """Found before anything is opened: the log says that rounds were begun."""
    hold_a_round(deployment)
    for name in ("3", "server"):
        (deployment.folder / name / "rounds.json").unlink()
        with pytest.raises(InputError, match="`repro secagg recover"):
            deployment.open(name, deployment.place(name))


def test_recovering_sets_the_old_state_aside_and_replaces_no_key(deployment, capsys):
    folder = deployment.folder
    words = ("recover", "--state", folder / "3", "--key")
    assert command(capsys, *words, folder / "2" / "key")[0] == 2
    assert command(capsys, *words, folder / "new.key")[0] == 0
    aside = folder / "3.lost-1"
    assert load_identity(aside / "key").public == deployment.public["3"]
    assert [path.name for path in (folder / "3").iterdir()] == ["id"]


@pytest.mark.parametrize(
    ("number", "says"),
    [(19, "--new-session"), (2, "begun before"), (1, "recover` at the server"), (3, ""), (18, "")],
)
def test_what_stands_in_a_round_s_way(tmp_path, number, says):
    """After round 2, with 15 that may be missed."""
    counter = FileCounter(tmp_path / "rounds.json", missed=15)
    counter.advance(b"s" * 32, 2)
    obstacle = counter.obstacle(b"s" * 32, number)
    assert says in obstacle
    assert bool(says) == bool(obstacle)
