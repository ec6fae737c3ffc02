"""`natsbridge doctor`: what works, what does not, and how to mend it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import click
from rich.text import Text

from natsbridge import http, plik
from natsbridge.cli.output import FAILED, Output, clean, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.client import Connection
from natsbridge.download import fetch_with_backoff
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.payload import make_source
from natsbridge.send import DEFAULT_THRESHOLD, fileserver
from natsbridge.subjects import is_subject
from natsbridge.urls import Server, is_loopback

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge doctor
  natsbridge doctor --subject lab.camera --device /dev/ttyACM0
"""

#: Bytes of an envelope besides its payloads, generously.
ENVELOPE = 8192
DEVICE_THRESHOLD = 100_000
#: Seconds of difference between clocks from which logs are hard to put together.
CLOCK_S = 5
#: Seconds that a board gets for an answer.
DEVICE_S = 20
#: Bytes of heap and flash that the firmware needs on a board (README, "The device's heap").
DEVICE_HEAP = 64 << 10
DEVICE_FLASH = 100 << 10

#: What to do about a file server that fails.
DISK = "make room on its disk, if that is full; else its log says why"

#: What a board is asked. One line of JSON comes back.
PROBE = """
import gc, json, os, sys
gc.collect()
try:
    f = os.statvfs("/")
    flash = f[0] * f[3]
except (AttributeError, OSError):
    flash = None
try:
    with open("slot") as f:  # where `natsbridge flash` puts it
        sys.path.insert(0, "slots/" + f.read().strip())
except OSError:
    pass
try:
    import natsbridge
    version = natsbridge.__version__
except ImportError:
    version = None
gc.collect()
i = sys.implementation
print(json.dumps({"version": ".".join(str(n) for n in i[1][:3]), "machine": getattr(i, "_machine",
    sys.platform), "heap": gc.mem_free(), "flash": flash, "natsbridge": version}))
"""

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


@click.command("doctor", epilog=EPILOG)
@click.option("--subject", default="", help="Also check a subject.")
@click.option("--device", default="", metavar="PORT", help="Also check a board, with mpremote.")
@peer_options
@output_options
def command(out: Output, settings: Settings, subject: str, device: str) -> None:
    """Check the broker, the file server, and what is between them and a device.

    Each line says what was found, and, where something is wrong, what to do. A file of a few
    bytes is uploaded, fetched and deleted again.
    """
    out.run(lambda: _Doctor(out, settings).run(subject, device))


class _Doctor:
    def __init__(self, out: Output, settings: Settings) -> None:
        self.out = out
        self.settings = settings
        self.failed = False

    def say(self, state: str, what: str, found: str, fix: str = "") -> None:
        """Show one finding."""
        self.failed = self.failed or state == "fail"
        self.out.record(check=what, state=state, found=found, fix=fix)
        if self.out.as_json:
            return
        mark, style = _MARKS[state]
        line = Text(self.out.wrap(f"{mark}  {what:<12} {clean(found)}", 19))
        line.stylize(style, 0, len(mark))
        self.out.console.print(line)
        if fix:
            self.out.line(self.out.wrap(f"{'':19}-> {clean(fix)}", 22))

    async def run(self, subject: str, device: str) -> int:
        """Check everything that there is: the exit code."""
        if subject:
            self._subject(subject)
        await self._broker()
        await self._fileserver()
        if device:
            await self._device(device)
        return FAILED if self.failed else 0

    def _subject(self, subject: str) -> None:
        if not is_subject(subject):
            fix = "write dotted words, such as lab.camera"
            self.say("fail", "subject", f"{subject!r} can't be published to", fix)
        elif "/" in subject:
            found = f"{subject!r} is one word to NATS: no wildcard can match a part of it, and"
            fix = f"use {subject.strip('/').replace('/', '.')!r}"
            self.say("warn", "subject", f"{found} MQTT cannot reach it", fix)
        else:
            self.say("ok", "subject", subject)

    # -- the broker

    async def _broker(self) -> None:
        try:
            nc = await self.settings.connect(reconnect=False)
        except NATSBridgeError as e:
            fix = "start one with `natsbridge up`, or name yours with --server"
            if "credentials" in e.message:
                fix = "pass --user and --password, or --token, or write them into the URL"
            self.say("fail", "broker", e.message, fix)
            return
        async with nc:
            info = nc.client._server_info
            begun = time.monotonic()
            await nc.flush()
            ms = (time.monotonic() - begun) * 1000
            self.say("ok", "broker", f"nats-server {info.get('version')} at {nc.url}, {ms:.1f} ms")
            self._reach("broker", nc.url)
            self._max_payload(nc)
            if info.get("jetstream"):
                self.say("ok", "JetStream", "on")
            else:
                fix = "nats-server -js, if messages shall wait for receivers or MQTT be used"
                self.say("warn", "JetStream", "off", fix)

    def _max_payload(self, nc: Connection) -> None:
        for whose, threshold in (("desktop", DEFAULT_THRESHOLD), ("device", DEVICE_THRESHOLD)):
            needed = threshold * 4 // 3 + ENVELOPE
            found = f"{nc.max_payload} bytes; a {whose}'s message has up to {needed}"
            if nc.max_payload >= needed:
                self.say("ok", "max_payload", found)
            else:
                fix = "raise max_payload in the broker's configuration, or payloads go by link"
                self.say("warn", "max_payload", found, fix)

    def _reach(self, what: str, url: str) -> None:
        if is_local(url):
            fix = "`natsbridge up --lan`, and that address on both sides"
            self.say("warn", what, f"a device on the network can't reach {url}", fix)

    # -- the file server

    async def _fileserver(self) -> None:
        try:
            server = fileserver(self.settings.fileserver)
        except NATSBridgeError as e:
            fix = "write it as http://localhost:8080 or https://host"
            self.say("fail", "file server", e.message, fix)
            return
        async with http.LazySession(server) as session:
            await self._files(session.get(), server)

    async def _files(self, session: http.Session, server: Server) -> None:
        base = str(server.base).rstrip("/")
        try:
            async with session.get(base + "/config") as response:
                date = response.headers.get("Date", "")
                config = await http.read_json(response) if response.status == 200 else {}
            async with session.get(base + "/") as response:
                ours = "NATSBridge" in await http.read_text(response)
        except ValueError:
            config = {}
        except aiohttp.ClientResponseError:
            fix = "name the file server's port with --fileserver (4222 is a broker's)"
            found = f"what answers at {base} does not speak HTTP"
            self.say("fail", "file server", found, fix)
            return
        except http.FAULTS as e:
            why = http.describe(e)
            fix = "start one with `natsbridge up`, or name yours with --fileserver"
            self.say("fail", "file server", f"nothing answers at {base}: {why}", fix)
            return
        if "maxFileSize" not in config:
            fix = "name a Plik server, or the one of `natsbridge up`, with --fileserver"
            self.say("fail", "file server", f"what answers at {base} is no Plik server", fix)
            return
        self.say("ok", "file server", f"{'NATSBridge' if ours else 'Plik'} at {base}")
        self._reach("file server", str(server.base.origin))
        self._clock(date)
        self._limits(config)
        await self._token(session, base)
        await self._round_trip(session, base)

    def _clock(self, date: str) -> None:
        try:
            seconds = abs(time.time() - parsedate_to_datetime(date).timestamp())
        except ValueError:
            return  # a server that tells no time
        if seconds > CLOCK_S:
            fix = "set both by NTP: links expire, and logs are read, by the clock"
            self.say("warn", "clock", f"{seconds:.0f} s from the file server's", fix)
        else:
            self.say("ok", "clock", "the same as the file server's")

    def _limits(self, config: dict[str, Any]) -> None:
        limit, ttl = config.get("maxFileSize"), config.get("maxTTL")
        if isinstance(limit, int) and 0 < limit < 1 << 30:
            found = f"files have up to {size(limit)}"
            self.say("warn", "size limit", found, "raise MaxFileSize for larger payloads")
        else:
            self.say("ok", "size limit", size(limit) if isinstance(limit, int) else "none")
        if isinstance(ttl, int) and 0 < ttl < plik.DEFAULT_TTL:
            found = f"files are kept for {ttl} s at most; {plik.DEFAULT_TTL} are asked for"
            self.say("warn", "time to live", found, "raise MaxTTL, or receive sooner")
        else:
            forever = not isinstance(ttl, int) or ttl <= 0
            self.say("ok", "time to live", "without limit" if forever else f"up to {ttl} s")

    async def _token(self, session: http.Session, base: str) -> None:
        wrong = {"X-PlikToken": "wrong", "Authorization": ""}
        try:
            async with session.post(base + "/upload", json={"ttl": 60}, headers=wrong) as response:
                status = response.status
                answer = await http.read_json(response) if status == 200 else {}
                why = "" if status == 200 else http.answered(status, await http.words(response))
            if status == 200:
                await plik.drop(session, base, str(answer["id"]), str(answer["uploadToken"]), "")
        except (*http.FAULTS, ValueError, KeyError) as e:
            fix = "is it a Plik server? Its log may say more"
            self.say("fail", "token", f"asking for an upload failed: {http.describe(e)}", fix)
            return
        if status == 200:
            found = "uploading asks for no token, and a wrong one is accepted"
            self.say("ok" if is_local(base) else "warn", "token", found)
        elif status < 500:
            self.say("ok", "token", f"a wrong one is refused ({status})")
        else:
            self.say("fail", "token", f"asking for an upload failed: {why}", DISK)

    async def _round_trip(self, session: http.Session, base: str) -> None:
        data = b"natsbridge doctor"
        try:
            source = make_source("doctor.txt", data, "binary")
            result = await plik.upload(session, base, source, ttl=60, removable=True)
        except NATSBridgeError as e:
            fix = "give a login in the URL, http://user:password@host, if it wants one"
            if e.details.get("status", 0) >= 500:
                fix = DISK
            self.say("fail", "upload", e.message, fix)
            return
        url = result["url"]
        try:
            got = await fetch_with_backoff(url, 1, 100, 100, "")
            if got == data:
                self.say("ok", "download", url)
            else:
                self.say("fail", "download", f"{url} is not what was uploaded")
        except NATSBridgeError as e:
            fix = "is its DownloadDomain a host that receivers can reach?"
            self.say("fail", "download", e.message, fix)
        if not await plik.remove(session, url, result["uploadtoken"]):
            self.say("warn", "delete", f"{url} could not be deleted", "files go when they expire")

    # -- a board

    async def _device(self, port: str) -> None:
        try:
            found = await asyncio.to_thread(ask_device, port)
        except NATSBridgeError as e:
            self.say("fail", "device", e.message, e.details["fix"])
            return
        self.say("ok", "device", f"{found['machine']}, MicroPython {found['version']}")
        for what, least in (("heap", DEVICE_HEAP), ("flash", DEVICE_FLASH)):
            free = found[what]
            if free is None or free >= least:
                self.say("ok", what, f"{size(free)} free")
            else:
                fix = f"the firmware wants {size(least)}"
                self.say("warn", what, f"{size(free)} free", fix)
        if found["natsbridge"]:
            self.say("ok", "natsbridge", f"{found['natsbridge']} is installed on the device")
        else:
            fix = "`natsbridge flash BOARD` puts it there, in a checkout after make firmware"
            self.say("warn", "natsbridge", "is not installed on the device", fix)


def is_local(url: str) -> bool:
    """Tell whether only this machine can reach a URL."""
    return is_loopback(urlsplit(url).hostname or "")


def ask_device(port: str) -> dict[str, Any]:
    """Return what `PROBE` finds on a board (blocking).

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, with a "fix" in its details.
    """
    line = [sys.executable, "-m", "mpremote", "connect", port, "exec", PROBE]
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, errors="replace", timeout=DEVICE_S
        )
    except subprocess.TimeoutExpired:
        fix = "press its reset button; is it a board with MicroPython?"
        text = f"what is at {port} does not answer"
        raise NATSBridgeError(INVALID_ARGUMENT, text, {"fix": fix}) from None
    if "No module named mpremote" in done.stderr:
        fix = "pip install mpremote"
        raise NATSBridgeError(INVALID_ARGUMENT, "mpremote is not installed", {"fix": fix})
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if not all(type(found[key]) in (int, type(None)) for key in ("heap", "flash")):
            raise ValueError
        return {key: found[key] for key in ("version", "machine", "heap", "flash", "natsbridge")}
    except (ValueError, IndexError, KeyError, TypeError):
        why = clean((done.stderr or done.stdout).strip(), 200)
        text = f"no board answers at {port}: {why}"
        fix = "`mpremote connect list` shows the ports"
        raise NATSBridgeError(INVALID_ARGUMENT, text, {"fix": fix}) from None
