"""Ten seconds of sound whenever <name>.listen is published to.

It is uploaded while it is recorded: 320 KB pass through a buffer of 8 KB.
"""

import struct

from machine import I2S, Pin

import board
import natsbridge

SECONDS = 10
RATE = 16000  # samples a second, of 16 bits
# The hardware: see boards/rpi_pico2_w/README.md for the wires.
MICROPHONE = {"sck": Pin(16), "ws": Pin(17), "sd": Pin(18), "mode": I2S.RX, "bits": 16}


class Clip:
    """A stream of a WAV file that is being recorded. It can't seek, so it always goes by link."""

    def __init__(self):
        n = SECONDS * RATE * 2
        head = b"RIFF", n + 36, b"WAVEfmt ", 16, 1, 1, RATE, RATE * 2, 2, 16, b"data", n
        self.head = struct.pack("<4sI8sIHHIIHH4sI", *head)
        self.left = n
        self.sound = I2S(0, format=I2S.MONO, rate=RATE, ibuf=8192, **MICROPHONE)

    def readinto(self, buf):
        n = min(len(buf), len(self.head) or self.left)
        if self.head:
            buf[:n] = self.head[:n]
            self.head = self.head[n:]
            return n
        self.left -= n
        return self.sound.readinto(memoryview(buf)[:n]) if n else 0


nc = board.connect()
sub = nc.subscribe(nc.name + ".listen")
while True:
    sub.next()
    clip = Clip()
    natsbridge.smartsend("lab.audio", [("clip.wav", clip, "audio")], **board.options(nc))
    clip.sound.deinit()
