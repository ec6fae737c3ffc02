"""Certificates for 127.0.0.1 and localhost that nobody should take, each with a name."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
OURS = ("localhost", "127.0.0.1")
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


class Pair(NamedTuple):
    """Paths of a certificate (with those that signed it) and its key, as proxy.TlsProxy wants."""

    server: Path
    server_key: Path


class Issuer(NamedTuple):
    """A certificate with its key, and what stands between it and the one that is trusted."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()


def _names(hosts: tuple[str, ...]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def issue(
    by: Issuer | None,
    name: str,
    *hosts: str,
    ca: bool = False,
    since: datetime.datetime = NOW - DAY,
    until: datetime.datetime = NOW + DAY,
    purpose: x509.ObjectIdentifier = SERVER,
) -> Issuer:
    """A certificate that `by` (None: itself) has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = by.key if by else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True
        )
    )
    if hosts:
        builder = builder.add_extension(_names(hosts), critical=False)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    return Issuer(certificate, key, (by.certificate, *by.chain) if by else ())


def _tampered(one: Issuer) -> Issuer:
    """The same with another name in it, for which it was not signed."""
    der = one.certificate.public_bytes(serialization.Encoding.DER)
    assert b"lacolhost" in der
    other = x509.load_der_x509_certificate(der.replace(b"lacolhost", b"localhost"))
    return Issuer(other, one.key, one.chain)


class BadCertificates:
    """`ca` is the PEM file of the one that is trusted; `good` is by it, `bad` are to be refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        trusted = issue(None, "trusted", ca=True)
        other = issue(None, "other", ca=True)
        same_name = issue(None, "trusted", ca=True)
        leaf = issue(trusted, "server", *OURS)
        old = issue(trusted, "old", ca=True, until=NOW - DAY / 2)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(trusted.certificate.public_bytes(serialization.Encoding.PEM))
        self.good = self._write("good", leaf)
        self.other = self._write("another-ca", issue(other, "server", *OURS))
        bad = {
            "expired": issue(trusted, "server", *OURS, until=NOW - DAY / 2),
            "expired-a-minute-ago": issue(trusted, "server", *OURS, until=NOW - DAY / 1440),
            "not-yet-valid": issue(trusted, "server", *OURS, since=NOW + DAY / 2),
            "of-another-host": issue(trusted, "server", "files.example", "127.0.0.9"),
            "of-a-host-that-ends-so": issue(trusted, "server", "xlocalhost", "localhost.example"),
            "of-a-wildcard": issue(trusted, "server", "*", "*.localhost"),
            "self-signed": issue(None, "localhost", *OURS),
            "by-another-ca-of-the-same-name": issue(same_name, "server", *OURS),
            "by-a-server": issue(leaf, "server", *OURS),
            "by-an-expired-ca": issue(old, "server", *OURS),
            "for-clients": issue(trusted, "client", *OURS, purpose=ExtendedKeyUsageOID.CLIENT_AUTH),
            "for-mail": issue(trusted, "mail", *OURS, purpose=ExtendedKeyUsageOID.EMAIL_PROTECTION),
            "tampered-with": _tampered(issue(trusted, "server", "lacolhost", "127.0.0.1")),
        }
        self.bad = {name: self._write(name, one) for name, one in bad.items()}
        self.bad["by-another-ca"] = self.other

    def _write(self, name: str, one: Issuer) -> Pair:
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pem = serialization.Encoding.PEM
        # What is trusted is not shown.
        chain = (one.certificate, *one.chain[:-1])
        pair.server.write_bytes(b"".join(c.public_bytes(pem) for c in chain))
        pair.server_key.write_bytes(
            one.key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


#: Their names.
NAMES = (
    *("expired", "expired-a-minute-ago", "not-yet-valid", "of-another-host"),
    *("of-a-host-that-ends-so", "of-a-wildcard", "self-signed", "by-another-ca"),
    *("by-another-ca-of-the-same-name", "by-a-server", "by-an-expired-ca", "for-clients"),
    *("for-mail", "tampered-with"),
)
