"""Self-signed TLS certificates, for a federation that has no certificate authority of its own.

Who copies such a certificate to the other end by hand trusts that one key and nobody's word.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from secrets import token_hex

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_CURVE = ec.SECP256R1()


def self_signed(
    hosts: Sequence[str], days: float = 365.0, begins: float = -1 / 24
) -> tuple[bytes, bytes]:
    """(certificate, private key), both PEM, for these host names or IP addresses.

    days: from now to when it expires; begins: from now to when it is first valid, an hour ago
    unless said, for clocks that differ.
    """
    key = ec.generate_private_key(_CURVE)
    # A verifier finds an issuer by its name, so two that trust each other's must differ in it.
    parts = {x509.NameOID.COMMON_NAME: hosts[0][:64], x509.NameOID.SERIAL_NUMBER: token_hex(16)}
    name = x509.Name([x509.NameAttribute(part, value) for part, value in parts.items()])
    now = datetime.datetime.now(datetime.timezone.utc)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_alternative(one) for one in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_usage(), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
