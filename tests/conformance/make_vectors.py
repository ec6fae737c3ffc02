"""Writes the conformance vectors, receive.json and send.json, from the cases in generate/.

`python make_vectors.py` rewrites the files beside it. The output depends on nothing but those
modules (standard library only, none of the implementations), so a test can compare the two.
PROTOCOL.md, section "Vectors", describes the format of a case.
"""

import json
from pathlib import Path

from generate import (
    received,
    received_links,
    received_spelling,
    refused,
    refused_json,
    refused_links,
    sent,
)
from generate.common import RECEIVE, SEND

FOLDER = Path(__file__).parent


def build() -> dict[str, str]:
    """File name -> text, for every file of vectors. One case a line."""
    RECEIVE.clear()
    SEND.clear()
    for section in (
        received,
        received_spelling,
        received_links,
        refused_json,
        refused,
        refused_links,
        sent,
    ):
        section.add_cases()
    files = {"receive.json": RECEIVE, "send.json": SEND}
    for file_name, cases in files.items():
        names = [case["name"] for case in cases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SystemExit(f"{file_name}: names used twice: {twice}")
    return {
        file_name: "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
        for file_name, cases in files.items()
    }


if __name__ == "__main__":
    for file_name, text in build().items():
        (FOLDER / file_name).write_text(text, encoding="ascii")
        print(f"{file_name}: {text.count(chr(10)) - 2} cases, {len(text)} bytes")
