"""A private training as a user writes it for ``torchrun``: what every rank holds, to a file each.

torchrun --standalone --nproc-per-node 2 -m tests.privacy.torchrun_job FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.privacy.models import flat
from tests.privacy.test_ranks import planned, released


def main() -> None:
    dist.init_process_group("gloo")  # the address comes from torchrun's environment
    ranks, rank = {"process_group": dist.group.WORLD}, dist.get_rank()
    torch.manual_seed(rank)  # nothing may hang on it
    exact = planned(**ranks, noise="discrete_gaussian", seed=13)
    sums = [released(exact), released(exact)]
    found = {"size": dist.get_world_size(), "sums": sums, "weights": flat(exact.model)}
    torch.save(found, Path(sys.argv[1]) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
