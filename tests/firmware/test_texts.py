"""Every error has a text, under its code, that takes the values it is given; no text is unused."""

from __future__ import annotations

import ast
import re

from device import FIRMWARE
from harness import load_firmware


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
    for path in sorted(FIRMWARE.glob("natsbridge/*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "fail":
                code, key, *values = node.args
                assert isinstance(code, ast.Name), (path.name, node.lineno)
                for name in keys(key, tree):
                    places = len(re.findall("%[srd]", known[code.id, name]))
                    assert len(values) == places, (path.name, node.lineno, name)
                    used.add((code.id, name))
    assert used == set(known)
