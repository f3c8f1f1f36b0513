"""What is asked of the C library is heard, and refused politely where there is none."""

import os
import subprocess
import sys

import pytest

from repro.federated import memory

COUNT = """
import resource, sys
from repro.federated.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
torch.set_num_threads(1)
for _ in range(3):
    [torch.ones(2**20) for _ in range(20)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    [torch.ones(2**20) for _ in range(20)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
                    reason="no glibc")  # fmt: skip
def test_kept_memory_is_not_faulted_in_again():
    """Twenty times twenty 4 MiB tensors are 400,000 pages: with it, under a tenth of the faults."""

    def faults(word):
        done = subprocess.run(
            [sys.executable, "-c", COUNT, word], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < 0.1 * faults("give back")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
