"""Privacy accounting: events, the accountants that turn them into (ε, δ), and the ledger.

Needs numpy only (scipy where a Gaussian tail is evaluated); torch is never imported.
"""

from repro.accounting.accountant import RDPAccountant
from repro.accounting.base import Accountant
from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.checks import Relation
from repro.accounting.composition import EpsilonBound, compose_epsilon
from repro.accounting.curves import rdp
from repro.accounting.events import (
    BestOfTrialsEvent,
    ComposedEvent,
    DataDependentRateEvent,
    DiscreteGaussianEvent,
    FixedBatchGaussianEvent,
    GaussianEvent,
    LaplaceEvent,
    NonPrivateEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
    RepeatedEvent,
    ShuffledBatchesEvent,
    banded_event,
    event_from_dict,
)
from repro.accounting.gaussian import (
    classical_epsilon,
    classical_sigma,
    gaussian_epsilon,
    gaussian_sigma,
)
from repro.accounting.pld import PLDAccountant
from repro.accounting.random_stopping import number_of_trials
from repro.accounting.search_cost import random_stopping_rdp, search_epsilon, trial_multiplier

__all__ = [
    "Accountant",
    "BestOfTrialsEvent",
    "ComposedEvent",
    "DataDependentRateEvent",
    "DiscreteGaussianEvent",
    "EpsilonBound",
    "FixedBatchGaussianEvent",
    "GaussianEvent",
    "LaplaceEvent",
    "NonPrivateEvent",
    "PLDAccountant",
    "PoissonSampledGaussianEvent",
    "PrivacyEvent",
    "RDPAccountant",
    "Relation",
    "RepeatedEvent",
    "ShuffledBatchesEvent",
    "banded_event",
    "calibrate_noise_multiplier",
    "classical_epsilon",
    "classical_sigma",
    "compose_epsilon",
    "event_from_dict",
    "gaussian_epsilon",
    "gaussian_sigma",
    "number_of_trials",
    "random_stopping_rdp",
    "rdp",
    "search_epsilon",
    "trial_multiplier",
]
