"""Where an image's body comes from, what it must be, and who turns foreign disk formats into raw ones.

The contract between the fetch queue, which brings bodies into the pool, and
those who decide what may be fetched (registered sources, sums files, the
guard of private addresses, ``qemu-img``).  Plain data and the shapes of
functions; no effects.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from imagestore.streams.signatures import DiskFormat

UPLOAD = "upload:"
"""The source of an image whose body a client sends."""


class Origin(Struct, frozen=True, kw_only=True):
    """An image's source, and what its body must be.

    ``source`` is "" (the image service has it, under the image's own id), an
    ``http://`` or ``https://`` address without credentials, ``file:///`` and
    the absolute path of a regular file on this machine, or UPLOAD.
    ``sha256`` (hex, lower case, "" if unknown) and ``size_bytes`` (0 if
    unknown) are of the body as it is served.
    """

    source: str = ""
    sha256: str = ""
    size_bytes: int = 0

    @property
    def is_service(self) -> bool:
        return not self.source

    @property
    def is_upload(self) -> bool:
        return self.source == UPLOAD


SERVICE = Origin()


class UploadedBody(Protocol):
    """The body of an upload, on its way.  ``content_length`` None: not announced.

    Iterating raises FetchFailed when the client went away before the end.
    """

    content_length: int | None

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]: ...


CheckAddress = Callable[[str, str], None]
"""Told a host as it was named and one of its IP addresses, before anything is sent there, at every
connection and redirect.  Raises FetchFailed if that address may not be asked.  Quick; does not wait."""

Convert = Callable[[str, DiskFormat, str, int | None], Awaitable[None]]
"""Turns the disk image in one file, of a format known by its content, into a raw one in another.

Called with the path of the source, its format, the path of the raw file (there is none yet), and the
most bytes that the raw disk may have (None: any).  Raises ContentRefused for what may not be converted
(backing and data files, damage, a disk over the limit), NoSpace when there is no room.  Does not remove
the files; leaves nothing running when it is cancelled."""
