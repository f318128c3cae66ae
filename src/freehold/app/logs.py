"""How a worker logs: lines for people, or one JSON object a line.

A message's arguments that are named in its text (`request_id=%s`) become fields of the object. They are found in the text
that the code has, never in what was filled in, so nothing that a client sends makes up a field.
"""

import json
import logging
import re
from typing import Any

from freehold.clock import rfc3339

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_ARGUMENT = re.compile(r"(?:(?P<name>[a-z_]+)=)?%(?:%|[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")
_OURS = ("time", "level", "logger", "message")


def start(level: str, form: str) -> None:
    """Log to stderr. `form` is text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class JsonLines(logging.Formatter):
    """One record as one JSON object: time, level, logger, message, the message's named arguments, and a fault's trace."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{rfc3339(record.created)[:-1]}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_named(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _named(record: logging.LogRecord) -> dict[str, Any]:
    if not isinstance(record.args, tuple) or not isinstance(record.msg, str):
        return {}
    found = [match["name"] for match in _ARGUMENT.finditer(record.msg) if not match[0].endswith("%%")]
    return {
        name: value if isinstance(value, int | float | None) else str(value)
        for name, value in zip(found, record.args, strict=False)
        if name is not None and name not in _OURS
    }
