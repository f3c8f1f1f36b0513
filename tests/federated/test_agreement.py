"""What ranks do while each prepares its run, without processes: only the collective is replaced."""

import os
import signal
import sys

import pytest

from repro.federated.parallel.distributed import RanksLost, TorchRanks, _catching_sigterm


@pytest.fixture
def second(monkeypatch):
    """Rank 1 of 2, whose partner always agrees."""
    ranks = TorchRanks.__new__(TorchRanks)
    ranks.rank, ranks.size = 1, 2
    ranks.ending = ranks.terminated = False
    monkeypatch.setattr(TorchRanks, "gather", lambda _self, told: [told, told])
    return ranks


def test_only_the_first_rank_speaks_while_they_prepare(second, capsys):
    def prepare():
        print("WARNING: a stand-in", file=sys.stderr)
        sys.stderr.flush()
        return "ready"

    assert second.agree(prepare, lambda ready: {"is": ready}) == "ready"
    assert capsys.readouterr() == ("", "")


def test_sigterm_while_they_prepare_ends_the_run_afterwards(second):
    def prepare():
        os.kill(os.getpid(), signal.SIGTERM)
        return "ready"

    before = signal.getsignal(signal.SIGTERM)
    try:
        with _catching_sigterm(second), pytest.raises(RanksLost, match="SIGTERM"):
            second.agree(prepare, lambda ready: {"is": ready})
    finally:
        signal.signal(signal.SIGTERM, before)
