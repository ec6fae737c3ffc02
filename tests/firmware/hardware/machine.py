"""A board's hardware: what it reads are the files of the current folder, what it writes is
printed."""


def deepsleep(ms):
    """Tells for how long; then the program is over."""
    print("asleep for", ms, "ms")
    raise SystemExit


class ADC:
    def __init__(self, channel):
        self.channel = channel

    def read_u16(self):
        with open("adc%d" % self.channel) as f:
            return int(f.read())


class Pin:
    OUT = 1

    def __init__(self, number, mode=0, value=None):
        self.number = number
        if value is not None:
            self.value(value)

    def value(self, value):
        print("pin", self.number, value)


class I2S:
    RX = 1
    MONO = 0

    def __init__(self, number, *, sck, ws, sd, mode, bits, format, rate, ibuf):
        if ws.number != sck.number + 1:
            raise ValueError("invalid ws (must be sck+1)")
        self.file = open("sound", "rb")
        self.frame = bits // 8
        print("sound of", rate, "Hz")

    def readinto(self, buf):
        if len(buf) % self.frame:
            raise ValueError("Buffer")
        return self.file.readinto(buf)

    def deinit(self):
        self.file.close()
