"""nats-py, made to keep what this project promises. Only `client` uses this module.

What nats-py 2.16 does otherwise, and how it is met here:

* It repeats the first connection for ever, and 60 times even without reconnecting. `open_broker`
  tries each server once: the error callback raises until the connection stands.
* To it a `tls://` URL is only a wish: a server (or somebody between) that does not announce TLS
  gets the credentials in the clear. `Broker` refuses, and takes TLS where that is optional.
* It believes which other servers there are before TLS, and connects to them without. `Broker` does
  neither.
* It waits the same time before each attempt to reconnect. `backoff` waits longer and longer.
* It closes for good on whatever the server complains of. `Broker` leaves that to the server, and
  reconnects when it does.
* Who waits in `publish` for a full socket cannot be cancelled, and waits for ever where the
  connection ends for good. In `Broker` both end it.
* Its PING, and with it a flush, overtakes what waits to be written. In `Broker` it waits its turn.
* A PING that waits is written in the next connection, whose PONGs are then one too many. `Broker`
  forgets it.
* It leaves a dead connection only when that has taken what waits to be written. `Broker` drops it.
* Malformed headers and subjects that are no UTF-8, which anybody may send, end its reading, and
  nobody is told. `Broker` reads them itself. Whatever else it can't read ends the connection.
* What ends an attempt to reconnect with an unexpected exception ends all further ones. `Broker`
  lets out only those that are expected.
* Closed while it reconnects, it can wait for ever, or go on reconnecting. `Broker.end` does not.
* It heeds a server's limit for messages (max_payload) only as it was at the beginning.
* Messages of several subscriptions lose their order, and a task handles each one's. A `Receiver`
  gets them as they are parsed, numbered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import ParseResult, urlsplit

import nats.errors
from nats.aio.client import PING_PROTO, Client, Srv
from nats.aio.msg import Msg as NatsMsg
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from natsbridge.backoff import Backoff
from natsbridge.errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, NATSBridgeError
from natsbridge.headers import parse_headers
from natsbridge.tls import Tls

__all__ = ["Arrival", "Broker", "Receiver", "check_server", "open_broker", "server_url"]

#: Seconds that an attempt to reconnect may take where connecting may take for ever.
ATTEMPT_S = 5.0
#: Seconds between two looks at whether the connection that is written to still stands.
LOOK_S = 0.1
#: Seconds that cleaning up after a failed attempt may take.
CLEANUP_S = 0.2
#: Bytes of a message that no server's max_payload exceeds, and of a line (an INFO may be long).
MAX_MESSAGE = 64 << 20
MAX_LINE = 64 << 10
_SCHEMES = ("nats", "tls", "ws", "wss")

Event = Callable[[Exception], Awaitable[None]]


class Arrival(NatsMsg):
    """An answer to a request.

    Attributes:
        block: its headers as they came, or None. nats-py takes a status for one of them.
    """

    def __init__(self, _client: Broker, **fields: Any) -> None:
        super().__init__(_client, **fields)
        self.block = _client.block


class Receiver:
    """A subscription whose callback, to nats-py, is its method `_called`."""

    async def _called(self, msg: NatsMsg) -> None:
        """Be what nats-py wants; it is not called."""

    def _arrived(
        self, number: int, subject: str, reply: str, data: bytes, block: bytes | None
    ) -> None:
        """Take a message.

        Args:
            number: its place among all messages of the connection.
            subject: what it was published to.
            reply: where an answer is expected, or "".
            data: its payload.
            block: its headers as they came, or None.
        """
        raise NotImplementedError


class Transport(TcpTransport):
    """nats-py's, but for three things that asyncio wants otherwise."""

    def writelines(self, payload: list[bytes]) -> None:
        """Write. In one: since CPython 3.12, `drain` does not wait for what came as a list."""
        self.write(payload[0] if len(payload) == 1 else b"".join(payload))  # type: ignore[no-untyped-call]

    async def connect_tls(self, *arguments: Any) -> None:
        """Shake hands on the connection that stands."""
        await super().connect_tls(*arguments)
        if self._io_writer is not None:
            # asyncio knows of TLS only where it began so, and else warns at the end.
            self._io_writer.transport.get_protocol()._over_ssl = True  # type: ignore[attr-defined]

    async def wait_closed(self) -> None:
        """Wait. Who is cancelled meanwhile cancels no other's wait for the same."""
        writer: Any = self._io_writer  # whose own wait_closed awaits the same
        if writer is not None:
            await asyncio.shield(writer._protocol._get_close_waiter(writer))

    def __bool__(self) -> bool:
        return True  # so that nats-py connects this one, and makes none of its own


class Reading(Parser):
    """nats-py's parser, for which what is no NATS is the end of the connection."""

    async def parse(self, data: bytes = b"") -> None:
        """Take what came. Raises what nats-py takes for the connection's end."""
        try:
            await super().parse(data)
        except (nats.errors.ProtocolError, OSError):
            raise
        except Exception as e:
            raise nats.errors.ProtocolError from e
        if self.needed > MAX_MESSAGE or (
            self.state == AWAITING_CONTROL_LINE and len(self.buf) > MAX_LINE
        ):
            raise nats.errors.ProtocolError


@contextlib.contextmanager
def _expected() -> Iterator[None]:
    """Let out of an attempt to connect only what nats-py takes for a failed attempt."""
    try:
        yield
    except (OSError, nats.errors.Error, asyncio.TimeoutError):
        raise
    except Exception as e:  # an INFO of the wrong form, a refused WebSocket, ...
        raise nats.errors.Error(str(e) or type(e).__name__) from e


class Broker(Client):
    """A nats-py client.

    Attributes:
        arrivals: counts the messages that came.
        demands_tls: whether a server without TLS is refused, whatever its URL says.
        complaint: the server's last -ERR, or "".
    """

    msg_class = Arrival

    def __init__(self, nkey: str = "", demands_tls: bool = False) -> None:
        super().__init__()
        self._ps = Reading(self)
        self._public_nkey = nkey or None
        self.arrivals = itertools.count()
        self.demands_tls = demands_tls
        self.complaint = ""
        self.block: bytes | None = None  # of the message that is being parsed
        self._ended = False

    async def end(self, timeout: float) -> None:
        """Close, within so many seconds, and connect no more.

        Raises:
            asyncio.TimeoutError, and what nats-py raises.
        """
        self._ended = True
        closing = asyncio.ensure_future(self.close())
        # asyncio.wait_for would wait for what it has cancelled, and that may be deaf to it.
        try:
            await asyncio.wait({closing}, timeout=timeout)
        finally:
            self.abort()
            if not closing.done():
                closing.cancel()
                closing.add_done_callback(lambda task: task.cancelled() or task.exception())
        if not closing.done():
            raise asyncio.TimeoutError
        closing.result()

    async def _connect_to_server(self, s: Srv) -> None:
        if self._ended:  # the cancellation was lost, and nats-py goes on for ever
            raise asyncio.CancelledError
        if self._transport is None and s.uri.scheme in ("nats", "tls"):
            self._transport = Transport()  # type: ignore[no-untyped-call]
        with _expected():
            await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        with _expected():
            await super()._process_connect_init()
        # Nobody waits for the answers to PINGs of before: they would be taken for those of later.
        kept = [command for command in self._pending if command != PING_PROTO]
        self._pending_data_size -= len(PING_PROTO) * (len(self._pending) - len(kept))
        self._pending = kept
        self.complaint = ""  # that was about the connection before

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        server = self._current_server
        if initial_connection and not isinstance(info.get("max_payload", 0), int):
            raise nats.errors.ProtocolError
        if initial_connection and server is not None:
            scheme = server.uri.scheme
            encrypted = scheme == "wss" or self.options["tls_handshake_first"]
            if (self.demands_tls or scheme == "tls") and not encrypted:
                if scheme == "ws" or not (info.get("tls_required") or info.get("tls_available")):
                    raise nats.errors.SecureConnWantedError
                info["tls_required"] = True  # where it is optional, too
            if info.get("tls_required") and not encrypted and scheme != "ws":
                info.pop("connect_urls", None)  # they come again, behind TLS
        urls = info.get("connect_urls")
        info["connect_urls"] = [u for u in urls if _plain(u)] if isinstance(urls, list) else []
        await super()._process_info(info, initial_connection)
        for found in self._server_pool if self._encrypted else ():
            if found.discovered and found.uri.scheme == "nats":
                found.uri = found.uri._replace(scheme="tls")
        if not initial_connection and isinstance(info.get("max_payload"), int):
            self._max_payload = info["max_payload"]

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        sub = self._subs.get(sid)
        receiver = getattr(sub and sub._cb, "__self__", None)
        to, answer_to = subject.decode(errors="replace"), reply.decode(errors="replace")
        if sub is None or not isinstance(receiver, Receiver):
            names = to.encode(), answer_to.encode()
            await super()._process_msg(sid, *names, data, headers)  # type: ignore[arg-type]
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        sub._received += 1
        if 0 < sub._max_msgs <= sub._received:
            self._remove_sub(sid)
            sub._stop_processing()
        number = next(self.arrivals)
        receiver._arrived(number, to, answer_to, data, headers or None)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        self.block = headers or None
        found, status, description = parse_headers(self.block)
        if found is not None and status:
            found.update({"Status": str(status), "Description": description})
        return found

    async def _process_err(self, err_msg: str) -> None:
        self.complaint = err_msg.strip("' \r\n")
        if "stale connection" in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._error_cb(nats.errors.Error(f"nats: {self.complaint}"))

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        idle = self._flusher_task is None or self._flusher_task.done()
        if not force_flush or idle or not self.is_connected or self._flush_queue is None:
            return await super()._flush_pending()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._flush_queue.put(written)
        while self.is_connected and not written.done():
            await asyncio.wait({written}, timeout=LOOK_S)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        # By _send_command it would wait for a full socket, and never be missed.
        self._pending.append(PING_PROTO)
        self._pending_data_size += len(PING_PROTO)
        await self._flush_pending()

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_connected:
            self.abort()
            if not self.options["allow_reconnect"]:
                self._pending = []
                self._pending_data_size = 0
        await super()._process_op_err(e)

    @property
    def _encrypted(self) -> bool:
        writer = getattr(self._transport, "_io_writer", None)
        return bool(writer and writer.get_extra_info("sslcontext"))

    @property
    def unwritten(self) -> int:
        """Bytes that wait to be written to the socket."""
        writer = getattr(self._transport, "_io_writer", None)
        held = writer.transport.get_write_buffer_size() if writer and self.is_connected else 0
        return self.pending_data_size + int(held)

    def abort(self) -> None:
        """Drop the socket at once, unsent bytes and all."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            with contextlib.suppress(AttributeError):  # CPython 3.11's, of TLS that has ended
                writer.transport.abort()


def _plain(url: object) -> bool:
    """Tell whether a server that INFO names can be one: nats-py would stumble over others."""
    try:
        return "@" not in check_server(url)
    except NATSBridgeError:
        return False


def check_server(server: object) -> str:
    """Return a server's URL, with a scheme.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`.
    """
    if not isinstance(server, str):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"a server must be a str, not {type(server).__name__}"
        )
    url = server if "://" in server else f"nats://{server}"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isprintable() or " " in url:
        shown = url.rpartition("@")[2] if "@" in url else url
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"{ascii(shown)[:200]} is no server URL: write it as nats://host:4222",
        )
    return url


@lru_cache(maxsize=64)  # the same one for each message
def server_url(uri: ParseResult | str) -> str:
    """Return a server's URL without its credentials."""
    parts = urlsplit(uri) if isinstance(uri, str) else uri
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port or (4222 if parts.scheme in ("nats", "tls") else None)
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _reason(e: BaseException, timeout: float | None, broker: Broker) -> str:
    """Return what went wrong at a server, and what to look at."""
    text = broker.complaint or str(e) or type(e).__name__
    if isinstance(e, asyncio.TimeoutError) and timeout is not None:
        return f"no answer within {timeout:.3g} s; is it a NATS server, and is the network up?"
    if isinstance(e, nats.errors.SecureConnWantedError):
        return "it offers no TLS, which was demanded; nothing was sent to it"
    if isinstance(e, ssl.SSLCertVerificationError):
        return f"TLS failed ({text}); is it signed by tls['ca'], and made for this host name?"
    if "authorization" in text.lower() or "authentication" in text.lower():
        return "it refused the credentials; check user, password, token, key"
    if broker._server_info.get(
        "tls_verify"
    ):  # and ends the connection after the handshake, where there is none
        return f"it wants a client certificate: tls['cert'] and tls['key'] ({text})"
    if isinstance(e, ssl.SSLError):
        return f"TLS failed ({text}); does it have TLS, and want handshake_first?"
    if isinstance(e, nats.errors.UnexpectedEOF) and not broker.complaint:
        return "it closed the connection without a word"
    if isinstance(e, ConnectionRefusedError):
        return "the connection was refused; does nats-server run there, on this port?"
    if isinstance(e, socket.gaierror):
        return "its host name is unknown; check the spelling and the network"
    return text.removeprefix("nats: ")


async def open_broker(
    servers: list[str],
    timeout: float | None,
    reconnect: Backoff | None,
    on_error: Event,
    *,
    nkey: str = "",
    tls: Tls | None = None,
    **options: Any,
) -> Broker:
    """Connect to the first of `servers` that takes us.

    Args:
        servers: checked URLs.
        timeout: seconds for all of them; each gets its share of what is left.
        reconnect: how to reconnect, for ever, when the connection is lost later; None: not at all.
        on_error: awaited with what goes wrong once the connection stands.
        nkey: the user's public key, or "".
        tls: what is demanded, or None.
        options: further arguments of nats-py's `connect`.

    Raises:
        NATSBridgeError: `NATS_CONNECTION_FAILED`, with what was wrong at each server.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    if tls is not None:
        options["tls"] = tls.context
        options["tls_hostname"] = tls.hostname or None
        options["tls_handshake_first"] = tls.handshake_first
    reasons = []
    for i, server in enumerate(servers):
        share = None
        if deadline is not None:
            share = max((deadline - loop.time()) / (len(servers) - i), 0.001)
        broker = Broker(nkey, tls is not None)
        try:
            await _try(broker, server, share, on_error, options)
        except (OSError, nats.errors.Error, asyncio.TimeoutError) as e:
            reasons.append(f"{server_url(server)}: {_reason(e, share, broker)}")
            continue
        if reconnect is not None:
            reconnect.connected()
            broker._reconnect_to_server_handler = reconnect
            broker.options["allow_reconnect"] = True
            # For which `close` waits in vain while it reconnects.
            broker.options["reconnect_time_wait"] = CLEANUP_S
            broker.options["connect_timeout"] = timeout or ATTEMPT_S
            if len(servers) > 1:
                known = [s.uri.geturl() for s in broker.server_pool]
                broker.set_server_pool(list(dict.fromkeys([*servers, *known])))
        return broker
    raise NATSBridgeError(
        NATS_CONNECTION_FAILED,
        "cannot connect to " + "; ".join(reasons),
        {"servers": [server_url(s) for s in servers]},
    )


async def _try(
    broker: Broker, server: str, timeout: float | None, on_error: Event, options: dict[str, Any]
) -> None:
    standing = False

    async def error_cb(e: Exception) -> None:
        if not standing and broker._reading_task is None:  # raised there, it would end that task
            raise e
        await on_error(e)

    try:
        await asyncio.wait_for(
            broker.connect(
                servers=[server],
                error_cb=error_cb,
                allow_reconnect=False,
                max_reconnect_attempts=-1,
                connect_timeout=timeout,  # type: ignore[arg-type] # it may be a float, or None
                **options,
            ),
            timeout,
        )
        if not broker.is_connected:  # nats-py takes a server that hangs up here for a good one
            raise nats.errors.UnexpectedEOF
    except BaseException:
        standing = True  # what closing meets is of no interest
        broker.abort()
        with contextlib.suppress(Exception):
            # It ends nats-py's tasks; after a failed TLS handshake it waits for ever.
            await asyncio.wait_for(broker.close(), CLEANUP_S)
        raise
    standing = True
