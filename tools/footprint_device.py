"""The device of footprint.py: loads modules, and tells the heap they hold."""

import gc
import sys

import micropython


def heap():
    gc.collect()
    return gc.mem_alloc()


def job(what, folder):
    """Do a job for real, and print the modules that it has loaded, and the heap's names."""
    import natsbridge

    nc = natsbridge.connect()
    if what == "receive":
        sub = nc.subscribe("footprint.device")
        nc.publish("footprint.host", b"ready")
        natsbridge.smartreceive(sub.next(20), sink=folder)
    else:
        threshold = 1 if what == "link" else 500000
        with open(folder + "/a.bin", "rb") as f:
            data = [("a", f, "binary")]
            natsbridge.smartsend("footprint", data, nats_connection=nc, size_threshold=threshold)
    nc.close()
    print(" ".join(name[11:] for name in sys.modules if name.startswith("natsbridge.")))
    micropython.qstr_info(1)


def load(names):
    """Print each module's heap, and in the end that of all together with the package."""
    before = heap()
    import natsbridge  # noqa: F401

    print("__init__", heap() - before)
    for name in names[: names.index("-")]:
        n = heap()
        __import__("natsbridge." + name)
        print(name, heap() - n)
    print("=", heap() - before)


if sys.argv[1] == "load":
    load(sys.argv[2:])
else:
    job(sys.argv[1], sys.argv[2])
