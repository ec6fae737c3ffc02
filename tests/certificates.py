"""Certificates and keys for the tests: a CA with a server and a client of its own, another CA, and
NATS' NKEYs."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import ClassVar

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Certificates:
    """PEM files in `folder`: ca, other (a CA that signed nothing), server and client with keys.

    The server is `hosts`, or localhost and 127.0.0.1.
    """

    def __init__(self, folder: Path, *hosts: str) -> None:
        ca = trustme.CA()
        self.ca = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        self.other = folder / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(self.other))
        self.server, self.server_key = folder / "server.pem", folder / "server.key"
        self.client, self.client_key = folder / "client.pem", folder / "client.key"
        server = ca.issue_cert(*(hosts or ("localhost", "127.0.0.1")))
        client = ca.issue_cert("device.example")
        for cert, path, key in (
            (server, self.server, self.server_key),
            (client, self.client, self.client_key),
        ):
            cert.cert_chain_pems[0].write_to_path(str(path))
            cert.private_key_pem.write_to_path(str(key))

    def nats(self, *options: str) -> str:
        """The tls block of a nats-server's configuration."""
        files = {"cert_file": self.server, "key_file": self.server_key, "ca_file": self.ca}
        lines = [f'{name}: "{path}"' for name, path in files.items()]
        return f"tls {{ {', '.join([*lines, *options])} }}\n"


def _crc16(data: bytes) -> int:
    """CRC-16/XMODEM."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc


class NKey:
    """A key pair of kind "user", "account" or "operator"; `public` is how NATS writes it."""

    PREFIX: ClassVar = {"user": 20 << 3, "account": 0, "operator": 14 << 3}

    def __init__(self, kind: str) -> None:
        self.private = Ed25519PrivateKey.generate()
        raw = bytes((self.PREFIX[kind],)) + self.private.public_key().public_bytes_raw()
        raw += _crc16(raw).to_bytes(2, "little")
        self.public = base64.b32encode(raw).decode().rstrip("=")

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self.private.sign(data)

    def jwt(self, subject: str, name: str, nats: dict[str, object]) -> str:
        """A JWT of NATS' kind about the key `subject`, signed with this one."""

        def part(value: object) -> bytes:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

        claims = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {**nats, "version": 2},
        }
        claims["jti"] = base64.b32encode(hashlib.sha256(part(claims)).digest()).decode()[:52]
        text = part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + part(claims)
        signature = base64.urlsafe_b64encode(self.sign(text)).rstrip(b"=")
        return (text + b"." + signature).decode()
