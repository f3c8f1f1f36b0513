"""Measuring: interleaved repeats, median with p20 and p80, and the machine they were taken on.

Machines are shared and noisy, so a figure is only ever quoted beside a peer measured in the
same run, the contestants taking turns (A B C, A B C, …) so that drift hits all alike.
"""

from repro.bench.harness import Row, format_rows, interleave, peak_memory
from repro.runs.provenance import environment

__all__ = ["Row", "environment", "format_rows", "interleave", "peak_memory"]
