"""Gather finished runs for keeping: RUNS/ID/record.json -> RUNS/PROFILE/ARM.jsonl.

python tools/gather.py paper_results        # while nobody is working there
"""

from __future__ import annotations

import sys
from pathlib import Path

from repro.runs import RunStore


def main() -> None:
    for path in RunStore(Path(sys.argv[1])).gather():
        print(path)


if __name__ == "__main__":
    main()
