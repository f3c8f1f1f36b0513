"""Print the exact versions of this environment's packages, as pip constraints.

    python tools/lock.py > requirements.lock        # `make lock`

What the project needs at run time and to test, followed through the installed metadata; nothing
else that happens to be installed, no host, no path. Local version labels (``+cpu``) are dropped:
which build of a version was used is said by each run's record, and any index may have another.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata

PROJECT = "dpresnet-repro"
EXTRAS = ("", "test")


def requirements(name: str, extras: tuple[str, ...]) -> set[str]:
    """Names that an installed distribution needs here, with these of its extras."""
    from packaging.requirements import Requirement

    needed = set()
    for text in metadata.requires(name) or []:
        one = Requirement(text)
        environments = [{"extra": extra} for extra in extras]
        if one.marker is None or any(one.marker.evaluate(where) for where in environments):
            needed.add(canonical(one.name))
    return needed


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions() -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = requirements(PROJECT, EXTRAS)
    while waiting:
        name = waiting.pop()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        found[name] = version.partition("+")[0]
        waiting |= requirements(name, ("",)) - found.keys()
    return dict(sorted(found.items()))


def main() -> None:
    python, where = ".".join(map(str, sys.version_info[:2])), f"{platform.system()}, "
    print(f"# Exact versions, as pip constraints: Python {python}, {where}{platform.machine()}.")
    print("# Written by `make lock`; `make reproduce LOCKED=1` installs them.")
    print("# Every run's record names the versions it was made with.")
    for name, version in versions().items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
