"""Text, tables, images and files of any size over NATS, between microcontrollers and desktops.

These names are coroutines; `natsbridge.sync` has the same ones as ordinary functions::

    nc = await natsbridge.connect("nats://localhost:4222", name="desk")
    await natsbridge.smartsend("lab.hello", [("msg", "Hello", "text")], nats_connection=nc)
"""

from natsbridge._version import __version__
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
