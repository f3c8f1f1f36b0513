"""The server and the hospitals as a library: rounds driven by what the last sum has led to."""

from __future__ import annotations

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Contribution, RoundFailed
from repro.secagg.deploy.holding import open_holder
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.tcp_server import TcpServer
from tests.secagg.deploy.federation import DIMENSION, Deployment


def test_a_model_is_driven_by_its_sums(tmp_path):
    """Four hospitals move a model half of the way to their own target in each of three rounds,
    each from the bytes that the last sum has led to; all are handed the last model, and end."""
    deployment, models = Deployment(tmp_path, opening=30.0), {}
    targets = {one: deployment.vector(one).astype(np.float64) for one in range(4)}

    def step(one, announced):
        model = np.frombuffer(announced.application)
        return Contribution(0.5 * (targets[one] - model), one + 1)

    model, expected = np.zeros(DIMENSION), np.zeros(DIMENSION)
    middle = sum((one + 1) * targets[one] for one in range(4)) / 10
    with (
        open_holder(deployment.place("server"), deployment.lines.append) as holder,
        TcpServer(limits=deployment.limits) as server,
    ):
        deployment.address = server.address
        for one in range(4):
            deployment.join(
                one,
                None,
                lambda announced, one=one: step(one, announced),
                closed=lambda last, one=one: models.update({one: last.application}),
            )
        for number in (1, 2, 3):
            given = holder.hold(
                server.run_round, application=model.tobytes(), limits=deployment.limits
            )
            assert (given.number, given.survivors) == (number, (0, 1, 2, 3))
            model = model + given.decoded.mean
            expected = expected + 0.5 * (middle - expected)
        assert holder.close(server.tell, model.tobytes(), seconds=30.0) == {0, 1, 2, 3}
    deployment.finish()
    np.testing.assert_allclose(model, expected, atol=3 * given.decoded.max_error_bound)
    assert models == dict.fromkeys(range(4), model.tobytes())
    assert sum("the server has closed the session" in line for line in deployment.lines) == 4


def test_nobody_comes_and_too_much_is_said(tmp_path):
    """Both are told to the caller; an opening without hospitals costs no number."""
    deployment, limits = Deployment(tmp_path), Limits(phase=0.2)
    with open_holder(deployment.place("server")) as holder, TcpServer(limits=limits) as server:
        with pytest.raises(InputError, match="at most"):
            holder.hold(server.run_round, application=bytes(2 << 20))
        for _ in range(2):
            with pytest.raises(RoundFailed):
                holder.hold(server.run_round, limits=limits)
        assert holder.close(server.tell, b"bytes", seconds=0.2) == set()
    assert [entry["round"] for entry in deployment.log("server").entries if "round" in entry] == [
        *(1, 1, 1)
    ]
