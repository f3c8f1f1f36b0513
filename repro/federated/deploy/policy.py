"""What a hospital agrees to, in a file of its own: checked before anything else is done."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from repro.checks import check_count, check_real
from repro.errors import InputError
from repro.federated.deploy.plan import TrainingPlan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Policy:
    """arms: the only ones it takes part in. largest_epsilon: of a record over all plans that it
    ever shared anything under in one state folder, against everybody (the server with the planned
    coalition); ``inf`` for arms that promise none. minimum_hospitals: in every sum that is opened.
    secure_aggregation: is it required? public_seed: may noise come from a seed in the plan, which
    hides nothing (a rehearsal)?"""

    arms: tuple[str, ...]
    largest_epsilon: float
    minimum_hospitals: int = 3
    secure_aggregation: bool = True
    public_seed: bool = False

    def __post_init__(self) -> None:
        check_real("largest_epsilon", self.largest_epsilon, lambda x: x >= 0, "0 or more, or inf")
        check_count("minimum_hospitals", self.minimum_hospitals, 2)
        if not self.arms or not all(isinstance(arm, str) for arm in self.arms):
            raise InputError("arms", self.arms, "a list of arms' names")
        for name in ("secure_aggregation", "public_seed"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(name, getattr(self, name), "true or false")

    def check(self, plan: TrainingPlan, spent_before: float = 0.0) -> None:
        """Raise InputError for a plan that this hospital does not agree to. spent_before: ε of
        earlier plans, which adds up with this one's (so does δ)."""
        if plan.arm not in self.arms:
            raise InputError("plan's arm", plan.arm, f"{' or '.join(self.arms)}, by the policy")
        if self.secure_aggregation and plan.settings.secagg is None:
            raise InputError("plan's arm", plan.arm, "one with secure aggregation, by the policy")
        if plan.least < self.minimum_hospitals:
            expected = f"{self.minimum_hospitals} or more in every sum, by the policy"
            raise InputError("plan's least number of hospitals", plan.least, expected)
        if plan.seed is not None and not self.public_seed:
            expected = "none, by the policy: noise of a public seed hides nothing"
            raise InputError("plan's seed", plan.seed, expected)
        total = spent_before + plan.epsilon
        if not total <= self.largest_epsilon:
            spent = f" after {spent_before:g} for earlier plans" if spent_before else ""
            shown = "inf" if math.isinf(plan.epsilon) else f"{plan.epsilon:.6g}"
            expected = f"at most {self.largest_epsilon:g} in all, by the policy"
            raise InputError("plan's ε for a record", shown + spent, expected)


def load_policy(path: Path) -> Policy:
    """From TOML, one line a field; InputError for what is no policy."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InputError("policy", str(path), f"a readable TOML file ({problem})") from None
    unknown = sorted(set(given) - {one.name for one in fields(Policy)})
    missing = sorted({"arms", "largest_epsilon"} - set(given))
    if unknown or missing or not isinstance(given["arms"], list):
        expected = "arms = [...], largest_epsilon = ε, and what else a policy has"
        raise InputError("policy", unknown or missing or given["arms"], expected)
    return Policy(**{**given, "arms": tuple(given["arms"])})
