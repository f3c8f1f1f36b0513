"""The privacy ledger of a federated run: spends, views, statements, and the rows of its record."""

from repro.accounting.ledger.federated import FederatedLedger
from repro.accounting.ledger.views import PLAIN_VIEW, SECURE_VIEW, UNPROTECTED, View

__all__ = ["PLAIN_VIEW", "SECURE_VIEW", "UNPROTECTED", "FederatedLedger", "View"]
