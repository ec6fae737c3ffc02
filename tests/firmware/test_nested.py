"""Calls inside others' callbacks, and deadlines and heaps that are another call's, too."""

from __future__ import annotations

import socket

from board import run
from test_device_client import greet, play


def test_a_send_inside_another_one_has_what_it_needs(nats_url: str, file_url: str) -> None:
    """On the same connection, whose buffer the other one has; both by link."""
    script = """
url, files = sys.argv[1:]
nc = natsbridge.connect(url)
sub = nc.subscribe("nested.>")
how = {"nats_connection": nc, "size_threshold": 1, "fileserver_url": files}

def inner(name, done, total):
    if done == total == 1000:
        natsbridge.smartsend("nested.inner", [("x", b"i" * 3000, "binary")], **how)

natsbridge.smartsend("nested.outer", [("x", b"o" * 1000, "binary")], on_progress=inner, **how)

def other(name, done, total):
    msg = sub.next(2) if done == total == 3000 else None
    if msg:
        env = natsbridge.smartreceive(msg, fileserver_url=files)
        print(msg.subject, len(env["payloads"][0][1]))

msg = sub.next(2)
env = natsbridge.smartreceive(msg, fileserver_url=files, on_progress=other)
print(msg.subject, len(env["payloads"][0][1]))
"""
    assert run(script, nats_url, file_url) == ["nested.outer 1000", "nested.inner 3000"]


def test_a_call_inside_another_one_leaves_it_its_deadline(nats_url: str) -> None:
    script = """
nc = natsbridge.connect(sys.argv[1])
sub = nc.subscribe("nested")
natsbridge.smartsend("nested", [("x", b"y" * 5000, "binary")], nats_connection=nc)
bounds = []

def inner(name, done, total):
    bounds.append(nc.deadline)
    natsbridge.smartsend("other", [("x", "y", "text")], nats_connection=nc)
    bounds.append(nc.deadline)

natsbridge.smartreceive(sub.next(2), on_progress=inner, timeout=100)
print(len(bounds) > 2, len(set(bounds)), None in bounds, nc.deadline)
"""
    assert run(script, nats_url) == ["True 1 False None"]


def test_a_connection_for_one_send_is_part_of_its_time() -> None:
    """A server that takes it, and never says so."""

    def talk(connection: socket.socket) -> None:
        greet(connection)
        while connection.recv(65536):
            pass

    script = """
text = [("x", "y", "text")]
ms, said = took(natsbridge.smartsend, "a", text, broker_url=sys.argv[1], timeout=0.5)
print(ms // 1000, said[:22])
"""
    with play(talk) as broker:
        assert run(script, broker.url) == ["0 NATS_CONNECTION_FAILED"]


def test_a_move_that_finds_no_heap_leaves_the_connection(nats_url: str) -> None:
    """It is tried in the middle of a send, which has taken what there was."""
    script = """
nc = natsbridge.connect([sys.argv[1], "nats://127.0.0.1:1"])
from natsbridge import errors, greet

def no_heap(*arguments):
    while not errors.working:
        yield 0
    tried.append(1)
    raise MemoryError

tried = []
greet.open_connection = no_heap
nc._dialer = greet.Dialer(nc)
natsbridge.smartsend("a", [("x", "y", "text")], nats_connection=nc)
nc.flush()
print(len(tried), nc.connected, nc._dialer)
"""
    assert run(script, nats_url) == ["1 True None"]


def test_a_will_for_which_the_heap_is_too_full_is_told() -> None:
    script = """
import gc
import natsbridge.mqtt, natsbridge.mqttgreet, natsbridge.send

full = []
will = ("a", [("x", bytes(15000), "binary")])
while gc.mem_free() > 50000:
    full.append(bytearray(1000))
print(code(natsbridge.connect, "mqtt://127.0.0.1:1", will=will)[:17])
"""
    assert run(script, heap="200K") == ["PAYLOAD_TOO_LARGE"]
