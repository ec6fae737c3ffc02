"""What a file server answers that misbehaves, and how its connection ends."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from scripted import Peer, Step

ENDLESS = 4_000_000  # bytes: far more than any limit that should end it
WEB = b"<!DOCTYPE html><title>Plik</title><div id=app></div>"


@dataclass(frozen=True)
class Run:
    """One run: what is to be delivered, the dice, and a number that counts the runs of a case."""

    body: bytes
    dice: random.Random
    turn: int

    @property
    def sized(self) -> bytes:
        """What a good server answers."""
        return sized(self.body)

    @property
    def split(self) -> int:
        """A place in the body: not its beginning, nor its end."""
        return self.dice.randrange(1, len(self.body))

    @property
    def other(self) -> bytes:
        """The body with one bit turned over."""
        at = self.dice.randrange(len(self.body))
        bit = 1 << self.dice.randrange(8)
        return self.body[:at] + bytes([self.body[at] ^ bit]) + self.body[at + 1 :]

    def cut_head(self, data: bytes = b"") -> bytes:
        """An answer cut in its head, at one byte after the other."""
        data = data or self.sized
        return data[: self.turn % (data.index(b"\r\n\r\n") + 4)]

    def cut_body(self, data: bytes = b"") -> bytes:
        """An answer cut somewhere in its body."""
        data = data or self.sized
        return data[: self.dice.randrange(data.index(b"\r\n\r\n") + 4, len(data))]


def head(*lines: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"{version} {status}", *lines, "", ""]).encode("latin-1")


def sized(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """An answer with a Content-Length; nothing comes after it on its connection."""
    return head(f"Content-Length: {len(body)}", "Connection: close", *lines, status=status) + body


def moved(to: str, status: str = "301 Moved Permanently") -> bytes:
    """An answer that leads elsewhere."""
    return sized(b"", f"Location: {to}", status=status)


def rest(body: bytes, start: int, stop: int, *lines: str, whole: int | None = None) -> bytes:
    """The answer to a Range request: the bytes from `start` to before `stop`."""
    whole = len(body) if whole is None else whole
    says = f"Content-Range: bytes {start}-{stop - 1}/{whole}"
    return sized(body[start:stop], says, *lines, status="206 Partial Content")


CHUNKED = head("Transfer-Encoding: chunked")


def chunks(body: bytes, dice: random.Random, form: str = "%x", more: bytes = b"") -> bytes:
    """A body in chunks of any size, without the last one."""
    out = b""
    at = 0
    while at < len(body):
        n = dice.choice((1, 2, 16, 1023, 1024, 1025, 5000, dice.randint(1, 9000)))
        piece = body[at : at + n]
        out += (form % len(piece)).encode() + more + b"\r\n" + piece + b"\r\n"
        at += len(piece)
    return out


def good(run: Run) -> bytes:
    """What the next attempt gets: the file, in one of the ways in which HTTP has it."""
    return run.dice.choice(
        (
            run.sized,
            CHUNKED + chunks(run.body, run.dice) + b"0\r\n\r\n",
            head() + run.body,
        )
    )


# ---------------------------------------------------------------- how a connection ends


def reset(data: bytes) -> Step:
    """Answer that, and reset the connection."""

    def play(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        peer.reset()

    return play


def half_closed(data: bytes) -> Step:
    """Answer that, and say no more, but listen."""

    def play(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        peer.socket.shutdown(socket.SHUT_WR)
        wait(peer)

    return play


def stalled(data: bytes) -> Step:
    """Answer that, and nothing more."""

    def play(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        wait(peer)

    return play


def wait(peer: Peer) -> None:
    """Wait until the client has gone."""
    while peer.socket.recv(4096):
        pass


def endless(data: bytes, again: bytes) -> Step:
    """Answer that, and then the same again and again."""

    def play(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        part = again * (65_536 // len(again))
        for _ in range(ENDLESS // len(part)):
            peer.send(part)

    return play


def slowly(data: bytes, s: float) -> Step:
    """Answer byte by byte."""

    def play(peer: Peer) -> None:
        peer.request()
        peer.socket.settimeout(s)
        for byte in data:
            peer.send(bytes([byte]))
            try:
                if not peer.socket.recv(1):
                    return
            except TimeoutError:
                pass

    return play


def in_pieces(data: bytes, dice: random.Random) -> Step:
    """Answer in pieces of any size, each in a packet of its own."""
    cuts = sorted(dice.randrange(len(data)) for _ in range(20))

    def play(peer: Peer) -> None:
        peer.request()
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            peer.send(data[start:stop])

    return play


def unasked(data: bytes) -> Step:
    """Answer before anything was asked."""

    def play(peer: Peer) -> None:
        peer.send(data)
        peer.request()

    return play
