"""Every step, with its correlation id.

Records go to the `natsbridge` logger, silent by default as libraries are (DESIGN, "Logging").
To see them::

    logging.basicConfig(level=logging.DEBUG)
    logging.getLogger().handlers[0].setFormatter(natsbridge.log.Formatter())
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone

__all__ = ["Formatter", "logger", "trace"]

logger = logging.getLogger("natsbridge")
logger.addHandler(logging.NullHandler())


def trace(correlation_id: str, text: str, level: int = logging.DEBUG) -> None:
    """Log one step of a message's way.

    Args:
        correlation_id: whose way; "" when the step belongs to no message.
        text: what happened.
        level: a `logging` level; DEBUG for steps, WARNING for what a person should look at.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", text, extra={"correlation_id": correlation_id})


class Formatter(logging.Formatter):
    """The walkthrough's line: `[2026-03-13T07:02:50.443Z] [Correlation: abc] text`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line (line breaks inside are escaped)."""
        when = datetime.fromtimestamp(record.created, timezone.utc)
        stamp = when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        correlation_id = getattr(record, "correlation_id", "")
        # A correlation id and a dataname come from the sender: they must not forge a log line.
        line = f"[{stamp}] [Correlation: {correlation_id}] {record.getMessage()}"
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
