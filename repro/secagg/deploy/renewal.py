"""A party's new key: taken into use beside the state it has (``rotate``), or without (``recover``).

The counter says which rounds the old key was used in, so it is kept with a key that goes on. Who
has lost it, or is not sure of it, gets a new key: nothing that was sent under the old one means
anything under it. Either way the operator's next directory names the new key, and with it begins
a new session.
"""

from __future__ import annotations

from pathlib import Path

from repro.errors import InputError
from repro.secagg.deploy.counter import locked, open_counter
from repro.secagg.deploy.keystore import create_identity
from repro.secagg.deploy.place import state_id
from repro.secagg.deploy.transcript import open_transcript, read_log
from repro.secagg.keys import Identity

LOG = "transcript.log"


def rotate(state: Path, old: Identity, new: Identity) -> Path:
    """Set the log of ``old`` aside, closed with its word on who comes next, and begin that of
    ``new``. Returns where the old log lies now. InputError for a log that is not ``old``'s, or
    while a process uses the state."""
    log = state / LOG
    if not log.exists():
        raise InputError("state", str(state), "a state folder with a log (lost: `recover`)")
    aside = state / f"transcript-{old.public.hex()[:12]}.log"
    with open_counter(state / "rounds.json"):
        entries = read_log(log, old.public).entries
        party = next(one["party"] for one in entries if one["event"] == "opened")
        if aside.exists():
            raise InputError("state", str(aside), "no log of this key that was set aside before")
        with open_transcript(log, old, party) as ending:
            ending.append("rotated", next=new.public.hex())
        head = read_log(log, old.public).head
        log.rename(aside)
        with open_transcript(log, new, party, continues=head):
            pass
    return aside


def recover(state: Path, key: Path) -> tuple[Identity, Path | None]:
    """A new key in ``key`` (a file that is not there yet), and a state folder to go with it.

    Returns the identity, and where an earlier state folder lies now. InputError while a process
    uses it.
    """
    if key.exists():
        raise InputError("key", str(key), "a file that is not there yet, for the new key")
    aside = None
    if state.exists() and any(state.iterdir()):
        with locked(state):  # its counter may be beyond reading
            aside = next(
                path
                for number in range(1, 10**6)
                if not (path := state.with_name(f"{state.name}.lost-{number}")).exists()
            )
            state.rename(aside)
    identity = create_identity(key)
    state_id(state)
    return identity, aside
