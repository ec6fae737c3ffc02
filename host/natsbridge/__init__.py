"""Text, tables, images and files of any size over NATS, between microcontrollers and desktops.

These names are coroutines; `natsbridge.sync` has the same ones as ordinary functions::

    nc = await natsbridge.connect("nats://localhost:4222", name="desk")
    await natsbridge.smartsend("lab.hello", [("msg", "Hello", "text")], nats_connection=nc)

Each part is loaded when it is first used: the command answers in a tenth of the time that all of
them take.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from natsbridge._version import __version__

if TYPE_CHECKING:
    from natsbridge.dial import connect
    from natsbridge.download import fetch_with_backoff
    from natsbridge.envelope import envelope_to_json
    from natsbridge.errors import NATSBridgeError
    from natsbridge.plik import plik_oneshot_upload, plik_upload
    from natsbridge.receive import smartreceive
    from natsbridge.send import publish_message, smartsend

__all__ = [
    "NATSBridgeError",
    "__version__",
    "connect",
    "envelope_to_json",
    "fetch_with_backoff",
    "plik_oneshot_upload",
    "plik_upload",
    "publish_message",
    "smartreceive",
    "smartsend",
]

_PARTS = {
    "NATSBridgeError": "errors",
    "connect": "dial",
    "envelope_to_json": "envelope",
    "fetch_with_backoff": "download",
    "plik_oneshot_upload": "plik",
    "plik_upload": "plik",
    "publish_message": "send",
    "smartreceive": "receive",
    "smartsend": "send",
}


def __getattr__(name: str) -> Any:
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PARTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
