"""Every error has a text, under its code, that takes the values it is given; no text is unused."""

from __future__ import annotations

import ast
import re

from device import FIRMWARE
from harness import load_firmware, run_micropython


def texts() -> dict[tuple[str, str], str]:
    """(code, key) -> text."""
    found = {}
    for code, lines in load_firmware("texts").TEXTS.items():
        for line in lines.strip().splitlines():
            key, mark, text = line.partition(": ")
            assert mark, line
            assert (code, key) not in found, line
            found[code, key] = text
    return found


def keys(node: ast.expr, tree: ast.Module) -> list[str]:
    """The keys that an argument can be: a constant, a choice, or a variable given constants."""
    if isinstance(node, ast.IfExp):
        return keys(node.body, tree) + keys(node.orelse, tree)
    if isinstance(node, ast.Name):
        return [
            n.value.value
            for n in ast.walk(tree)
            if isinstance(n, ast.Assign)
            and getattr(n.targets[0], "id", "") == node.id
            and isinstance(n.value, ast.Constant)
        ]
    return [ast.literal_eval(node)]


def test_every_text_is_used_with_as_many_values_as_it_takes() -> None:
    known = texts()
    used = set()

    def use(code: str, name: str, values: int, where: tuple[str, int]) -> None:
        places = len(re.findall("%[srd]", known[code, name]))
        assert values == places, (where, name)
        used.add((code, name))

    for path in sorted(FIRMWARE.glob("natsbridge/*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            where = path.name, getattr(node, "lineno", 0)
            called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if called == "fail":
                code, key, *values = node.args
                if isinstance(code, ast.Name):
                    for name in keys(key, tree):
                        use(code.id, name, len(values), where)
                else:  # an upload's or a download's own code: its callers name the key
                    assert (ast.unparse(code), len(values)) == ("job.code", 3), where
            elif called == "_error":
                for name in keys(node.args[1], tree):
                    for code in ("UPLOAD_FAILED", "DOWNLOAD_FAILED", "INTEGRITY_ERROR"):
                        if (code, name) in known:
                            use(code, name, 3, where)
    assert used == set(known)


def test_where_the_heap_is_too_short_for_texts_an_error_has_its_values(nats_url: str) -> None:
    script = """
import gc, sys
import natsbridge
from natsbridge.errors import INVALID_ARGUMENT, fail
class Big:
    def __len__(self):
        return 2 << 20
    def write_to(self, stream):
        pass
class Unsayable:
    def __repr__(self):
        raise MemoryError
nc = natsbridge.connect(sys.argv[1])
ballast = []
gc.collect()
while gc.mem_free() > 6000:
    ballast.append(bytes(200))
    gc.collect()
try:
    nc.publish("a", Big())
except natsbridge.NATSBridgeError as e:
    print(e, e.details)
print(fail(INVALID_ARGUMENT, "limit", Unsayable()))
ballast = None
try:
    nc.publish("a", Big())
except natsbridge.NATSBridgeError as e:
    print(e)
"""
    short, shortest, whole = run_micropython(script, nats_url).splitlines()
    values = f"(2097152, '{nats_url}', 1048576)"
    assert short == f"PAYLOAD_TOO_LARGE: publish {values} {{'size': 2097152}}"
    assert shortest == "INVALID_ARGUMENT: limit"
    assert whole.endswith("takes 1048576; send it with smartsend")
