"""log: silent by default, the walkthrough's line when asked for."""

import logging
import re
import subprocess
import sys

import pytest

from natsbridge import log


def test_formatter_gives_the_line_of_the_walkthrough(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "natsbridge"):
        log.trace("abc123", "Starting smartsend")
    line = log.Formatter().format(caplog.records[0])
    assert re.fullmatch(
        r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] \[Correlation: abc123\] Starting smartsend",
        line,
    )


def test_a_line_break_from_a_stranger_cannot_forge_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "natsbridge"):
        log.trace("a\nb", "name\r\n[fake]")
    assert "\n" not in log.Formatter().format(caplog.records[0])


def test_nothing_is_printed_unless_asked_for() -> None:
    code = "from natsbridge import log; log.trace('c', 'x', 40)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
