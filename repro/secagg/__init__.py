"""Secure aggregation: the server learns the weighted sum of vectors, and nothing else.

Bonawitz et al., *Practical Secure Aggregation*, CCS 2017 (its actively secure form), on the
k-regular graph of Bell et al., *Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead*, CCS 2020. Knows nothing of models, training or privacy: vectors in, mean out.

- ``Hospital``, ``Server``: the two state machines, one method a phase, messages as bytes;
- ``MaskedSum``: the masked inputs that one of several machines has taken in;
- ``Round``, ``Directory``, ``Identity``: what they know before a round;
- ``Encoding``, ``Field``: vectors to field elements and back, with an error bound;
- ``SecureAggregator``: all of it in one process, for a federation;
- ``Refused``, ``RoundFailed``: what goes wrong in a protocol.
"""

from repro.secagg.aggregator import Aggregated, SecAggSettings, SecureAggregator
from repro.secagg.encoding import Decoded, Encoding
from repro.secagg.errors import Refused, RoundFailed
from repro.secagg.field import Field
from repro.secagg.hospital import Hospital
from repro.secagg.keys import Identity
from repro.secagg.partial import MaskedSum
from repro.secagg.rounds import PHASES, Directory, Round
from repro.secagg.server import Server
from repro.secagg.simulation import Completed, Party, Traffic, run_round

__all__ = [
    "PHASES",
    "Aggregated",
    "Completed",
    "Decoded",
    "Directory",
    "Encoding",
    "Field",
    "Hospital",
    "Identity",
    "MaskedSum",
    "Party",
    "Refused",
    "Round",
    "RoundFailed",
    "SecAggSettings",
    "SecureAggregator",
    "Server",
    "Traffic",
    "run_round",
]
