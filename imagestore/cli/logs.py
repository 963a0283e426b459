"""The log of a serving store: for people on a terminal, one JSON line each elsewhere.

Keys are stable: ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``,
then what the caller gave as ``extra`` (``operation``, ``dataset``, ``seq``,
``duration_seconds``, …), then ``exception``.  Goes to stderr.
"""

import datetime as dt
import logging
import sys

import msgspec

from imagestore.cli.output import printable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest is ``extra``."""

_COLOURS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def extras(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave as ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.created, dt.UTC)


class JsonFormatter(logging.Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class HumanFormatter(logging.Formatter):
    """Local time, level, message, ``key=value``."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower().ljust(7)
        if self._colour:
            level = f"\033[{_COLOURS.get(record.levelname, '0')}m{level}\033[0m"
        time = _time(record).astimezone().strftime("%H:%M:%S")
        pairs = "".join(f" {key}={value}" for key, value in extras(record).items())
        line = f"{time} {level} {printable(record.getMessage() + pairs)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str, *, no_colour: bool) -> None:
    """Send all logging of ``level`` (debug, info, warning, error) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(HumanFormatter(colour=not no_colour))
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
