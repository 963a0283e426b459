"""The database of the original program: its images, read without trusting a byte of it.

An SQLite file ``.images.db`` in the images' file system, with a table
``mistify-agent-image(key, bucket, value)``; in the bucket ``images`` each
value is an image as JSON.  Opened read-only; nothing is locked, mended or
left beside it.  What cannot be understood is told, line by line, and left out.

Blocks; belongs into a worker thread.
"""

import os
import sqlite3
from contextlib import closing
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from imagestore import names
from imagestore.errors import NotValid

FILE_NAME = ".images.db"

MAX_FILE_BYTES = 64 << 20
MAX_ROWS = 100_000
MAX_VALUE_BYTES = 64 << 10
MAX_STEPS = 10_000
"""So often SQLite may report a thousand instructions before a look is given up: a hostile file could
keep it busy for ever."""

_QUERY = """
SELECT key, value FROM "mistify-agent-image"
WHERE bucket = 'images' ORDER BY rowid LIMIT ?
"""


class OriginalImage(Struct, frozen=True, kw_only=True):
    """An image as the original knew it; ``volume`` and ``snapshot`` are full names."""

    id: str
    type: str = ""
    volume: str = ""
    snapshot: str = ""
    status: str = ""


class Unread(Struct, frozen=True, kw_only=True):
    """An entry that says nothing of use, and why, in one line."""

    key: str
    reason: str


class Original(Struct, frozen=True, kw_only=True):
    """What the database says.  ``found`` is "absent", "unreadable" (``reason`` says why) or "read"."""

    found: Literal["absent", "unreadable", "read"]
    reason: str = ""
    images: tuple[OriginalImage, ...] = ()
    unread: tuple[Unread, ...] = ()


def read(directory: str) -> Original:
    """Read the database in ``directory``, where the images' file system is mounted, "" if it is not."""
    path = os.path.join(directory, FILE_NAME)
    if not directory or not os.path.lexists(path):
        return Original(found="absent")
    if os.path.islink(path) or not os.path.isfile(path):
        return Original(found="unreadable", reason=f"{path} is not a file")
    if os.path.getsize(path) > MAX_FILE_BYTES:
        return Original(found="unreadable", reason=f"{path} has more than {MAX_FILE_BYTES} bytes")
    try:
        rows = _rows(path)
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        return Original(found="unreadable", reason=f"{path}: {' '.join(str(error).split())}")
    read_rows = [_read_row(key, value) for key, value in rows]
    return Original(
        found="read",
        images=tuple(row for row in read_rows if isinstance(row, OriginalImage)),
        unread=tuple(row for row in read_rows if isinstance(row, Unread)),
    )


def _rows(path: str) -> list[tuple[object, object]]:
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        steps = iter(range(MAX_STEPS))
        connection.set_progress_handler(lambda: next(steps, None) is None, 1_000)
        return connection.execute(_QUERY, (MAX_ROWS,)).fetchall()


def _read_row(key: object, value: object) -> OriginalImage | Unread:
    if not isinstance(key, str):
        return Unread(key=repr(key)[:80], reason="its key is not text")
    shown = key[:80] if key.isprintable() else repr(key)[:80]
    if not isinstance(value, str | bytes):
        return Unread(key=shown, reason="its value is neither text nor bytes")
    if len(value) > MAX_VALUE_BYTES:
        return Unread(key=shown, reason=f"its value is longer than {MAX_VALUE_BYTES} bytes")
    try:
        image = msgspec.json.decode(value, type=OriginalImage)
        names.check_image_id(image.id)
    except msgspec.MsgspecError as error:
        return Unread(key=shown, reason=f"its value is no image: {error}")
    except UnicodeDecodeError:
        return Unread(key=shown, reason="its value is not UTF-8")
    except NotValid:
        return Unread(key=shown, reason="its id cannot be an image's")
    if image.id != key:
        return Unread(key=shown, reason=f"its value is of another image, {image.id}")
    return image
