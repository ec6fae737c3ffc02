"""What a flash decides, without a board: the plan, the checks, the configuration."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsbridge.flashing.keys import KEYS, has_login, with_login, without_login
from natsbridge.flashing.plan import Board, Found, Plan, Refused, check, check_flash, make_plan
from natsbridge.flashing.values import Values, parse_settings, read_values

ROOT = Path(__file__).parent.parent.parent
MAIN, CONFIG = b"loader", b'{"name": "x", "broker": "nats://h"}'
PROGRAM = {
    **{"program.py": b"new", "board.py": b"b", "natsbridge/a.mpy": b"M\x06a"},
    "config.json": CONFIG,
}
EMPTY = Found(
    *((1, 24, 0), 0xB06, "Pico", "rp2", "51", 180_000, 1 << 20, False),
    *(None, None, None, None, {}),
)


def board(files: dict[str, bytes], slot: str | None = None, **told: Any) -> Found:
    """A board with these files."""
    there = {p: (len(d), hashlib.sha256(d).hexdigest()) for p, d in files.items()}
    told["loader"] = files.get("main.py", b"").startswith(b"loader")
    told["root_config"] = files["config.json"].decode() if "config.json" in files else None
    return replace(EMPTY, files=there, slot=slot, **told)


def slot(name: str, program: dict[str, bytes], complete: bool = True) -> dict[str, bytes]:
    """A slot's files."""
    files = {f"slots/{name}/{path}": data for path, data in program.items()}
    return {**files, **({f"slots/{name}/complete": b"{}"} if complete else {})}


def carry_out(files: dict[str, bytes], plan: Plan) -> list[dict[str, bytes]]:
    """The files of a board after each step of a plan."""
    now = dict(files)
    states = [dict(now)]

    def step() -> None:
        states.append(dict(now))

    for path in plan.remove:
        now.pop(path)
        step()
    for source, target in plan.copy:
        now[target] = now[source][:1]
        step()
        now[target] = now[source]
        step()
    for path, data in plan.send.items():
        now[path] = data[: len(data) // 2]
        step()
        now[path] = data
        step()
    if plan.slot:
        base = f"slots/{plan.slot}/"
        for path, digest in json.loads(now[base + "complete.new"])["files"].items():
            assert hashlib.sha256(now[base + path]).hexdigest() == digest
        now[base + "complete"] = now.pop(base + "complete.new")
        step()
        now["slot.new"] = plan.slot.encode()
        step()
    for source, target in plan.rename:
        now[target] = now.pop(source)
        step()
    for path in plan.discard:
        now.pop(path)
        step()
    return states


def found_in(files: dict[str, bytes]) -> Found:
    """What such a board says."""
    return board(files, files["slot"].decode() if "slot" in files else None)


def runs(files: dict[str, bytes]) -> dict[str, bytes] | None:
    """The program that a board with these files runs."""
    if not files.get("main.py", b"").startswith(b"loader"):
        return None
    running = found_in(files).running()
    if running is None:
        return None
    base = f"slots/{running}/"
    return {p[len(base) :]: d for p, d in files.items() if p.startswith(base)}


def program_of(files: dict[str, bytes]) -> dict[str, bytes] | None:
    """The same, without what says that it is whole, and with the configuration that it reads."""
    program = runs(files)
    if program is None:
        return None
    read = {"config.json": files["config.json"]} if "config.json" in files else {}
    return {**read, **{p: d for p, d in program.items() if not p.startswith("complete")}}


OLD_CONFIG = b'{"name": "old", "broker": "nats://h"}'
OLD = {
    **{**PROGRAM, "program.py": b"old", "natsbridge/gone.mpy": b"M\x06g"},
    "config.json": OLD_CONFIG,
}
#: What somebody else's program reads.
FOREIGN = b'{"api_key": "the only copy", "user": "me", "name": "x"}'
BARE = {path: data for path, data in OLD.items() if path != "config.json"}
BOARDS: dict[str, dict[str, bytes]] = {
    "empty": {},
    "the old program": {"main.py": MAIN, "slot": b"a", **slot("a", OLD)},
    "configured at the root": {
        **{"main.py": MAIN, "slot": b"a", "config.json": OLD_CONFIG},
        **slot("a", BARE),
    },
    "configured at the root, and as it will be": {
        **{"main.py": MAIN, "slot": b"a", "config.json": CONFIG},
        **slot("a", {path: data for path, data in PROGRAM.items() if path != "config.json"}),
    },
    "another configuration": {
        **{"main.py": MAIN, "slot": b"b"},
        **slot("b", {**PROGRAM, "config.json": OLD_CONFIG}),
    },
    "in both places": {
        **{"main.py": MAIN, "slot": b"a", "config.json": CONFIG},
        **slot("a", OLD),
    },
    "in b, an older loader": {"main.py": b"loader 0", "slot": b"b", **slot("b", OLD)},
    "the old one twice": {"main.py": MAIN, "slot": b"b", **slot("a", OLD), **slot("b", OLD)},
    "interrupted": {
        "main.py": MAIN,
        "slot": b"a",
        "slot.new": b"",
        **slot("a", OLD),
        **slot("b", {"program.py": b"ne", "board.py": b"b", "x": b"y"}, complete=False),
    },
    "a slot that is not whole": {
        "main.py": MAIN,
        "slot": b"a",
        **slot("a", OLD, complete=False),
        **slot("b", OLD),
    },
    "a slot that is not there": {"main.py": MAIN, "slot": b"", **slot("b", OLD)},
    "its own main.py": {"main.py": b"print('mine')", "config.json": OLD_CONFIG},
    "its own main.py and configuration": {"main.py": b"print('mine')", "config.json": FOREIGN},
    "its own configuration": {
        **{"main.py": MAIN, "slot": b"a", "config.json": FOREIGN},
        **slot("a", OLD),
    },
}


@pytest.mark.parametrize("files", BOARDS.values(), ids=BOARDS)
def test_whenever_it_ends_the_board_has_the_old_program_or_the_new(
    files: dict[str, bytes],
) -> None:
    main = MAIN + b" 1"
    plan = make_plan(found_in(files), PROGRAM, main, "1")
    before = program_of(files)
    states = carry_out(files, plan)
    kinds = [program_of(state) for state in states]
    assert all(kind in (before, PROGRAM) for kind in kinds)
    changes = [before] if before == PROGRAM else [before, PROGRAM]  # and never back
    assert [k for k, _ in itertools.groupby(kinds)] == changes
    # Where a rename loses `slot` (FAT removes the old file first), what runs is whole too.
    whole = [program_of({**files, "slot": name}) for name in (b"a", b"b")]
    for state in states[: len(states) - len(plan.discard)]:
        lost = {path: data for path, data in state.items() if path != "slot"}
        assert program_of(lost) in (None, *whole, PROGRAM)
    after = states[-1]
    assert after["main.py"] == main
    theirs = files.get("config.json") == FOREIGN
    assert after.get("config.json") == (FOREIGN if theirs else None)
    assert not [path for path in after if path.endswith(".new")]
    if b"mine" in files.get("main.py", b""):
        # Before anything else takes its place there is a copy.
        assert all(b"print('mine')" in state.values() for state in states)
        assert after["main.old.py"] == b"print('mine')"
        # What it may read stays as long as it is what runs.
        assert all(
            state["config.json"] == files["config.json"]
            for state in states
            if state["main.py"] != main
        )
    # Once more, there is nothing to do; from each step, the rest is.
    assert not make_plan(found_in(after), PROGRAM, main, "1").changes
    for state in states:
        again = carry_out(state, make_plan(found_in(state), PROGRAM, main, "1"))[-1]
        assert program_of(again) == PROGRAM
        assert ("config.json" in again) == theirs


contents = st.sampled_from([b"1", b"2", b"33"])
names = st.sampled_from(["program.py", "config.json", "natsbridge/a.mpy", "natsbridge/b.mpy"])
programs = st.dictionaries(names, contents, min_size=1)


@given(st.dictionaries(st.sampled_from("ab"), st.tuples(programs, st.booleans())), programs, names)
def test_any_board_gets_any_program(
    slots: dict[str, tuple[dict[str, bytes], bool]], wanted: dict[str, bytes], named: str
) -> None:
    files = {"main.py": MAIN, "slot": named[0].encode()}
    for name, (program, complete) in slots.items():
        files.update(slot(name, program, complete))
    plan = make_plan(found_in(files), wanted, MAIN, "1")
    states = carry_out(files, plan)
    assert all(program_of(state) in (program_of(files), wanted) for state in states)
    assert program_of(states[-1]) == wanted


def test_what_is_there_does_not_travel() -> None:
    files = {"main.py": MAIN, "slot": b"a", **slot("a", {**OLD, "config.json": CONFIG})}
    files.update(slot("b", {"program.py": b"new", "board.py": b"!"}, complete=False))
    plan = make_plan(found_in(files), PROGRAM, MAIN, "1")
    assert (plan.slot, list(plan.send), plan.kept) == ("b", ["slots/b/complete.new"], 4)
    assert plan.remove == ("slots/b/board.py",)
    assert plan.copy == (
        ("slots/a/board.py", "slots/b/board.py"),
        ("slots/a/natsbridge/a.mpy", "slots/b/natsbridge/a.mpy"),
        ("slots/a/config.json", "slots/b/config.json"),
    )
    assert plan.rename == (("slot.new", "slot"),)
    assert not plan.discard


def test_a_configuration_travels_alone() -> None:
    files = {"main.py": MAIN, "slot": b"a", **slot("a", {**PROGRAM, "config.json": OLD_CONFIG})}
    plan = make_plan(found_in(files), PROGRAM, MAIN, "1")
    assert list(plan.send) == ["slots/b/config.json", "slots/b/complete.new"]
    assert plan.kept == len(plan.copy) == 3


def test_a_main_that_would_be_lost_is_refused() -> None:
    files = {"main.py": b"print('mine')", "main.old.py": b"print('older')"}
    with pytest.raises(Refused, match=r"main.old.py, where it would be kept"):
        make_plan(found_in(files), PROGRAM, MAIN, "1")


def test_the_flash_that_it_takes() -> None:
    program = {"program.py": b"x" * 5000, "config.json": CONFIG}
    plan = make_plan(EMPTY, program, MAIN, "1")
    # Two blocks of program, one each of complete, config.json, main.py and slot; two folders.
    assert plan.flash == 4096 * (2 + 4 + 2 * 2)
    check_flash(replace(EMPTY, flash=plan.flash), plan)
    check_flash(replace(EMPTY, flash=None), plan)
    with pytest.raises(Refused, match="40,959 bytes of flash free, and 40,960 are needed"):
        check_flash(replace(EMPTY, flash=plan.flash - 1), plan)
    assert make_plan(board({}), {}, MAIN, "1").flash < plan.flash


PICO = Board("pico", "Pico W", "rp2", "Pico", (1, 20, 0), 0.7)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, None),
        ({"version": (1, 20, 0)}, None),
        ({"version": (1, 19, 9)}, r"has MicroPython 1.19.9: install 1.20.0 or newer"),
        ({"version": (1, 9, 4)}, "install 1.20.0"),
        ({"mpy": None}, "loads none of .mpy"),
        ({"mpy": 0xB05}, "loads version 5"),
        ({"machine": "ESP32"}, "'ESP32': it is no pico"),
        ({"machine": "", "platform": "Pico"}, None),
        ({"heap": 45_874}, "has 45,874 bytes of heap free, and 45,875"),
        ({"heap": 45_875}, None),
    ],
)
def test_what_fits(told: dict[str, Any], why: str | None) -> None:
    if why is None:
        check(PICO, replace(EMPTY, **told), 6)
    else:
        with pytest.raises(Refused, match=why):
            check(PICO, replace(EMPTY, **told), 6)


def test_every_board_of_ours_is_understood() -> None:
    for path in (ROOT / "boards").glob("*/board.json"):
        found = Board.parse(path.parent.name, path.read_text())
        assert found.port in ("rp2", "esp32", "unix")
        assert (found.flash_offset is not None) == (found.port == "esp32")
    for text in ("{}", "[]", '{"micropython": 5}', "x"):
        with pytest.raises(ValueError, match=r"Error|Expecting"):
            Board.parse("x", text)


SAID = {
    **{"version": [1, 24, 0], "mpy": 2822, "machine": "m", "platform": "rp2", "chip": ""},
    **{"heap": 1, "flash": None, "loader": False, "slot": None, "config": "secret"},
    **{"root": "secret", "program": None},
}


def test_what_a_board_says_is_not_trusted() -> None:
    text = f"noise\nfile 3 abc slots/a/x y\nboard {json.dumps(SAID)}\n"
    found = Found.parse(text)
    assert found.files == {"slots/a/x y": (3, "abc")}
    assert "secret" not in repr(found)
    for key, value in (
        *((key, None) for key in ("version", "heap", "machine", "chip")),
        *(("version", ["1"]), ("heap", "1"), ("flash", 1.5), ("config", 5), ("slot", [])),
        *(("root", {}), ("program", 5)),
    ):
        with pytest.raises(ValueError, match="answer"):
            Found.parse(f"board {json.dumps({**SAID, key: value})}")
    for text in ("", "board", "board 5", "board {}", "file x y\nboard {}", "file 1\n"):
        with pytest.raises(ValueError, match=r"answer|unpack|Expecting|invalid literal"):
            Found.parse(text)


@pytest.mark.parametrize(
    ("loader", "slot", "root", "found"),
    [
        (True, "slot", OLD_CONFIG, "slot"),
        (True, None, OLD_CONFIG, OLD_CONFIG),
        (True, None, FOREIGN, None),
        (False, "slot", OLD_CONFIG, OLD_CONFIG),
        (False, "slot", FOREIGN, "slot"),
        (False, "slot", b"{", "slot"),
        (False, None, None, None),
    ],
)
def test_which_configuration_the_board_reads(
    loader: bool, slot: str | None, root: bytes | None, found: object
) -> None:
    text = root.decode() if root else None
    told = replace(EMPTY, loader=loader, in_slot_config=slot, root_config=text)
    assert told.config == (found.decode() if isinstance(found, bytes) else found)


def test_a_program_that_is_on_the_board_stays() -> None:
    files = {"main.py": MAIN, "slot": b"a", **slot("a", OLD)}
    plan = make_plan(found_in(files), {**PROGRAM, "program.py": None}, MAIN, "1", "kiln.py")
    assert ("slots/a/program.py", "slots/b/program.py") in plan.copy
    assert json.loads(plan.send["slots/b/complete.new"])["program"] == "kiln.py"
    after = carry_out(files, plan)[-1]
    assert program_of(after) == {**PROGRAM, "program.py": b"old"}
    assert not make_plan(found_in(after), {**PROGRAM, "program.py": None}, MAIN, "1").changes


# ---------------------------------------------------------------- the configuration

TEMPLATE = {
    **{"wifi": {"ssid": "", "password": "", "country": ""}, "name": "pico-w"},
    **{"broker": "nats://template", "password": "", "fileserver_url": "http://template"},
}
FULL = {
    **{"wifi": {"ssid": "s", "password": ""}, "name": "x", "broker": "nats://h"},
    "fileserver_url": "",
}
EVERYTHING = ["wifi.ssid", "wifi.password", "name", "broker", "fileserver_url"]


def asked(values: Values) -> list[str]:
    return [question.key for question in values.missing()]


def test_what_is_missing() -> None:
    assert asked(Values(TEMPLATE, None)) == EVERYTHING
    for damaged in ("", "{", "[]", "5", '{"name": "x", "user": "by chance"}'):
        assert asked(Values(TEMPLATE, damaged)) == EVERYTHING
    assert asked(Values(TEMPLATE, json.dumps(FULL))) == []
    # A Wi-Fi is no use to a board without one; the name in its template will do.
    values = Values({**TEMPLATE, "wifi": None}, None)
    values.take({"wifi.ssid": "x"})
    assert asked(values) == EVERYTHING[3:]
    assert values["wifi.ssid"] is None
    assert asked(Values({**TEMPLATE, "name": "", "wifi": None}, json.dumps(FULL))) == []
    questions = Values(TEMPLATE, None).missing()
    assert [q.hidden for q in questions] == [False, True, False, False, False]
    assert [q.default for q in questions] == ["", "", "pico-w", "", ""]  # no made-up server
    assert [q.key for q in questions if q.optional] == ["name"]


def test_an_answer_can_lead_to_another_question() -> None:
    values = Values(TEMPLATE, json.dumps(FULL), known={"broker": "nats://known"})
    values.ask_again("broker", "user", "password")
    assert [(q.key, q.default) for q in values.missing()] == [("broker", "nats://known")]
    values.answer("broker", "nats://h2")
    assert asked(values) == ["user"]
    values.answer("user", "me")
    assert asked(values) == ["password"]
    values.answer("password", "p")
    assert asked(values) == []
    # Once more: the answers are the defaults, but for what is hidden.
    values.ask_again("broker", "user", "password")
    assert [(q.key, q.default) for q in values.missing()] == [
        *(("broker", "nats://h2"), ("user", "me"), ("password", "")),
    ]
    # A login in the URL takes the place of both.
    values.answer("broker", "nats://you:q@h2")
    assert asked(values) == []
    assert (values["user"], values["password"]) == ("", "")


def test_who_wins() -> None:
    values = Values(TEMPLATE, json.dumps({**FULL, "name": "board", "user": "board"}))
    assert (values["name"], values["wifi.country"], values["wifi.ssid"]) == ("board", "", "s")
    values.take({"wifi.ssid": "environment", "password": "environment"})
    assert values["wifi.ssid"] == "environment"
    values.update({"name": "file", "wifi": {"password": "p"}, "password": "file"}, "FILE")
    values.set("wifi.country", "DE", "--set")
    said = json.loads(values.to_json())
    assert list(said) == [*TEMPLATE, "user"]
    assert (said["name"], said["user"], said["password"]) == ("file", "board", "file")
    assert said["wifi"] == {"ssid": "environment", "password": "p", "country": "DE"}
    assert TEMPLATE["wifi"] == {"ssid": "", "password": "", "country": ""}
    assert "p" not in repr(values).replace("password", "").replace("Values", "").split("'")
    values.update({"wifi": None}, "FILE")
    assert json.loads(values.to_json())["wifi"] is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("wifi", 1), ("wifi", [1]), ("wifi", "lab"), ("wifi.foo", 1), ("wifi.ssid.x", 1)),
        *(("wifi.country", "Germany"), ("wifi.country", "D1"), ("wifi.ssid", ""), ("wify", 1)),
        *(("wifi.ssid", "x" * 33), ("wifi.password", "x" * 65), ("wifi.password", None)),
        *(("broker", None), ("broker", 5), ("broker", []), ("broker", "http://x"), ("broker", "")),
        *(("broker", ["nats://x", 5]), ("broker", "nats://"), ("broker", "nats://x:99999")),
        *(("watchdog", 8389), ("watchdog", -1), ("watchdog", "8000"), ("watchdog", True)),
        *(("size_threshold", -1), ("size_threshold", 1.5), ("tls", 1), ("tls", {"x": 1})),
        *(("tls", {"ca": 5}), ("tls", {"verify": "no"}), ("fileserver_url", {})),
        *(("fileserver_url", "ftp://x"), ("fileserver_url", "x"), ("user.", "x"), ("user", 5)),
        *(("name", "a b"), ("name", "a.*"), ("name", "a..b"), ("name", "a."), ("name", 5)),
        *(("id", ">"), ("password.x", "y"), ("token", {}), ("ntp", "a b"), ("ntp", None)),
    ],
)
def test_a_value_that_no_board_can_use_is_refused(key: str, value: object) -> None:
    values = Values(TEMPLATE, None, watchdog_max=8388)
    for give in (
        lambda: values.set(key, value, "FILE"),
        lambda: values.update({key: value}, "FILE"),
    ):
        with pytest.raises(Refused, match=r"FILE(: .* must be | has an unknown key )"):
            give()
    assert values.to_json() == Values(TEMPLATE, None).to_json()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("wifi.ssid", "ä" * 16), ("wifi.password", ""), ("wifi.country", "DE"), ("wifi", None)),
        *(("broker", "h"), ("broker", ["tls://h:1", "nats://u:p@h"]), ("watchdog", 8388)),
        *(("size_threshold", None), ("tls", True), ("tls", {"ca": "ca.pem", "verify": True})),
        *(("fileserver_url", ""), ("fileserver_url", "https://u:p@h/x"), ("name", "a.b-c")),
        *(("name", ""), ("ntp", ""), ("tls", None)),
    ],
)
def test_a_value_that_boards_can_use_is_taken(key: str, value: object) -> None:
    values = Values(TEMPLATE, None, watchdog_max=8388)
    values.set(key, value, "FILE")
    assert values[key] == value


def test_what_a_board_has_that_is_of_no_use_is_not_taken_over() -> None:
    values = Values(TEMPLATE, json.dumps({**FULL, "watchdog": "abc", "name": "a b"}))
    assert values.dropped == [
        f"the board's config.json: {key} must be {KEYS[key].must}" for key in ("name", "watchdog")
    ]
    assert (values["watchdog"], asked(values)) == (None, ["name"])


def test_every_key_of_a_board_is_described() -> None:
    for path in (ROOT / "boards").glob("*/config.json"):
        names = [name.partition(".")[0] for name in KEYS]
        assert list(dict.fromkeys(names)) == list(json.loads(path.read_text()))


def test_what_is_set() -> None:
    said = parse_settings(["name=1", "user=x=y", "broker=", 'tls={"ca": "x"}', "watchdog=8000"])
    assert said == {
        **{"name": "1", "user": "x=y", "broker": "", "tls": {"ca": "x"}, "watchdog": 8000},
    }
    assert parse_settings(["watchdog=abc", "name=1e3"]) == {"watchdog": "abc", "name": "1e3"}
    assert parse_settings(['wifi={"ssid": "s"}', "x=1"]) == {"wifi.ssid": "s", "x": 1}
    for text, word in (("", "names no key"), ("=x", "names no key"), ("name", "has no value")):
        with pytest.raises(Refused, match=f"{word}: write --set KEY=VALUE"):
            parse_settings([text])


@pytest.mark.parametrize(
    "setting",
    [
        *("password=hush", "token=hush", "wifi.password=hush", "password.x=hush"),
        *('wifi={"ssid": "s", "password": "hush"}', "broker=nats://me:hush@h:1"),
        *('broker=["h", "tls://hush@h:1"]', "fileserver_url=http://me:hush@h", "broker=me:hush@h"),
    ],
)
def test_what_is_secret_is_not_set(setting: str) -> None:
    with pytest.raises(Refused, match="would show in the list of processes: put it into") as e:
        parse_settings([setting])
    assert "hush" not in e.value.message


def test_the_login_of_a_url() -> None:
    for url, bare in (
        *(("nats://u:p@h:1/x", "nats://h:1/x"), ("h", "h"), ("u:p@h:4222", "h:4222")),
        *(("http://h/@x", "http://h/@x"), ("http://u:p@h/@x", "http://h/@x")),
    ):
        assert without_login(url) == bare
        assert has_login(url) == (url != bare)
    assert with_login("http://h:1/x", "me", "p@/:") == "http://me:p%40%2F%3A@h:1/x"
    assert KEYS["fileserver_url"].fits(with_login("http://h:1/x", "me", "p@/:"))


def test_a_file_of_values(tmp_path: Path) -> None:
    path = tmp_path / "values.toml"
    path.write_text('name = "x"\n[wifi]\nssid = "y"\n')
    assert read_values(path) == {"name": "x", "wifi": {"ssid": "y"}}
    path = tmp_path / "values.json"
    for text in ("[]", "secret", '{"password": "secret"'):
        path.write_text(text)
        with pytest.raises(Refused) as e:
            read_values(path)
        assert "secret" not in str(e.value)
    with pytest.raises(Refused, match="No such file"):
        read_values(tmp_path / "nowhere.json")
    with pytest.raises(Refused, match="more than 65,536 bytes"):
        read_values(Path("/dev/zero"))
