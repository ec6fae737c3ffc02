"""What natsbridge flash asks a person at a terminal, who makes mistakes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import natsbridge as package
from checkouts import PICO, SECRET
from command import Broker, Runner, fits, lines_of_screen
from conftest import free_ports
from natsbridge.cli.configure import likely
from natsbridge.cli.settings import Settings
from natsbridge.errors import NATS_CONNECTION_FAILED, NATSBridgeError
from simulator import Board

pytestmark = pytest.mark.boards

NOBODY = Settings((), None, "", "", "", "", "")


def test_a_wrong_answer_is_asked_for_again_and_the_others_stay(
    bare: Runner, broker: Broker, boards: Path, disk: Path
) -> None:
    """A broker that is not there, before anything is changed; a wrong Wi-Fi password, after it."""
    dead = f"nats://127.0.0.1:{free_ports(1)[0]}"
    with Board(disk, **PICO) as board:
        words = ["flash", "rpi_pico_w", "--boards", boards, "--device", board.port]
        answers = [
            ("Name of the Wi-Fi:", "lab\n"),
            ("Its password", "wrong horse\n"),
            ("Name of this board", "\n"),
            ("Broker's URL", f"{dead}\n"),
            ("User at the broker", "\n"),
            ("File server's URL", "\n"),
            (f"[{dead}]", f"{broker.url}\n"),
            ("User at the broker", "\n"),
            ("The board can't join the Wi-Fi.", ""),
            ("Name of the Wi-Fi [lab]:", "\n"),
            ("Its password", f"{SECRET}\n"),
        ]
        code, text = bare.on_terminal(*words, "--set", "ntp=", typed=answers)
    assert (code, "Hello from Raspberry Pi Pico W" in text) == (0, True), text
    assert "nothing was changed" in text
    assert "natsbridge up --lan" in text
    assert "the password is wrong" in text
    assert not [secret for secret in ("wrong horse", SECRET) if secret in text]
    fits(lines_of_screen(text))
    said = json.loads((disk / "slots" / "b" / "config.json").read_text())
    assert said["wifi"] == {"ssid": "lab", "password": SECRET, "country": ""}
    assert said["broker"] == broker.url


def test_what_up_has_started_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what a board can't reach, as it is for this machine alone."""
    monkeypatch.chdir(tmp_path)
    given = {"broker": "nats://10.0.0.1:4222", "fileserver_url": "http://10.0.0.1:8080"}
    peer: dict[str, Any] = {"server": (given["broker"],), "fileserver": given["fileserver_url"]}
    told = Settings(**{**{k: getattr(NOBODY, k) for k in NOBODY.__dataclass_fields__}, **peer})
    assert likely(NOBODY, True) == {}
    assert likely(told, True) == given
    (tmp_path / "natsbridge-data").mkdir()
    file = tmp_path / "natsbridge-data" / "natsbridge.toml"
    for host, wifi, login in (
        *(("192.168.1.5", True, "me:secret@"), ("127.0.0.1", True, "me:secret@")),
        *(("192.168.1.5", True, ""), ("127.0.0.1", False, "")),
    ):
        both = {"broker": f"nats://{login}{host}:4222", "fileserver_url": f"http://{login}{host}"}
        file.write_text(f"server = {json.dumps(both['broker'])}\n")
        with file.open("a") as rest:
            print(f"fileserver = {json.dumps(both['fileserver_url'])}", file=rest)
        assert likely(NOBODY, wifi) == both
        assert likely(told, wifi) == given
    assert likely(NOBODY, wifi=True) == {}
    file.write_text("damaged")
    assert likely(NOBODY, wifi=False) == {}


def test_who_asks_at_the_wrong_broker_is_told_of_the_one_that_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: object, **options: object) -> None:
        raise NATSBridgeError(NATS_CONNECTION_FAILED, "it refused the credentials")

    monkeypatch.setattr(package, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NATSBridgeError, match=r"credentials$"):
        asyncio.run(NOBODY.connect())
    (tmp_path / "natsbridge-data").mkdir()
    file = tmp_path / "natsbridge-data" / "natsbridge.toml"
    file.write_text('server = "nats://me:secret@192.168.1.5:4222"\n')
    with pytest.raises(NATSBridgeError, match=r"--config natsbridge-data/natsbridge\.toml$") as e:
        asyncio.run(NOBODY.connect())
    assert "secret" not in str(e.value)
