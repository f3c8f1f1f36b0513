"""What one run of an arm is: its parts and a profile, composed into settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from repro.checks import check_choice
from repro.errors import InputError
from repro.runs.arm import Arm
from repro.runs.profiles import LOGISTIC_RIDGE, Profile, for_model
from repro.runs.settings import (
    TRAINED_IN,
    LocalSettings,
    ModelSettings,
    PartitionSettings,
    RecordPrivacy,
    RunSettings,
    SecAggParameters,
    SharedNoise,
    UpdatePrivacy,
)

MAX_HOSPITALS = 1_000_000
SHARED_TRAINERS = ("shared-dpsgd", "shared-newton", "newton")  # all hospitals' steps are joint


def compose(
    arm: Arm,
    profile: Profile,
    *,
    hospitals: int,
    seed: int | None,
    rounds: int | None = None,
    precision: str = "float32",
) -> RunSettings:
    """The settings of one run of ``arm`` at ``profile``.

    precision: what ``precision_of`` gave for it on this machine.
    One hospital of an arm whose hospitals share the noise of a secure sum is one trusted place
    with all the images: it adds all of the noise, and there is nobody to aggregate with.
    """
    _check(hospitals, seed, rounds)
    profile = for_model(profile, arm.model, arm.scope, arm.trainer, arm.epsilon)
    one_place = hospitals == 1 and arm.trainer in SHARED_TRAINERS
    secure = arm.aggregator == "secure" and not one_place
    update = None
    if arm.mechanism != "identity":
        update = UpdatePrivacy(noise=arm.noise)
    record = twin_of = None
    if arm.epsilon is not None or arm.trainer == "newton":
        record = RecordPrivacy(
            epsilon=RecordPrivacy.epsilon if arm.epsilon is None else arm.epsilon,
            delta=arm.delta,
            clip_norm=profile.dpsgd_clip_norm,
            expected_batch=profile.dpsgd_expected_batch,
            learning_rate=profile.dpsgd_learning_rate,
            optimizer=profile.dpsgd_optimizer,
            momentum=profile.dpsgd_momentum,
        )
    if arm.epsilon is None:  # it promises nothing, so the steps are its private twin's
        record, twin_of = None, record
    secagg = None
    if secure:
        secagg = SecAggParameters().among(hospitals)
        if arm.noise == "calibrated":
            # The noise alone reaches hundreds; ±8 would clip it away and void the experiment.
            secagg = replace(secagg, value_range=1024.0)
    shared = None
    if arm.trainer == "shared-dpsgd":
        shared = SharedNoise(protocol_every=profile.protocol_every)
    elif arm.trainer in ("shared-newton", "newton", "searched-newton"):
        shared = SharedNoise(precision="double")
    if shared is not None and one_place:
        shared = replace(shared, colluders=0, drop_outs=0)
    if shared is not None and secagg is not None and hospitals == 3:
        # Of three, one that colludes with the server could help to confirm two sets of survivors
        # if two sufficed (2·quorum − 3 − 1 = 0 are withstood): all three are needed, none lost.
        secagg, shared = replace(secagg, threshold=3), replace(shared, drop_outs=0)
    search = arm.search
    if search is not None and profile.name == "smoke":
        search = replace(search, rounds=4)
    return RunSettings(
        arm=arm.name,
        hospitals=hospitals,
        seed=seed,
        profile=profile.name,
        scope=arm.scope,
        rounds=profile.rounds if rounds is None else rounds,
        model=ModelSettings(arm.model, width=profile.width),
        partition=PartitionSettings(validation_fraction=arm.held_out),
        local=LocalSettings(
            epochs=profile.local_epochs,
            batch_size=profile.batch_size,
            keep_optimizer=arm.scope == "pooled",  # of "adam"; DP-SGD's is always fresh
        ),
        record_privacy=record,
        update_privacy=update,
        secagg=secagg,
        shared=shared,
        second_order=arm.second_order,
        search=search,
        twin_of=twin_of,
        logistic_ridge=LOGISTIC_RIDGE if arm.trainer == "logistic" else None,
        train_stride=profile.train_stride,
        test_stride=profile.test_stride,
        threads=profile.threads,
        precision=precision,
    )


def precision_of(
    arm: Arm, profile: Profile, asked: str | None, fast_bfloat16: Callable[[], bool]
) -> str:
    """What a run trains in: ``asked``, else the profile's; "auto" is settled here.

    Only arms that add no noise take bf16-mixed by themselves, and only the network that has
    something to gain. fast_bfloat16: is this machine fast in it? Called where it matters.
    """
    wanted = check_choice("precision", asked or profile.precision, (*TRAINED_IN, "auto"))
    if wanted == "bf16-mixed" and arm.model != "dpresnet":
        raise InputError("precision", wanted, f"float32 for {arm.name}: its features are fixed")
    if wanted != "auto":
        return wanted
    gains = arm.model == "dpresnet" and not arm.private
    return "bf16-mixed" if gains and fast_bfloat16() else "float32"


def _check(hospitals: int, seed: int | None, rounds: int | None) -> None:
    if not 1 <= hospitals <= MAX_HOSPITALS:
        raise InputError("hospitals", hospitals, f"an integer from 1 to {MAX_HOSPITALS:,}")
    if seed is not None and not 0 <= seed < 2**64:
        raise InputError("seed", seed, "an integer from 0 to 2^64 - 1")
    if rounds is not None and not 1 <= rounds <= 1_000_000:
        raise InputError("rounds", rounds, "an integer from 1 to 1,000,000")
