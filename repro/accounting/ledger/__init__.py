"""The privacy ledger of a federated run: spends, views, statements, and the rows of its record."""

from repro.accounting.ledger.federated import PUBLIC, SEED_SOURCES, FederatedLedger
from repro.accounting.ledger.rows import Terms, warnings_of
from repro.accounting.ledger.spends import RoundSpend, Spends
from repro.accounting.ledger.statement import NO_GUARANTEE, Statement
from repro.accounting.ledger.views import (
    PLAIN,
    PLAIN_VIEW,
    SECURE,
    SECURE_VIEW,
    UNPROTECTED,
    View,
)

__all__ = [
    "NO_GUARANTEE",
    "PLAIN",
    "PLAIN_VIEW",
    "PUBLIC",
    "SECURE",
    "SECURE_VIEW",
    "SEED_SOURCES",
    "UNPROTECTED",
    "FederatedLedger",
    "RoundSpend",
    "Spends",
    "Statement",
    "Terms",
    "View",
    "warnings_of",
]
