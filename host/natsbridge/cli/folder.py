"""The folder of `natsbridge receive`: payloads as they came, then as what they should be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from natsbridge.cli.files import converted, received_name, save
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.reader import Envelope, read_envelope
from natsbridge.sink import FileTarget

__all__ = ["Folder"]

#: Types whose files are what came.
PLAIN = ("image", "audio", "video", "binary")


class Folder:
    """Where messages are saved. Every method blocks.

    Args:
        path: made by `check` if it is not there.
        tables: what tables become, one of `files.TABLE_FORMATS`.
        warn: called with what a person should know.
    """

    def __init__(self, path: Path, tables: str, warn: Callable[[str], None]) -> None:
        self.path = path
        self._tables = tables
        self._warn = warn
        self._converting = threading.Lock()  # one value in memory at a time

    def check(self) -> None:
        """Make the folder, and see whether it can be written.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT`.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{self.path} cannot be made ({e.strerror}): choose another --out",
            ) from None
        FileTarget(self.path, "check").discard()

    def sink(self, dataname: str, kind: str, size: int | None) -> FileTarget:
        """Take a payload as it came: what it claims to be is looked at when all are there."""
        return FileTarget(self.path, received_name(dataname, kind))

    def save(self, env: dict[str, Any], message: bytes) -> dict[str, Any]:
        """Make what came what it should be, and save the envelope, which is returned.

        Args:
            env: what smartreceive returned, with `sink` as its sink.
            message: what it was given.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT` where there is no room; the payloads are there.
        """
        saved = [
            Path(path) if kind in PLAIN else self._convert(name, Path(path), kind)
            for name, path, kind in env["payloads"]
        ]
        record = _record(env, read_envelope(message), saved)
        text = json.dumps(record, ensure_ascii=False, indent=1)
        save(self.path, _name(env, "envelope"), text.encode(errors="replace"))
        return record

    def _convert(self, dataname: str, came: Path, kind: str) -> Path:
        """Return the file that a value became; where it can't, the file as it came."""
        try:
            with self._converting:
                content = converted(came, kind, self._tables)
                if content is None:
                    return came
                name = received_name(dataname, kind, self._tables)
                path = save(self.path, name, content)
        except NATSBridgeError as e:
            self._warn(f"{came.name} stays as it came: {e}")
            return came
        if name == received_name(dataname, kind):
            return path.replace(came)
        came.unlink()
        return path

    def keep(self, message: bytes, always: bool = False) -> Path | None:
        """Keep a message, as it is, whose files may be fetched later, or `always`; None where it is
        not kept.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT` where there is no room for what is `always` kept.
        """
        fields, links = {"msg_id": ""}, False
        try:
            envelope = read_envelope(message)
            fields = envelope.fields
            for payload in envelope.payloads:
                links = links or (isinstance(payload, dict) and payload.get("transport") == "link")
        except NATSBridgeError:
            pass  # the reason why it is not received is told
        try:
            return save(self.path, _name(fields, "failed"), message) if links or always else None
        except NATSBridgeError:
            if always:
                raise
            return None


def _name(fields: dict[str, Any], what: str) -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S}-{fields['msg_id'][:8] or 'unknown'}.{what}.json"


def _record(env: dict[str, Any], envelope: Envelope, saved: list[Path]) -> dict[str, Any]:
    """Return an envelope for a person or a program: its payloads are files."""
    fields = {key: value for key, value in env.items() if key != "payloads"}
    payloads = [
        {
            "dataname": name,
            "payload_type": kind,
            "transport": raw.get("transport"),
            "size": raw.get("size"),
            "file": path.name,
            "metadata": raw.get("metadata") or {},
        }
        for (name, _, kind), raw, path in zip(
            env["payloads"], envelope.payloads, saved, strict=False
        )
    ]
    return {**fields, "payloads": payloads}
