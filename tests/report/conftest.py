"""One fake store, drawn once, for every test that only looks at what was drawn."""

import pytest

from repro.report.assemble import write_report
from repro.report.sources import Sources
from tests.report import fake


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder with fake quick runs of all arms, partitions, and everything drawn from them."""
    out = tmp_path_factory.mktemp("drawn")
    fake.store(out)
    fake.side_files(out)
    write_report(Sources.of(out))
    return out


@pytest.fixture
def sources(drawn):
    return Sources.of(drawn)
