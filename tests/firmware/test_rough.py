"""The rough sockets are rough, and as the boards are: else the suite that passes through them
would prove nothing."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from device import ROUGH
from harness import run_micropython

SIZE = 100_000
SCRIPT = """
import errno, json, micropython, select, socket, sys

port, closed = int(sys.argv[1]), int(sys.argv[2])
said = {}

def number(function, *arguments):
    try:
        function(*arguments)
    except OSError as e:
        return e.errno

def connect(port):
    s = socket.socket()
    s.setblocking(False)
    said["connecting"] = number(s.connect, socket.getaddrinfo("127.0.0.1", port)[0][-1])
    return s

s = connect(closed)
p = select.poll()
p.register(s, select.POLLIN)
while not p.poll(10):
    pass
while True:
    n = number(s.readinto, bytearray(1))
    if n is not None:
        break
said["refused"] = n
# Not errno.EINPROGRESS: the unix port's compiler takes that for a constant.
said["names"] = [getattr(errno, name) for name in ("EINPROGRESS", "ENOTCONN", "ETIMEDOUT")]
s = socket.socket()
s.setblocking(False)
said["unconnected"] = number(s.write, b"x")

s = connect(port)
p = select.poll()
p.register(s, select.POLLOUT)
while not p.poll(10):
    pass
said["hasty"] = []
while True:
    n = number(s.readinto, bytearray(0))
    if n is None:
        break
while True:
    try:
        if s.write(b"G"):
            break
    except OSError as e:
        said["hasty"].append(e.errno)
buf = bytearray(1000)
total = nothing = short = woken = left = events = n = _ = 0
micropython.heap_lock()
while total < 100000:
    for _, events in p.ipoll(100):
        woken += 1
    left = min(1000, 100000 - total)
    n = s.write(buf, 0, left)
    if n is None:
        nothing += 1
    else:
        total += n
        short += n < left
micropython.heap_unlock()
said["written"] = [total, nothing, short]
p.modify(s, select.POLLIN)
total = nothing = short = 0
while True:
    n = s.readinto(buf, 1000)
    if n is None:
        nothing += 1
        for _ in p.ipoll(100):
            pass
    elif n == 0:
        break  # the end
    else:
        total += n
        short += n < 1000
said["read"] = [total, nothing, short]
s.close()
s.close()
print(json.dumps(said))
"""


def echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.settimeout(20)
    with connection:
        assert connection.recv(1) == b"G"
        data = b""
        while len(data) < SIZE and (more := connection.recv(65536)):
            data += more
        connection.sendall(data)


@pytest.mark.parametrize("mode", ["", ":bytes"])
@pytest.mark.parametrize(
    ("seed", "connecting", "names"), [(2, 119, [119, 128, 116]), (3, 115, [115, 107, 110])]
)
def test_sockets_are_as_rough_as_a_boards(
    seed: int, connecting: int, names: list[int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROUGH, "1")  # for the path; the seed is given below, as it stands
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=echo, args=(listener,), daemon=True)
        thread.start()
        ports = str(listener.getsockname()[1]), str(closed)
        out = run_micropython(SCRIPT, *ports, env={ROUGH: f"{seed}{mode}"}, heap="128K")
        thread.join(20)
    said = json.loads(out)
    assert said["connecting"] == connecting
    assert said["names"] == names
    assert said["refused"] == 104  # lwIP knows no ECONNREFUSED
    assert said["unconnected"] == names[1]
    assert said["hasty"] in ([], [connecting])
    for moved, nothing, short in (said["written"], said["read"]):
        assert moved == SIZE
        assert nothing > 30
        assert short > 30
    if mode:
        assert said["written"] == [SIZE, SIZE, SIZE - 1]
