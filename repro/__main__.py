"""``python -m repro``: the same command line as the console script ``repro``."""

import sys

from repro.cli import main

if __name__ == "__main__":
    sys.exit(main())
