"""What was drawn from a fake store (``tests/conftest.py``), for tests that only look at it."""

import pytest

from repro.report.sources import Sources


@pytest.fixture
def sources(drawn):
    return Sources.of(drawn)
