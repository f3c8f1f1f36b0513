"""What processes of ``tests.forked`` have imported from the start."""

import importlib

for name in (
    "torch._dynamo",
    "repro.cli.federation",
    "repro.cli.run",
    "repro.cli.secagg_parties",
    "repro.federated.deploy.hospital",
    "repro.federated.deploy.server",
    "repro.federated.execute",
    "repro.federated.parallel.distributed",
    "repro.secagg.transport.loopback",
    "tests.federated.small",
):
    importlib.import_module(name)
