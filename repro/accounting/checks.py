"""What the accountant's arguments may be; the numbers' checks are ``repro.checks``'."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import numpy as np

from repro.checks import Number as Number
from repro.checks import check_choice, check_count, check_not_negative, check_positive, check_real
from repro.errors import InputError
from repro.shapes import Float

# Rényi orders above 1, or a value at each of them, float64.
Orders = Float[np.ndarray, " orders"]


class Relation(str, Enum):
    """Which data sets are neighbours. Its text (``add_remove`` …) is as good as the member.

    add_remove: one has a unit more. replace_one: one unit is exchanged for any other. zero_out:
    one unit is exchanged for a null one that contributes nothing (Kairouz et al. 2021, arXiv
    2103.00039, Definition 1.1; Ponomareva et al. 2023, arXiv 2303.00654, section 2.1.1).
    """

    ADD_REMOVE = "add_remove"
    REPLACE_ONE = "replace_one"
    ZERO_OUT = "zero_out"

    def __str__(self) -> str:
        return self.value

    __repr__ = __str__


ADD_REMOVE = Relation.ADD_REMOVE
REPLACE_ONE = Relation.REPLACE_ONE
ZERO_OUT = Relation.ZERO_OUT
RELATIONS = tuple(Relation)

RECORD = "record"
HOSPITAL = "hospital"
UNITS = (RECORD, HOSPITAL)


def delta(value: Any) -> float:
    return real("delta", value, lambda x: 0 < x < 1, "a number above 0 and below 1")


def epsilon(value: Any) -> float:
    return check_not_negative("epsilon", value)


def noise_multiplier(value: Any) -> float:
    return check_not_negative("noise_multiplier", value)


def sample_rate(value: Any) -> float:
    return real("sample_rate", value, lambda x: 0 <= x <= 1, "a probability, from 0 to 1")


def trials(value: Any) -> float:
    return real("trials", value, lambda x: 1 < x < math.inf, "a mean number of trials above 1")


def order(value: Any) -> float:
    return real("order", value, lambda x: 1 < x < math.inf, "a finite number above 1")


def orders(values: Any) -> Orders:
    """Rényi orders as float64 (m,), each finite and above 1."""
    try:
        found = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if found.ndim != 1 or not np.all((found > 1) & (found < math.inf)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError("orders", values, "a list of finite numbers above 1") from None
    return found


positive, non_negative = check_positive, check_not_negative


def count(field: str, value: Any, *, least: int = 0) -> int:
    """A whole number ≥ ``least``; whole floats (``1e9``) and numpy integers are accepted."""
    return check_count(field, value, least)


def as_float(whole: int) -> float:
    """The float nearest to a count, ∞ beyond the largest."""
    try:
        return float(whole)
    except OverflowError:
        return math.inf


def relation(value: Any) -> Relation:
    return Relation(one_of("relation", value, RELATIONS))


one_of, real = check_choice, check_real
