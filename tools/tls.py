"""make tls: what TLS costs the device, for NATS and for https, beyond the same without it.

On the unix port mbedtls takes its memory outside the heap that -X heapsize bounds, on an RP2 inside
it: both are told. The handshake's time is this computer's; its steps are what no deadline can
interrupt on any port.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import trustme

from stage import ToolError, device, nats_server

#: Bytes: roomy, so that nothing is dropped.
HEAP = "2M"
ROUNDS = 5


def certificates(folder: Path) -> ssl.SSLContext:
    """A server's context; in `folder` are ca.pem, its CA's, and server.pem and server.key."""
    ca = trustme.CA()
    server = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


@contextlib.asynccontextmanager
async def http(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    """Answer each request with "ok": the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "localhost", 0, ssl=context)
    yield str(server.sockets[0].getsockname()[1])
    server.close()


async def costs(job: str, port: str, ca: str) -> list[int]:
    """What the device prints: the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        async with device("tls_device", HEAP, "", "", job, port, ca) as child:
            out = (await child.communicate())[0].decode()
            if child.returncode:
                raise ToolError(out)
            rounds.append([int(word) for word in out.split()])
    return [sorted(column)[ROUNDS // 2] for column in zip(*rounds, strict=True)]


async def main() -> None:
    """Print the table."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        context = certificates(folder)
        options = ["--tls", "--tlscert", "server.pem", "--tlskey", "server.key"]
        options = [str(folder / word) if "." in word else word for word in options]
        for name in ("plain", "secure"):
            (folder / name).mkdir()
        async with (
            nats_server(folder / "plain") as nats,
            nats_server(folder / "secure", *options) as secure_nats,
            http(None) as web,
            http(context) as secure_web,
        ):
            for job, plain, secure in (("nats", nats, secure_nats), ("http", web, secure_web)):
                ports = [url.rpartition(":")[2] for url in (plain, secure)]
                ca = str(folder / "ca.pem")
                found.append((await costs(job, ports[0], ""), await costs(job, ports[1], ca)))
    rows = (
        ("code, loaded when TLS is used", "B", 0, 1),
        ("heap of a connection, more than plain", "B", 1, 1),
        ("the same, outside the heap (on RP2 inside)", "B", 2, 1),
        ("opening a connection, more than plain", "ms", 3, 1000),
        ("of it the longest step that can't be cut", "ms", 4, 1000),
    )
    print(f"{'what TLS costs (64-bit unix port, P-256)':46}{'NATS':>10}{'https':>10}")
    for name, unit, at, scale in rows:
        values = [(secure[at] - plain[at]) / scale for plain, secure in found]
        print(f"  {name:44}" + "".join(f"{f'{value:,.0f} {unit}':>10}" for value in values))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ToolError as e:
        sys.exit(f"tls failed: {e}")
