"""The few numbers of the first screen: true ε, length of training and accuracy, row by row."""

from __future__ import annotations

from repro.report.comparison import local_epochs
from repro.report.evidence import Evidence
from repro.report.privacy import audit_terms, deltas, epsilon, epsilon_of_arm
from repro.report.shown import held_out, runs_shown, shown, trained_on, widest_test_error
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import NOT_RUN, Column, Table
from repro.report.verdicts import epsilon_of_a_hospital
from repro.runs.arm import PRIVATE, Arm
from repro.runs.arms import ARMS
from repro.runs.settings import UpdatePrivacy


def counts_in_words(evidence: Evidence) -> str:
    return f"{' / '.join(map(str, evidence.hospital_counts))} hospitals"


def answer_table(sources: Sources) -> Table:
    """The answer's few numbers: true ε and accuracy of each reading."""
    evidence = sources.evidence
    counts = evidence.hospital_counts
    stated = sources.claims.get("epsilon").value
    found = " or ".join(deltas(runs_shown(evidence, "answer")))
    own = f"δ = {found}" if found else "its own δ"
    rows = [
        {
            "group": "the paper's claim, not run",
            "what": PRIVATE,
            "epsilon": f"{stated:g} (as stated)",
            "attack": "–",
            "epochs": "–",
        }
    ]
    for hospitals in counts:
        claim = sources.claims.accuracy(PRIVATE, hospitals)
        rows[0][f"k{hospitals}"] = f"{claim.value:.2f} [{claim.source}]" if claim else "–"
    for arm, what in shown("answer"):
        row = {"group": arm.family.heading, "what": what}
        row["epsilon"] = _true_epsilon(sources, arm.name)
        row["attack"] = _found_by_attack(sources, arm)
        row["epochs"] = _epochs(evidence, arm.name)
        for hospitals in counts:
            row[f"k{hospitals}"] = _accuracy(evidence, arm.name, hospitals)
        rows.append(row)
    return Table(
        name="answer",
        title="Test accuracy (%) and true ε",
        columns=[
            Column("group", "model"),
            Column("what", "training"),
            Column("epsilon", "true ε", number=True),
            Column("attack", "found by attack", number=True),
            Column("epochs", "local epochs", number=True),
            *(Column(f"k{k}", f"{k} hospitals", number=True) for k in counts),
        ],
        rows=rows,
        caption="Accuracy (%) of the last round: mean over seeds, in brackets each seed"
        f"{_guessing(evidence)}{_images(evidence)}. ε: total, from the runs' ledgers, at "
        f"{own}, for the unit in brackets: that it contributes or not (zero-out: how "
        "many records a hospital has is public), and after the semicolon that it is exchanged for "
        "any other, where that is known (by group privacy for Poisson-sampled shared noise) "
        "(below the 6 promised where noise was planned for a drop-out that did not happen); "
        "found by attack: a lower bound on "
        f"what the arm promises, {_attacked(sources)} (Table 6). "
        "Compare rows of one model with each "
        "other, none with the claim."
        f"{_public_seeds(evidence)} {evidence.caption()}",
    )


def _accuracy(evidence: Evidence, arm: str, hospitals: int) -> str:
    final, runs = evidence.final(arm, hospitals), evidence.runs(arm, hospitals)
    if final is None:
        return NOT_RUN
    if len(runs) == 1:
        return percent(final)
    seeds = ", ".join(f"{100 * run.final_accuracy:.1f}" for run in runs)
    return f"{100 * final.mean:.2f}\n({seeds})"


def _guessing(evidence: Evidence) -> str:
    """The accuracy of a model that knows nothing but which class is the commonest."""
    if evidence.guessing is None:
        return ""
    return f"; always guessing the commonest class has {100 * evidence.guessing:.1f} %"


def _images(evidence: Evidence) -> str:
    """What the accuracies stand on: images trained on, and the chance of the test set."""
    runs = runs_shown(evidence, "answer")
    if not runs:
        return ""
    each = {trained_on(evidence, arm.name): None for arm, _ in shown("answer")}
    images = " or ".join(filter(None, each))
    trained = (
        f"; trained on {images} ({held_out(runs)} of every hospital's are held out)"
        if images
        else ""
    )
    return (
        f"{trained}; seeds share the test set, whose own binomial error is "
        f"{widest_test_error(runs)}"
    )


def _public_seeds(evidence: Evidence) -> str:
    if not any(run.seed_source == "user seed" for run in evidence.records):
        return ""
    return (
        " These runs' seeds are public, which makes them repeatable and their own models not "
        "private; ε holds for the same command without a seed."
    )


def _epochs(evidence: Evidence, arm: str) -> str:
    runs = evidence.all_runs(arm)
    if not runs:
        return NOT_RUN
    solved = ARMS[arm].trainer == "logistic"  # it has no length
    return "to the end" if solved else f"{local_epochs(runs[0]):g}"


def _found_by_attack(sources: Sources, arm: Arm) -> str:
    """``≥ 1.5``, of the whole run; a dash where no noise is claimed."""
    if not arm.private:
        return "–"
    found = sources.side(f"audit/{arm.name}")
    return NOT_RUN if found is None else f"≥ {found['epsilon_lower']:.2g}"


def _attacked(sources: Sources) -> str:
    found = (sources.side(f"audit/{arm.name}") for arm, _ in shown("answer") if arm.private)
    return audit_terms(one for one in found if one is not None)


def _true_epsilon(sources: Sources, arm: str) -> str:
    """The largest total ε in the ledgers of the arm's runs, and what it protects."""
    runs = sources.evidence.all_runs(arm)
    found, claim = epsilon_of_arm(arm, runs), sources.claims.get("epsilon")
    rounds = max((run.rounds for run in runs), default=claim["rounds"])
    if ARMS[arm].noise != "documented" or rounds == claim["rounds"]:
        return found
    # This noise was fitted to no length of training, so ε is another for every one.
    whole = epsilon(epsilon_of_a_hospital(claim, UpdatePrivacy().clip_norm))
    return f"{found}\nin {rounds} rounds; in the paper's {claim['rounds']}: {whole}"
