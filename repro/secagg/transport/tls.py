"""TLS contexts as the protocol needs them: TLS 1.3, the other end always authenticated.

TLS hides the sum, the attendance and the sizes from the network, and keeps strangers out when
hospitals show certificates too. The protocol's own signatures do not rest on it.
"""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509

from repro.errors import InputError
from repro.secagg.deploy.keystore import read_private


def server_context(certificate: Path, key: Path, hospitals: Path | None = None) -> ssl.SSLContext:
    """The server's. certificate, key: PEM files, the chain and its private key. InputError for a
    key that others may read, and for a certificate that is not valid now.

    hospitals: PEM file of the authorities (or single certificates) that hospitals' certificates
    come from; with it nobody else gets past the handshake (mutual TLS).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load_chain(context, certificate, key)
    if hospitals is not None:
        _load_authorities(context, hospitals)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def hospital_context(
    authorities: Path, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A hospital's. authorities: PEM file of those who may vouch for the server.

    certificate, key: the hospital's own, for a server that asks (mutual TLS).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load_authorities(context, authorities)
    if (certificate is None) != (key is None):
        raise InputError("certificate", str(certificate or key), "a certificate and its key")
    if certificate is not None and key is not None:
        _load_chain(context, certificate, key)
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        expected = f"PEM files of a certificate and its unencrypted key ({problem})"
        raise InputError("certificate", f"{certificate}, {key}", expected) from None
    read_private(key)
    _check_dates(certificate, _certificates(certificate)[:1])


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as problem:
        raise InputError("certificate", str(path), f"a PEM file ({problem})") from None


def _check_dates(path: Path, certificates: list[x509.Certificate]) -> None:
    """InputError if none of them is valid now: the other end would say so, at every try."""
    now = datetime.datetime.now(datetime.timezone.utc)
    if not any(one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in certificates):
        first = certificates[0]
        dates = f"{first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d}"
        raise InputError("certificate", str(path), f"one that is valid now, not from {dates}")


def _load_authorities(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except OSError as problem:
        raise InputError(
            "authorities", str(authorities), f"a PEM file of certificates ({problem})"
        ) from None
    _check_dates(authorities, _certificates(authorities))


def _no_password() -> str:
    raise ValueError("the key is encrypted")
