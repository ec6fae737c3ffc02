"""What is installed on a board (mip) is the whole package."""

from __future__ import annotations

import ast
import json
from pathlib import Path

FIRMWARE = Path(__file__).parent.parent.parent / "firmware"
PACKAGE = json.loads((FIRMWARE / "package.json").read_text(encoding="utf-8"))


def test_mip_installs_every_module_under_its_own_name() -> None:
    modules = sorted(f"natsbridge/{path.name}" for path in (FIRMWARE / "natsbridge").glob("*.py"))
    assert PACKAGE["urls"] == [[name, name] for name in modules]


def test_mip_names_the_version_of_the_package() -> None:
    tree = ast.parse((FIRMWARE / "natsbridge" / "__init__.py").read_text(encoding="utf-8"))
    [version] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert PACKAGE["version"] == version
