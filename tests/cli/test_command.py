"""The command as a whole: help, examples, where options come from, exit codes, completion."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import natsbridge as natsbridge_package
from command import Broker, Runner, cells, colours, fits, lines_of_screen, until
from natsbridge import sync

COMMANDS = ("up", "send", "receive", "watch", "doctor")


def examples(help_text: str) -> list[str]:
    """The command lines under "Examples:"."""
    after = help_text.partition("Examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in after.splitlines()]


def test_help_has_exit_codes_and_examples_and_fits(natsbridge: Runner) -> None:
    top = natsbridge("--help").ended().out
    fits(top.splitlines())
    assert max(map(len, top.splitlines())) <= 80
    for command in COMMANDS:
        assert f"\n  {command} " in top
    for code in ("0", "1", "2", "3", "130", "143"):
        assert re.search(rf"^ +{code}  +[-\w]", top, re.M), code
    for command in COMMANDS:
        text = natsbridge.inside(command, "-h").ended().out
        assert max(map(len, text.splitlines())) <= 80
        assert examples(text)
        assert all(f"natsbridge {command}" in line for line in examples(text))
        for option in re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.M):
            assert text.count(f" {option}") >= 1
    assert re.fullmatch(r"natsbridge, version \d+\.\d+\.\d+\n", natsbridge.inside("--version").out)
    assert "No such command 'sned'" in natsbridge.inside("sned").ended(2).err


def test_every_example_runs(natsbridge: Runner, broker: Broker) -> None:
    """In a shell, as they stand; those that go on for ever are interrupted."""
    folder = natsbridge.cwd
    (folder / "photo.jpg").write_bytes(b"jpg")
    (folder / "readings.csv").write_text("a,b\n1,2\n")
    (folder / "names.csv").write_text("n\nx\n")
    bin = folder / "bin"
    bin.mkdir()
    environ = {"PATH": f"{bin}:{os.environ['PATH']}"}
    (bin / "natsbridge").write_text('#!/bin/sh\nexec "$PYTHON" -m natsbridge "$@"\n')
    (bin / "natsbridge").chmod(0o755)
    environ["PYTHON"] = sys.executable
    shell = ("sh", "-c")
    listening = []
    for command in ("receive", "watch"):
        for line in examples(natsbridge.inside(command, "-h").out):
            words = shlex.split(line)
            subject = words[2]
            process = natsbridge.start(f"exec {line}", line=shell, environ=environ)
            listening.append((process, subject))
    for process, subject in listening:
        until(lambda s=subject: broker.listeners(s) > 0, subject)
        assert process.process.poll() is None
    until(lambda: broker.listeners("lab.>") >= 3)
    sent = 0
    for line in examples(natsbridge.inside("send", "-h").out):
        piped = "|" in line
        run = natsbridge if piped else natsbridge.inside
        words = [line] if piped else shlex.split(line)[1:]
        options = {"line": shell} if piped else {}
        done = run(*words, environ=environ, **options).ended()
        assert "Sent to lab." in done.out
        sent += 1
    assert sent == 4
    doctor = examples(natsbridge.inside("doctor", "-h").out)
    assert "broker" in natsbridge(doctor[0], line=shell, environ=environ).ended().out
    everything = listening[0][0]
    until(lambda: len(list((folder / "received").glob("*.envelope.json"))) >= sent)
    for process, _ in listening:
        if "--count" in process.process.args[2]:
            process.ended()
        else:
            process.stop().ended(130)
        assert process.err == ""
    assert (folder / "pictures" / "photo.jpg").read_bytes() == b"jpg"
    assert "Hello" not in everything.out  # the text is in a file
    up = examples(natsbridge.inside("up", "-h").out)
    assert up == ["natsbridge up", "natsbridge up --lan --folder /var/lib/natsbridge"]


def test_arguments_before_environment_before_natsbridge_toml(
    natsbridge: Runner, broker: Broker, tmp_path: Path
) -> None:
    config = natsbridge.cwd / "natsbridge.toml"
    nowhere = "nats://127.0.0.1:1"
    environ = {"NATS_URL": natsbridge.environ.pop("NATS_URL")}
    config.write_text(f'server = "{nowhere}"\nname = "file"\n[send]\npurpose = "from-toml"\n')
    # From the file alone: nobody is there.
    natsbridge.inside("send", "p.x", "x").failed("cannot connect to nats://127.0.0.1:1")
    with sync.connect(broker.url) as nc, nc.subscribe("p.x") as sub:

        def sent(*arguments: str, **more: str) -> tuple[str, str]:
            words = ("send", "p.x", "x", *arguments)
            natsbridge.inside(*words, environ={**environ, **more}).ended()
            msg = sub.next(5)
            assert msg is not None
            env = json.loads(msg.data)
            return env["sender_name"], env["msg_purpose"]

        assert sent() == ("file", "from-toml")
        assert sent(NATS_NAME="environment") == ("environment", "from-toml")
        assert sent("--name", "argument", "--purpose", "p", NATS_NAME="x") == ("argument", "p")
        (natsbridge.cwd / "other.toml").write_text(
            f'server = ["{nowhere}", "{broker.url}"]\nname = "top"\n[send]\nname = "table"\n'
        )
        natsbridge.inside("--config", "other.toml", "send", "p.x", "x").ended()
        msg = sub.next(5)
        assert msg is not None
        assert json.loads(msg.data)["sender_name"] == "table"
        # An argument replaces the list, and the environment's too.
        run = natsbridge.inside("send", "p.x", "x", "--server", nowhere, environ=environ)
        run.failed("127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user-name = 'x'", "unknown keys: user_name"),
        ("[send]\nout = 'x'", "unknown keys in [send]: out"),
        ("[sned]\nname = 'x'", "unknown keys: sned"),
        ("send = 5", "[send] must be a table"),
        ("name = ", "cannot be read"),
        ("name = ['a']", "name must be one value"),
        ("server = 5", "server must be text"),
        ("[receive]\nallow = [1]", "allow must be text"),
        ("[receive]\ncount = 'many'", "'many' is not a valid integer"),
        ("[receive]\ntables = 'xlsx'", "'xlsx' is not one of"),
    ],
)
def test_what_is_wrong_in_natsbridge_toml_is_said(bare: Runner, text: str, said: str) -> None:
    (bare.cwd / "natsbridge.toml").write_text(text)
    run = bare.inside("receive", "x").ended(2)
    assert said in " ".join(run.err.split())


def test_keys_of_one_command_alone_and_dashes(bare: Runner, broker: Broker) -> None:
    (bare.cwd / "natsbridge.toml").write_text(
        f'server = "{broker.url}"\nout = "there"\nfile-port = 5\nmax_size = 5\n'
        "[receive]\ntimeout = 0.1\njson = true\ncount = 1\n"
    )
    assert bare.inside("receive", "k.x").ended(3).records == []
    assert (bare.cwd / "there").is_dir()
    missing = bare.inside("--config", "missing.toml", "receive", "x").ended(2)
    assert "missing.toml cannot be read" in missing.err


def test_colours_are_for_terminals(natsbridge: Runner) -> None:
    """On one, NO_COLOR is honoured; elsewhere there is no escape sequence at all."""
    for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        code, text = natsbridge.on_terminal("doctor", "--subject", "/a/b", environ=environ)
        assert code == 0
        assert colours(text) is coloured
        lines = lines_of_screen(text)
        fits(lines)
        assert max(cells(line) for line in lines if "http://" not in line) <= 80
    code, text = natsbridge.on_terminal("send", "s.x", "--file", f"{'missing' * 20}.jpg")
    assert code == 1
    assert colours(text)


def test_shell_completion(bare: Runner) -> None:
    for shell in ("bash", "zsh", "fish"):
        run = bare.inside(environ={"_NATSBRIDGE_COMPLETE": f"{shell}_source"}).ended()
        assert "_NATSBRIDGE_COMPLETE" in run.out
    words = {"COMP_WORDS": "natsbridge rec", "COMP_CWORD": "1"}
    run = bare.inside(environ={"_NATSBRIDGE_COMPLETE": "bash_complete", **words}).ended()
    assert run.out.strip() == "plain,receive"
    for option in ("--file", "--table", "--ca"):
        words = {"COMP_WORDS": f"natsbridge send x {option} ph", "COMP_CWORD": "4"}
        run = bare.inside(environ={"_NATSBRIDGE_COMPLETE": "bash_complete", **words}).ended()
        assert run.out.strip() == "file,ph"
    words = {"COMP_WORDS": "natsbridge receive --tables c", "COMP_CWORD": "3"}
    run = bare.inside(environ={"_NATSBRIDGE_COMPLETE": "bash_complete", **words}).ended()
    assert run.out.strip() == "plain,csv"


def test_the_completion_that_readme_names(bare: Runner) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [line] = re.findall(r'`(eval "\$\(_NATSBRIDGE_COMPLETE.*?\)")`', readme)
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell = ("bash", "--norc", "-c")
    run = bare(f"{line}; complete -p natsbridge", line=shell, environ=environ).ended()
    assert run.out.endswith("natsbridge\n")
    assert "-F _natsbridge_completion" in run.out


def test_it_is_installed_as_a_command(natsbridge: Runner) -> None:
    command = Path(sys.executable).with_name("natsbridge")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=40)
    assert done.stdout == natsbridge.inside("--version").out


@pytest.mark.parametrize("module", ["click.core", "rich.console", "pyarrow.lib", "aiohttp.client"])
def test_ctrl_c_while_modules_are_loaded_is_quiet(bare: Runner, module: str) -> None:
    line = (sys.executable, "-X", "importtime", "-m", "natsbridge")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # should it get as far as that
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        run = bare.start("receive", "x.>", line=line, environ={"NATS_URL": url})
        run.says(f" {module}\n").stop()
    assert run.code in (-signal.SIGINT, 130)
    assert "Traceback" not in run.err


def test_a_name_that_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sned'"):
        natsbridge_package.sned  # noqa: B018
    assert set(natsbridge_package.__all__) <= set(dir(natsbridge_package))
