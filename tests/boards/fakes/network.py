"""A board's network, as the test's program scripts it."""

STA_IF = 0
STAT_WRONG_PASSWORD = 202
STAT_NO_AP_FOUND = 201

script = []  # the status each time that it is looked at; 3: connected; the last one stays
calls = []


def country(code):
    calls.append(("country", code))


class WLAN:
    def __init__(self, interface):
        self.status_now = 0

    def active(self, on):
        calls.append(("active", on))

    def connect(self, ssid, password):
        calls.append(("connect", ssid, password))
        self.ssid = ssid

    def disconnect(self):
        raise OSError("not connected")

    def config(self, *names, **values):
        if names == ("essid",):
            return self.ssid
        if values:
            calls.append(("config", values))

    def status(self):
        if script:
            self.status_now = script[0]
            if len(script) > 1:
                script.pop(0)
        return self.status_now

    def isconnected(self):
        return self.status() == 3
