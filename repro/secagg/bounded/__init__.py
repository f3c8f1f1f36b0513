"""A sum that no single hospital can wreck: every input's norm is proved, without showing the input.

A hospital sends the server its vector less one mask for each set of 2·t + 1 members of a committee
of 3·t + 1 hospitals, and these members the masks' seeds. So server and members hold shares of every
vector. The server then draws random projections; the hospital proves on shares that they are no
longer than an honest vector's; who does not is named and left out, and the members give out their
masks' sum over the others.

- ``NormBound``: what is proved, with the theorem; ``allowance``: with a share of noise in it;
- ``Circuit``, ``project``: the proof and the projections, linear in what is shared;
- ``BoundedRound``: the public settings; ``BoundedHospital``, ``Member``, ``BoundedServer``: the
  parties; ``HospitalSide``, ``ServerSide``: the same over a network, message by message;
  ``run_bounded_round``: a whole round in this process.

What is assumed and what it costs: docs/bounded-sums.md.
"""

from repro.secagg.bounded.bound import NormBound, allowance
from repro.secagg.bounded.circuit import Circuit
from repro.secagg.bounded.hospital import BoundedHospital
from repro.secagg.bounded.hospital_side import HospitalSide
from repro.secagg.bounded.member import Member
from repro.secagg.bounded.projections import project
from repro.secagg.bounded.server import BoundedServer
from repro.secagg.bounded.server_side import ServerSide
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.bounded.simulation import BoundedCosts, BoundedSum, run_bounded_round

__all__ = [
    "BoundedCosts",
    "BoundedHospital",
    "BoundedRound",
    "BoundedServer",
    "BoundedSum",
    "Circuit",
    "HospitalSide",
    "Member",
    "NormBound",
    "ServerSide",
    "allowance",
    "project",
    "run_bounded_round",
]
