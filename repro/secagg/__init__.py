"""Secure aggregation: the server learns the weighted sum of vectors, and nothing else.

Bonawitz et al., *Practical Secure Aggregation*, CCS 2017 (its actively secure form), on the
k-regular graph of Bell et al., *Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead*, CCS 2020. Knows nothing of models, training or privacy: vectors in, mean out.

- ``Hospital``, ``Server``: the two state machines, one method a phase, messages as bytes;
- ``MaskedSum``: the masked inputs that one of several machines has taken in;
- ``Round``, ``Directory``, ``Identity``: what they know before a round;
- ``Encoding``, ``IntegerEncoding``, ``Field``: vectors to field elements and back, with bounds;
- ``Contribution``: a hospital's vector and weight; ``model_digest``, ``settings_digest``: what
  a round is bound to; ``joint_session``: its name, chosen by all together;
- ``RoundCounter``: a hospital's memory of its rounds; ``committee_risk``: how safe a setting is;
- ``run_round``, ``RoundDriver``: a whole round, in one process or several;
- ``Refused``, ``RoundFailed``, ``ImpossibleSum``: what goes wrong in a protocol.
"""

from repro.secagg.committee import CommitteeRisk, committee_risk
from repro.secagg.context import model_digest, settings_digest
from repro.secagg.counter import MemoryCounter, RoundCounter
from repro.secagg.driver import Places, RoundDriver
from repro.secagg.encoding import Decoded, Encoding, VectorEncoding
from repro.secagg.errors import ImpossibleSum, Refused, RoundFailed
from repro.secagg.field import Field
from repro.secagg.hospital import Contribution, Hospital
from repro.secagg.integers import IntegerEncoding
from repro.secagg.keys import Identity
from repro.secagg.partial import MaskedSum
from repro.secagg.rounds import PHASES, Directory, Round
from repro.secagg.server import Server
from repro.secagg.session import joint_session, session_commitment
from repro.secagg.simulation import Completed, Party, Traffic, run_round

__all__ = [
    "PHASES",
    "CommitteeRisk",
    "Completed",
    "Contribution",
    "Decoded",
    "Directory",
    "Encoding",
    "Field",
    "Hospital",
    "Identity",
    "ImpossibleSum",
    "IntegerEncoding",
    "MaskedSum",
    "MemoryCounter",
    "Party",
    "Places",
    "Refused",
    "Round",
    "RoundCounter",
    "RoundDriver",
    "RoundFailed",
    "Server",
    "Traffic",
    "VectorEncoding",
    "committee_risk",
    "joint_session",
    "model_digest",
    "run_round",
    "session_commitment",
    "settings_digest",
]
