"""What every program on a board begins with: Wi-Fi, clock, watchdog, and the connection, as
config.json says.

    nc = board.connect()
    natsbridge.smartsend("lab.data", [...], **board.options(nc))
    env = natsbridge.smartreceive(msg, **board.options())
    board.sleep(60, nc)

Ports without `network` or `machine` (unix) leave out what needs them.
"""

import gc
import json
import os
import sys
import time

from micropython import const

_JOIN = const(30000)  # ms for joining the Wi-Fi
_TRIES = const(3)  # a single refusal can be the radio's fault
_STALE = const(5000)  # ms: an ESP32 tells how the last attempt ended until this one has ended
_REJOIN = const(15000)  # ms between attempts to join again while something else is done
_NAP = const(50)  # ms

# What status() gives, beside the port's own constants: of a CYW43 (RP2) CYW43_LINK_FAIL -1, _NONET
# -2 and _BADAUTH -3 (cyw43-driver, src/cyw43.h), of an ESP32 ESP-IDF's reason (wifi_err_reason_t in
# esp_wifi_types.h; MicroPython, ports/esp32/network_wlan.c). A wrong password often ends there in a
# handshake that is never answered: 15, 204.
_NO_NETWORK = (-2, 201, 210, 211, 212)
_WRONG_PASSWORD = (-3, 15, 202, 204)
_FAILED = (-1, 203, 205)

_DEFAULTS = {
    "wifi": None,
    "name": "",
    "id": "",
    "broker": None,
    "user": "",
    "password": "",
    "token": "",
    "tls": None,
    "fileserver_url": "",
    "size_threshold": None,
    "watchdog": 0,
    "ntp": "pool.ntp.org",
}

_config = None
_wlan = None
_wdt = None
_clock = False  # set by us
_tried = 0  # ticks_ms of the last attempt to join


def config():
    """What config.json says, with defaults, read once; the id defaults to that of the chip. The
    file is the one beside this module, or if there is none, that in the current directory.

    Raises ValueError if the file is missing, damaged, or has a key that nobody reads.
    """
    global _config
    if _config is None:
        path = _where()
        try:
            with open(path) as f:
                given = json.load(f)
            if not isinstance(given, dict):
                raise ValueError("it is no object")
            for key in given:
                if key not in _DEFAULTS:
                    raise ValueError("nobody reads %r" % key)
            if not given.get("broker"):
                raise ValueError("it names no broker")
            if given.get("wifi") and not given["wifi"].get("ssid"):
                raise ValueError("wifi has no ssid")
            if given.get("wifi") and len(given["wifi"].get("country", "")) not in (0, 2):
                raise ValueError("wifi's country is no code of two letters")
            for key in ("name", "id"):  # they are parts of subjects
                for c in given.get(key, ""):
                    if c <= " " or c in "*>":
                        raise ValueError("%s must not have %r" % (key, c))
        except (OSError, ValueError, AttributeError, TypeError) as e:
            raise ValueError("%s can't be used: %s" % (path, e))
        c = dict(_DEFAULTS)
        c.update(given)
        if not c["id"]:
            c["id"] = _chip()
        _config = c
    return _config


def connect(**options):
    """Join the Wi-Fi, set the clock, start the watchdog, connect to the broker and say hello: the
    connection. `options` are natsbridge.connect's, beside what config.json says.

    Raises ValueError for config.json, OSError for the Wi-Fi, NATSBridgeError for the broker. After
    an error it can be called again.
    """
    c = config()
    join()
    _set_clock(c["ntp"])
    _watch(c["watchdog"])
    import natsbridge

    also = options.pop("on_idle", None)

    def on_idle():
        idle()
        if also:
            also()

    given = {"on_idle": on_idle}
    for key in ("name", "id", "user", "password", "token", "tls"):
        given[key] = c[key]
    given.update(options)
    nc = natsbridge.connect(c["broker"], **given)
    try:
        hello(nc)
    except BaseException:
        nc.close()
        raise
    return nc


def hello(nc):
    """Tell who is there, on natsbridge.hello.<name, or else id>."""
    import natsbridge

    start = time.ticks_ms()
    nc.flush()
    rtt = time.ticks_diff(time.ticks_ms(), start)
    gc.collect()
    machine = getattr(sys.implementation, "_machine", None)
    if not machine:  # MicroPython 1.19
        machine = os.uname().machine if hasattr(os, "uname") else sys.platform
    value = {
        "board": machine,
        "version": natsbridge.__version__,
        "micropython": ".".join([str(n) for n in sys.implementation[1][:3]]),
        "heap_free": gc.mem_free(),
        "rtt_ms": rtt,
    }
    natsbridge.smartsend(
        "natsbridge.hello." + (nc.name or nc.id),
        [("hello", value, "dictionary")],
        msg_purpose="hello",
        nats_connection=nc,
    )


def options(nc=None):
    """Keyword arguments, as config.json says: with the connection those of smartsend, without it
    those of smartreceive (which has no size_threshold, and the message's connection)."""
    c = config()
    found = {}
    if c["fileserver_url"]:
        found["fileserver_url"] = c["fileserver_url"]
    if nc:
        found["nats_connection"] = nc
        if c["size_threshold"] is not None:
            found["size_threshold"] = c["size_threshold"]
    return found


def feed():
    """Feed the watchdog, if it runs. connect's on_idle does that while natsbridge waits."""
    if _wdt:
        _wdt.feed()


def sleep(s, nc=None):
    """Sleep `s` seconds: the watchdog is fed, the Wi-Fi joined again if it was lost, and the
    connection `nc` looked after (see its poll())."""
    left = int(s * 1000)
    now = time.ticks_ms()
    while True:
        idle()
        if nc and (_wlan is None or _wlan.isconnected()):  # a look-up without a network blocks
            nc.poll()
        then = now
        now = time.ticks_ms()
        left -= time.ticks_diff(now, then)
        if left <= 0:
            return
        time.sleep_ms(min(left, _NAP))


def idle():
    """Feed the watchdog, and begin to join the Wi-Fi again if it was lost. Never waits."""
    global _tried
    feed()
    if _wlan and time.ticks_diff(time.ticks_ms(), _tried) >= _REJOIN:
        _tried = time.ticks_ms()
        if not _wlan.isconnected():
            _begin()


def join():
    """Join the Wi-Fi of config.json, unless that is done, or there is none.

    Raises OSError when it is not done within 30 s, saying what the port says.
    """
    global _wlan, _tried
    wifi = config()["wifi"]
    if not wifi:
        return
    try:
        import network
    except ImportError:
        return
    if _wlan is None:
        if wifi.get("country"):
            _set_country(network, wifi["country"])
        _wlan = network.WLAN(network.STA_IF)
        _wlan.active(True)
    if _wlan.isconnected() and _ssid() in (wifi["ssid"], None):
        return  # as after a soft reset
    # An ESP32 tries again by itself, and then does not tell everything that was wrong.
    _reconnects(0)
    end = time.ticks_add(time.ticks_ms(), _JOIN)
    for tries in range(1, _TRIES + 1):
        stale = _wlan.status()
        _begin()
        believe = time.ticks_add(time.ticks_ms(), _STALE)
        why = None
        while not why:
            feed()
            time.sleep_ms(_NAP)
            if _wlan.isconnected():
                _reconnects(-1)
                _tried = time.ticks_ms()
                return
            now = time.ticks_ms()
            status = _wlan.status()
            if status != stale or time.ticks_diff(believe, now) <= 0:
                stale = None
                why = _means(network, status)
            if time.ticks_diff(end, now) <= 0:
                tries = _TRIES
                why = why or "there is no answer"
        if tries == _TRIES:
            raise OSError("Wi-Fi %r: %s (status %s)" % (wifi["ssid"], why, status))


def _begin():
    """Begin to join, from the start."""
    wifi = config()["wifi"]
    try:
        _wlan.disconnect()
    except (OSError, RuntimeError):
        pass  # it was not connected
    try:
        _wlan.connect(wifi["ssid"], wifi.get("password") or None)
    except (OSError, RuntimeError):
        pass  # it is at it; the status tells


def _ssid():
    """The network that is joined, None if the port does not tell."""
    try:
        return _wlan.config("essid")
    except ValueError:
        return None


def _means(network, status):
    """What is wrong, if a status says so."""
    if status == getattr(network, "STAT_WRONG_PASSWORD", None) or status in _WRONG_PASSWORD:
        return "the password is wrong"
    if status == getattr(network, "STAT_NO_AP_FOUND", None) or status in _NO_NETWORK:
        return "there is no such network here"
    if status == getattr(network, "STAT_CONNECT_FAIL", None) or status in _FAILED:
        return "it can't be joined"


def _reconnects(n):
    try:
        _wlan.config(reconnects=n)
    except (ValueError, TypeError, OSError):
        pass  # not an ESP32


def _set_country(network, country):
    if hasattr(network, "country"):
        network.country(country)
        return
    try:
        import rp2  # MicroPython 1.19
    except ImportError:
        return
    rp2.country(country)


def _set_clock(host):
    """Set the clock, once. Messages of a board without one say that themselves."""
    global _clock
    if _clock or not host:
        return
    feed()  # how long the look-up takes can't be bounded from here
    try:
        import ntptime

        ntptime.host = host
        ntptime.settime()
        _clock = True
    except (ImportError, OSError, OverflowError) as e:
        print("board: the clock is not set by %s: %s" % (host, e))


def _where():
    """The path of config.json."""
    folder, slash, _ = globals().get("__file__", "").rpartition("/")  # frozen: it has no folder
    path = folder + slash + "config.json"
    try:
        os.stat(path)
        return path
    except OSError:
        return "config.json"


def _watch(ms):
    """Start the watchdog: nothing but a reset ends it."""
    global _wdt
    if not ms or _wdt:
        return
    try:
        from machine import WDT
    except ImportError:
        return
    try:
        _wdt = WDT(timeout=ms)
    except (ValueError, TypeError) as e:
        raise ValueError("config.json: watchdog is %r ms: %s" % (ms, e))


def _chip():
    """The id of the chip, "" where it has none."""
    try:
        from binascii import hexlify

        from machine import unique_id
    except ImportError:
        return ""
    return str(hexlify(unique_id()), "utf-8")
