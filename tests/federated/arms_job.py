"""Several arms, one after the other on the same ranks: a script for ``torchrun``.

    torchrun --standalone --nproc-per-node 2 -m tests.federated.arms_job OUT fedavg central

Rank 0 prints one JSON object: arm → the stable part of its record, and the final model's bits.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from repro.federated.checkpoint import load_checkpoint
from repro.federated.execute import execute
from repro.federated.parallel.distributed import join
from repro.federated.parallel.ranks import Ranks
from repro.privacy.dpsgd import DPSGDRun
from repro.runs.store import RunStore
from tests.federated.small import small_dataset, small_settings


def outcome(arm: str, out: Path, ranks: Ranks) -> dict[str, Any]:
    """One arm on four hospitals, two rounds; what must not depend on the number of ranks."""
    store = RunStore(out)
    settings = small_settings(arm, hospitals=4)
    record = execute(settings, small_dataset(), store, device="cpu", quiet=True, ranks=ranks)
    if not ranks.first:
        return {}
    state = load_checkpoint(store.folder(record.run_id))
    assert state is not None
    model = hashlib.sha256(state["vector"].numpy().tobytes()).hexdigest()
    return {"record": record.stable(), "model": model}


def main() -> None:
    out, arms = Path(sys.argv[1]), sys.argv[2:]
    with join() as ranks:
        outcomes = {}
        for arm in arms:
            if arm != "dpsgd-eps6":  # else with the gate after the last step: see tests/conftest.py
                DPSGDRun.look_again = lambda self: None
            outcomes[arm] = outcome(arm, out, ranks)
        if ranks.first:
            print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
