"""NATSBridge for MicroPython: payloads of any size over NATS, in a few tens of KB of heap.

Each part is loaded when it is first used.
"""

import gc

__version__ = "0.1.0"

# Collected only when it is full, a heap gets its long-lived objects all over, and nothing large
# fits any more (measured: in 20 KB free the largest piece was 3 KB; with this, 17 KB).
if gc.threshold() < 0:
    gc.threshold((gc.mem_free() + gc.mem_alloc()) // 32)

_PARTS = {
    "connect": "dial",
    "smartsend": "send",
    "publish_message": "steps",
    "smartreceive": "receive",
    "envelope_to_json": "steps",
    "plik_upload": "plik",
    "plik_oneshot_upload": "plik",
    "fetch_with_backoff": "plik",
    "NATSBridgeError": "errors",
}


def setting(name, default):
    """The environment's value of `name`, where the port has one, or `default`."""
    import os

    return (os.getenv(name) if hasattr(os, "getenv") else None) or default


def __getattr__(name):
    # Nothing is kept here: a part that errors.drop() drops must be free to go.
    part = _PARTS.get(name)
    path = __name__ + "." + (part or name)
    if part:
        from . import errors

        if path not in errors.sys.modules:
            errors.make_room(12288, part)  # before: an import that fails for want of it costs more
    for last in (False, True):
        try:
            module = __import__(path, None, None, (name,))
            break
        except ImportError:
            raise AttributeError(name)
        except MemoryError:
            if not part:
                raise
            if last:
                raise errors.fail(errors.PAYLOAD_TOO_LARGE, "memory")
            errors.keep_only()
    return getattr(module, name) if part else module
