"""The three interfaces have the same names and parameters: firmware, host, natsbridge.sync.

Read from the sources, because MicroPython's functions can't be inspected.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import natsbridge
from natsbridge import sync

ROOT = Path(__file__).parent.parent.parent
FIRMWARE = ROOT / "firmware" / "natsbridge"
HOST = ROOT / "host" / "natsbridge"

#: Where each public function of the firmware and of the host is.
FUNCTIONS = {
    "connect": ("dial", "dial"),
    "smartsend": ("send", "send"),
    "smartreceive": ("receive", "receive"),
    "plik_upload": ("plik", "plik"),
    "plik_oneshot_upload": ("plik", "plik"),
    "fetch_with_backoff": ("plik", "download"),
    "envelope_to_json": ("steps", "envelope"),
    "publish_message": ("steps", "send"),
}
METHODS = {
    "Connection": ("publish", "subscribe", "next", "request", "inbox", "flush", "drain", "close"),
    "Subscription": ("next", "unsubscribe", "drain"),
    "Msg": ("__len__",),
    "Inbox": ("fetch",),
    "StoredMsg": ("ack", "nak", "term", "in_progress"),
}
#: Where the classes are: firmware, host, sync.
CLASSES = {
    "Connection": ("client", "client", "sync"),
    "Subscription": ("subscription", "subscription", "sync"),
    "Msg": ("subscription", "subscription", "subscription"),
    "Inbox": ("stored", "inbox", "sync"),
    "StoredMsg": ("stored", "inbox", "sync"),
}


#: Parameters that the firmware alone has, and why.
PARAMETERS = {
    ("connect", "on_idle"): "a device has one thread: what else it does while it waits",
    **{
        ("connect", name): "MQTT is for devices: desktops reach the same server over NATS"
        for name in ("qos", "will", "session", "max_payload")
    },
}

Signature = list[tuple[str, str, str]]


def signature(
    function: ast.FunctionDef | ast.AsyncFunctionDef, constants: dict[str, str]
) -> Signature:
    """(kind, name, default) of each parameter but self, with constants replaced by values."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    rows = [("positional", p.arg, d) for p, d in zip(positional, defaults, strict=True)]
    rows += [("keyword", p.arg, d) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    assert a.vararg is None, function.name
    assert a.kwarg is None, function.name

    def text(default: ast.expr | None) -> str:
        if default is None:
            return "required"
        shown = ast.unparse(default)
        shown = constants.get(shown.split(".")[-1], shown)
        # 5 and 5.0, 86400 and 86_400 are the same.
        try:
            value = ast.literal_eval(shown)
        except ValueError:
            return shown
        same = isinstance(value, float) and value.is_integer()
        return repr(int(value) if same else value)

    return [(kind, name, text(d)) for kind, name, d in rows if name != "self"]


def module(path: Path) -> tuple[ast.Module, dict[str, str]]:
    """A module's tree, and its constants: name -> source of the value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = ast.unparse(node.value)
    return tree, constants


def find(path: Path, name: str, owner: str = "") -> Signature:
    """The signature of a function, or of a method of the class `owner`."""
    tree, constants = module(path)
    body = tree.body
    if owner:
        [body] = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner]
    # A default may be the constant of another module.
    constants |= module(HOST / "plik.py")[1] if path.parent == HOST else {}
    [found] = [
        n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name
    ]
    return signature(found, constants)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_the_same_parameters(name: str) -> None:
    firmware, host = FUNCTIONS[name]
    ours = find(FIRMWARE / f"{firmware}.py", name)
    expected = [row for row in ours if (name, row[1]) not in PARAMETERS]
    assert len(ours) - len(expected) == sum(function == name for function, _ in PARAMETERS)
    assert find(HOST / f"{host}.py", name) == expected
    assert find(HOST / "sync.py", name) == expected


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in METHODS.items() for name in names]
)
def test_methods_take_the_same_parameters(owner: str, name: str) -> None:
    firmware, host, face = CLASSES[owner]
    expected = find(FIRMWARE / f"{firmware}.py", name, owner)
    assert find(HOST / f"{host}.py", name, owner) == expected
    assert find(HOST / f"{face}.py", name, owner) == expected


def test_the_public_names_are_the_same() -> None:
    tree, _ = module(FIRMWARE / "__init__.py")
    [parts] = [
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "_PARTS"
    ]
    assert set(parts) == {*FUNCTIONS, "NATSBridgeError"}
    assert set(natsbridge.__all__) == {*parts, "__version__"}
    assert set(parts) <= set(sync.__all__)


def test_the_stubs_of_the_firmware_are_its_interface() -> None:
    tree = ast.parse((FIRMWARE / "__init__.pyi").read_text(encoding="utf-8"))
    stubs = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert set(stubs) == set(FUNCTIONS)
    for name, stub in stubs.items():
        assert signature(stub, {}) == find(FIRMWARE / f"{FUNCTIONS[name][0]}.py", name), name
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    for owner, names in METHODS.items():
        for name in names:
            [stub] = [
                n for n in classes[owner].body if isinstance(n, ast.FunctionDef) and n.name == name
            ]
            expected = find(FIRMWARE / f"{CLASSES[owner][0]}.py", name, owner)
            assert signature(stub, {}) == expected, (owner, name)


def test_the_versions_are_the_same() -> None:
    _, constants = module(FIRMWARE / "__init__.py")
    assert ast.literal_eval(constants["__version__"]) == natsbridge.__version__


#: Public methods and attributes that one side alone has, and why.
EXCEPTIONS = {
    ("firmware", "Connection", "bound"): "for smartsend and smartreceive: a deadline",
    ("firmware", "Connection", "deadline"): "what bound sets",
    ("firmware", "Connection", "serve"): "for uploads and downloads: answers PINGs meanwhile",
    ("firmware", "Connection", "poll"): "for who does something else meanwhile: takes what came",
    ("firmware", "Connection", "idle"): "on_idle, for uploads and downloads to call",
    ("firmware", "Connection", "send"): "what MQTT does in another way",
    ("firmware", "Connection", "scratch"): "a buffer that smartsend and smartreceive share",
    ("firmware", "Msg", "connection"): "for smartreceive; on the host it is private",
    ("firmware", "Msg", "sub"): "for the connection's queue",
    ("firmware", "Msg", "head"): "for the connection: bytes of its headers",
    ("firmware", "Msg", "size"): "len(msg), for the connection",
    ("firmware", "Msg", "left"): "for the connection: what is still on the socket",
    ("firmware", "Msg", "lost"): "for the connection: what is no longer there",
    ("firmware", "Msg", "keep"): "for the connection's queue",
    ("firmware", "Msg", "at"): "for readinto",
    ("firmware", "Msg", "fill"): "for the connection",
    ("firmware", "Msg", "rewind"): "for smartreceive and for readinto's users",
    ("firmware", "Msg", "readinto"): "reads in pieces what does not fit the heap; the host's fits",
    (
        "firmware",
        "StoredMsg",
        "claim",
    ): "for smartreceive: files to be removed",
    ("firmware", "StoredMsg", "extend"): "for smartreceive: has in_progress said",
    ("firmware", "StoredMsg", "idle"): "likewise: what else is done meanwhile",
    ("firmware", "StoredMsg", "tick"): "likewise: does it",
    ("firmware", "StoredMsg", "deadline"): "likewise: when it is due",
    ("host", "Connection", "client"): "the nats-py client, for what this API does not have",
    ("host", "Connection", "subjects"): "for nack: nobody may make us answer ourselves",
}


def public(path: Path, owner: str) -> set[str]:
    """The public methods, properties and attributes of a class."""
    tree, _ = module(path)
    [cls] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner]
    names = set()
    for node in ast.walk(cls):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) == "self"
        ):
            names.add(node.attr)
    for node in cls.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.add(node.targets[0].id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("owner", CLASSES)
def test_classes_have_the_same_public_names(owner: str) -> None:
    firmware, host, face = CLASSES[owner]
    sides = {
        "firmware": public(FIRMWARE / f"{firmware}.py", owner),
        "host": public(HOST / f"{host}.py", owner),
        "sync": public(HOST / f"{face}.py", owner),
    }
    for side, names in sides.items():
        excepted = {name for where, kind, name in EXCEPTIONS if (where, kind) == (side, owner)}
        assert excepted <= names, f"{excepted - names} of {side}.{owner} are no more"
        names -= excepted
    assert sides["firmware"] == sides["host"] == sides["sync"]
    assert {name for name in METHODS[owner] if name[0] != "_"} <= sides["host"]


def test_an_error_has_the_same_attributes_and_parameters() -> None:
    owner = "NATSBridgeError"
    names = {"code", "message", "details", "to_dict"}
    assert public(FIRMWARE / "errors.py", owner) == names
    assert public(HOST / "errors.py", owner) == names
    for name in ("__init__", "to_dict"):
        firmware = find(FIRMWARE / "errors.py", name, owner)
        assert find(HOST / "errors.py", name, owner) == firmware
