"""The device of test_heap_of_links.py: sends or receives so many bytes by link, and keeps none."""

import sys

import natsbridge

broker, files, way, size = sys.argv[1:]


class Stream:
    """Gives `size` zeros, and takes what it is given."""

    def __init__(self, size):
        self.size = size
        self.at = 0

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def readinto(self, buf):
        n = min(len(buf), self.size - self.at)
        self.at += n
        return n

    def write(self, data):
        self.at += len(data)
        return len(data)


def main():
    stream = Stream(int(size))
    nc = natsbridge.connect(broker)
    if way == "up":
        natsbridge.smartsend(
            "heap.up",
            [("a", stream, "binary")],
            nats_connection=nc,
            fileserver_url=files,
            fallback_direct=False,
        )
        nc.flush()
    else:
        sub = nc.subscribe("heap.down")
        nc.publish("heap.ready", b"")
        natsbridge.smartreceive(sub.next(10), sink=lambda *_: stream, fileserver_url=files)
    print(stream.at)
    nc.close()


main()
