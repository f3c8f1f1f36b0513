"""The paper's claims, each with the tag of its source (``paper_results/claims.toml``).

The file and ``expected.toml`` lie beside this module in a wheel; in a checkout links do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.checks import check_choice
from repro.errors import InputError
from repro.files import read_toml

BESIDE = Path(__file__).parent
PAPER_RESULTS = Path(__file__).resolve().parents[2] / "paper_results"
KINDS = ("accuracy", "quoted", "difference", "epsilon", "parameters", "sizes")


@dataclass(frozen=True)
class Claim:
    """One number of the paper.

    value: per cent for accuracies, percentage points for differences, ε, or a count.
    readings: the ways in which it can be meant, each measured apart.
    """

    id: str
    kind: str
    configuration: str
    value: Any
    tolerance: float
    source: str
    hospitals: int | None = None
    comparable: bool = True
    reason: str = ""
    readings: tuple[dict[str, Any], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)  # further keys, e.g. sigma

    def __getitem__(self, key: str) -> Any:
        return self.details[key]


@dataclass(frozen=True)
class Claims:
    paper: str
    sources: dict[str, str]
    claims: tuple[Claim, ...]
    one_run: float = 0.0  # points by which a single run may miss an accuracy
    history: str = ""  # what the public history of the authors' repository can run

    def of_kind(self, *kinds: str) -> list[Claim]:
        return [claim for claim in self.claims if claim.kind in kinds]

    def get(self, claim_id: str) -> Claim:
        return next(claim for claim in self.claims if claim.id == claim_id)

    def accuracy(self, configuration: str, hospitals: int) -> Claim | None:
        """The claimed (or quoted) accuracy of a configuration, where the paper has one."""
        for claim in self.of_kind("accuracy", "quoted"):
            if (claim.configuration, claim.hospitals) == (configuration, hospitals):
                return claim
        return None


def load_claims(path: Path | None = None) -> Claims:
    """Read and check ``claims.toml``: every claim has a known kind and a known source tag."""
    path = path or BESIDE / "claims.toml"
    data = read_toml(path)
    sources = data.get("sources", {})
    claims = tuple(_claim(entry, sources) for entry in data.get("claim", []))
    names = [claim.id for claim in claims]
    if len(set(names)) != len(names):
        raise InputError("claims.toml", sorted(names), "every id once")
    return Claims(
        paper=str(data["paper"]),
        sources=dict(sources),
        claims=claims,
        one_run=float(data.get("one_run", {}).get("tolerance", 0.0)),
        history=str(data.get("history", "")),
    )


def _claim(entry: dict[str, Any], sources: dict[str, str]) -> Claim:
    known = {f for f in Claim.__dataclass_fields__ if f != "details"}
    fields = {key: value for key, value in entry.items() if key in known}
    missing = {"id", "kind", "configuration", "value", "tolerance", "source"} - fields.keys()
    if missing:
        raise InputError("claim", entry.get("id"), f"the keys {sorted(missing)} too")
    check_choice("source", fields["source"], sources)
    check_choice("kind", fields["kind"], KINDS)
    fields["tolerance"] = float(fields["tolerance"])
    fields["readings"] = tuple(fields.get("readings", ()))
    more = {key: value for key, value in entry.items() if key not in known}
    return Claim(**fields, details=more)
