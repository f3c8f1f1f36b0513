"""What many of these tests plan alike is planned once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from repro.privacy import planning


@pytest.fixture(scope="package", autouse=True)
def _noise_is_calibrated_once_for_equal_plans() -> Iterator[None]:
    """A pure function of numbers, a tenth of a second each time; its own tests are elsewhere."""
    calibrate: Callable[..., Any] = planning.calibrate_noise_multiplier
    with pytest.MonkeyPatch.context() as patch:
        # typed: True is not the number 1 but a mistake.
        remembered = functools.lru_cache(maxsize=None, typed=True)(calibrate)
        patch.setattr(planning, "calibrate_noise_multiplier", remembered)
        yield
