"""The firmware as a side that sends and receives what it is told: vector_device.py, started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import vectors
from device import micropython


class Device:
    """A MicroPython process that takes cases on stdin and answers on stdout."""

    def __init__(self, nats_url: str, folder: Path) -> None:
        self.folder = folder
        script = Path(__file__).with_name("vector_device.py")
        self.process = micropython(script, nats_url, heap="8M", stdin=subprocess.PIPE)
        assert self.answer() == "ready"

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the device died"
        return "ready" if line == "ready\n" else json.loads(line)

    def ask(self, case: dict[str, Any]) -> vectors.Result:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(case, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        result: vectors.Result = self.answer()
        return result

    def value(self, spec: Any, number: int) -> Any:
        """A value spec in the form that the device takes."""
        if not isinstance(spec, dict) or "special" in spec:
            return spec
        if "json" in spec and "as" not in spec:
            return {"json": vectors.expand(spec["json"])}
        path = self.folder / f"value{number}"
        path.write_bytes(vectors.content(spec))
        raw = "base64" in spec or "pattern" in spec or "arrow" in spec
        return {"file": str(path), "form": spec.get("as", "bytes" if raw else "text")}

    def values(self, data: Any) -> Any:
        """The data of a send case, each value spec in the form that the device takes."""
        if not isinstance(data, list):
            return data
        return [
            [self.value(part, i) if k == 1 else repeated(part) for k, part in enumerate(item)]
            if isinstance(item, list)
            else item
            for i, item in enumerate(data)
        ]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0


def repeated(value: Any) -> Any:
    """`value` with {"repeat", "times"} replaced; the device makes the {"special"} ones itself."""
    if isinstance(value, dict) and value.keys() != {"special"}:
        if value.keys() == {"repeat", "times"}:
            return value["repeat"] * value["times"]
        return {key: repeated(item) for key, item in value.items()}
    return [repeated(item) for item in value] if isinstance(value, list) else value
