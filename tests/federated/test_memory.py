"""What is asked of the C library is heard, and refused politely where there is none."""

import os
import subprocess
import sys

import pytest

from repro.federated import memory

# The C library's own books (mallinfo(3)), not the kernel's page faults: some kernels count none.
HELD = """
import ctypes, sys
from repro.federated.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Books(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in NAMES]
mallinfo = ctypes.CDLL(None).mallinfo
mallinfo.restype = Books
tensors = [torch.ones(2**20) for _ in range(20)]
del tensors
print(mallinfo().fordblks // 2**20)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
                    reason="no glibc")  # fmt: skip
def test_freed_memory_is_kept():
    """Twenty 4 MiB tensors, freed: all still there for the next ones, or given back."""

    def held(word):
        done = subprocess.run(
            [sys.executable, "-c", HELD, word], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert held("give back") < 80 <= held("keep")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
