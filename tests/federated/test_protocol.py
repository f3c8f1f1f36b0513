"""Every arm's round taken apart: hospitals and a server that share nothing but vectors make the
model that the simulation makes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from repro.federated import whitening
from repro.federated.assembly import round_protocol
from repro.federated.execute import cpu_threads
from repro.federated.parallel.exact_sum import ExactWeightedSum
from repro.federated.parallel.ranks import Ranks
from repro.federated.protocol import Place, RoundProtocol
from repro.federated.vector import to_vector
from repro.privacy.noise_key import NoiseReused, noise_keys
from repro.randomness import RootSeed
from tests.federated.small import assembled, small_dataset, small_settings

SEED = RootSeed.from_user(0)
ROUNDS = {"fedavg": 2, "scattering-dpsgd-eps6": 1, "calibrated-secagg": 2}
ROUNDS |= {"scattering-shared-eps6": 2, "random-newton-eps6": 4, "turned-newton": 4}


@pytest.mark.parametrize("arm", ROUNDS)
def test_hospitals_and_server_apart_make_the_same_model(arm, monkeypatch):
    """Sums are made here, without masks. A secure mean is rounded, so the model is then the other
    one's to its stated error."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    settings = small_settings(arm, rounds=ROUNDS[arm])
    whole = assembled(settings, small_dataset(60), SEED)
    assert isinstance(whole.protocol, RoundProtocol)

    def own() -> RoundProtocol:
        model = copy.deepcopy(whole.model)
        return round_protocol(settings, whole.weights, model, SEED, Ranks())

    sites, server = {one: own() for one in whole.hospitals}, own()
    everybody = sorted(sites)
    together = apart = to_vector(whole.model)
    with cpu_threads(1):
        for number in range(1, settings.rounds + 1):
            noise_keys.clear()  # each side is a process of its own
            together, report = whole.protocol.run_round(together, whole.hospitals, number)
            noise_keys.clear()
            for step in range(server.exchanges(number)):
                parts = {
                    one: site.part(apart.clone(), whole.hospitals[one], Place(number, step))
                    for one, site in sites.items()
                }
                vectors = {one: part.vector for one, part in parts.items()}
                total = summed(whole, number, vectors)
                apart = server.apply(apart, total, everybody, Place(number, step))
            apart = apart.float()
            if arm == "calibrated-secagg":
                bound = report.facts["secagg"]["max_error_bound"]
                assert float((apart - together).abs().max()) < bound + 1e-4
                together = apart
            assert torch.equal(apart, together)
    assert not torch.equal(together, to_vector(whole.model))


def summed(federation, number: int, vectors: dict[int, torch.Tensor]) -> torch.Tensor:
    if not hasattr(federation.protocol, "sum_in"):
        size = next(iter(vectors.values())).numel()
        mean = ExactWeightedSum(size, sum(federation.weights.values()))
        for one, vector in vectors.items():
            mean.add(vector, federation.weights[one])
        return mean.mean()
    plan = federation.protocol.sum_in(number).plan
    total = np.sum([vector.numpy() for vector in vectors.values()], axis=0)
    scale = plan.granularity if total.dtype == np.int64 else 1.0
    return torch.from_numpy(total * scale)


def test_a_hospital_puts_its_noise_on_one_part_of_a_step(monkeypatch):
    """Two parts with one noise would show the difference of their sums bare."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    settings = small_settings("scattering-shared-eps6", rounds=1)
    made = assembled(settings, small_dataset(60), SEED)
    vector, data = to_vector(made.model), made.hospitals[0]
    noise_keys.clear()
    first = made.protocol.part(vector, data, Place(1, 0)).vector
    again = made.protocol.part(vector.clone(), data, Place(1, 0)).vector
    assert torch.equal(first, again)  # a crash is made good by the same bits
    with pytest.raises(NoiseReused):
        made.protocol.part(vector + 1, data, Place(1, 0))
    made.protocol.part(vector + 1, data, Place(1, 1))
