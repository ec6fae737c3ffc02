"""natsbridge watch: a look at what passes by, which changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]

from command import Broker, Runner, fits
from natsbridge import sync


def test_what_passes_by(natsbridge: Runner, broker: Broker, file_url: str) -> None:
    table = pa.table({f"column{i}": list(range(100)) for i in range(8)})
    large, name = os.urandom(600_000), "big.bin"
    # Its output goes to a log that is not UTF-8.
    ascii_ = {"PYTHONIOENCODING": "ascii"}
    human = natsbridge.start("watch", "w.>", "--count", 5, "--name", "desk", environ=ascii_)
    machine = natsbridge.start("watch", "w.>", "--json", "--rows", 2, "--count", 5)
    one = natsbridge.start("watch", "w.>", "--correlation-id", "c-2", "--count", 1)
    broker.heard(human, machine, one, subject="w.>")
    damaged = {"dataname": "a", "payload_type": "text", "transport": "direct", "data": "%"}
    with sync.connect(broker.url, name="cam") as nc:

        def send(correlation_id: str, *payloads: tuple[str, object, str]) -> dict[str, object]:
            env, _ = sync.smartsend(
                "w.x",
                list(payloads),
                nats_connection=nc,
                fileserver_url=file_url,
                correlation_id=correlation_id,
                receiver_name="desk",
            )
            return dict(env)

        send(
            "c-1",
            ("note", "Grüße\nsecond line\n" + "x" * 500, "text"),
            ("settings", {"iso": 400, "long": "y" * 500}, "dictionary"),
            ("rows", [{"a": i, "b": None} for i in range(9)], "jsontable"),
            ("data", table, "arrowtable"),
            ("p.jpg", b"12345", "image"),
        )
        link = send("c-2", (name, large, "binary"))
        nc.publish("w.y", b"no envelope at all")
        nc.publish("w.y", json.dumps({"correlation_id": "c-3", "payloads": [damaged]}).encode())
        error = {"correlation_id": "c-4", "error": {"code": "UPLOAD_FAILED", "message": "why"}}
        nc.publish("w.y", json.dumps(error).encode())
        nc.flush()
        human.ended()
        machine.ended()
        # Nothing was fetched, so nothing deleted: the file is still there for its receiver.
        payload = link["payloads"][0]  # type: ignore[index]
        assert sync.fetch_with_backoff(payload["data"]) == large
        assert payload["metadata"]["removable"] is True
    lines = human.out.splitlines()
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines)
    for shown in (
        *(
            "c-1  w.x  cam -> desk  chat",
            "    note  text  520 B  direct",
            "      Gr\\xfc\\xdfe\n      second line",
        ),
        *('      {"iso": 400', "9 rows, 2 columns", "100 rows, 8 columns", "p.jpg  image  5 B"),
        *(f"{name}  binary  600.0 kB  link", payload["data"], "w.y  18 B, no envelope"),
        *("DESERIALIZATION_ERROR: the base64 of 'a'", "UPLOAD_FAILED: why"),
    ):
        assert shown in text, (shown, text)
    assert payload["data"] not in one.ended().out.replace(payload["data"], "", 1)
    assert "c-1" not in one.out
    assert "column0" in text
    head = next(i for i, line in enumerate(lines) if "column0" in line)
    assert lines[head + 1].split() == ["0"] * 6
    assert lines[head + 6].strip() == "100 rows, 8 columns"
    first, second, third, fourth, fifth = machine.records
    assert first["subject"] == "w.x"
    assert [p["payload_type"] for p in first["payloads"]] == [
        *("text", "dictionary", "jsontable", "arrowtable", "image")
    ]
    assert first["payloads"][3]["preview"].count("\n") == 3
    assert second["payloads"][0]["transport"] == "link"
    assert third == {"subject": "w.y", "size": 18, "error": third["error"]}
    assert "DESERIALIZATION_ERROR" in fourth["payloads"][0]["error"]
    assert fifth["error"]["code"] == "UPLOAD_FAILED"
    natsbridge.inside("watch", "w.nothing", "--count", 1, "--timeout", 0.1).ended(3)
    idle = natsbridge.inside("watch", "w.nothing", "--timeout", 0.1).ended()
    assert list(Path(natsbridge.cwd).iterdir()) == []
    fits(idle.out.splitlines())


def test_on_a_terminal_nothing_is_wider_than_it(natsbridge: Runner, broker: Broker) -> None:
    """Its lines are cut, and stay whole in a pipe."""
    import threading

    from command import cells, colours, lines_of_screen, until

    def later() -> None:
        until(lambda: broker.listeners("w.wide"))
        with sync.connect(broker.url, name="n" * 100) as nc:
            sync.smartsend(
                "w.wide",
                [
                    ("t" * 200, "日本語 " * 100, "text"),
                    ("d", [{f"col{i}": "z" * 50 for i in range(8)}], "jsontable"),
                ],
                nats_connection=nc,
            )

    thread = threading.Thread(target=later)
    thread.start()
    code, text = natsbridge.on_terminal("watch", "w.wide", "--count", 1)
    thread.join()
    assert code == 0
    assert max(map(cells, lines_of_screen(text))) <= 80
    assert "1 rows, 8 columns" in text
    assert colours(text)
