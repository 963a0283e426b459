"""Makes a disk image of send streams: ``imagestore stream extract``.

A full stream, then any number of incremental ones in order, become one raw
file, or a qcow2 by ``qemu-img``.  The output appears whole or not at all.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Final, Literal

from imagestore.errors import ImageStoreError, InvalidArgument, StreamError
from imagestore.streams.applier import StreamApplier
from imagestore.streams.landing import landing, opened, stream_pieces
from imagestore.streams.snapshot import SnapshotInfo

Format = Literal["raw", "qcow2"]

_ERROR_BYTES: Final = 400


class ConversionFailed(ImageStoreError):
    """``qemu-img`` is missing or failed."""


def extract(
    streams: Sequence[str],
    output: str,
    *,
    output_format: Format = "raw",
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[SnapshotInfo, ...]:
    """Apply ``streams`` (paths, ``-`` for standard input; plain or gzipped), write the volume to ``output``.

    ``progress`` is told how many bytes of streams were taken so far.  Returns
    the snapshots, oldest first; the output holds the last one's content.

    Raises:
        StreamError, ContentRefused: a stream is damaged, refused, or does not follow the one before.
        AlreadyExists: ``output`` exists and ``overwrite`` is false.
        NotFound: a stream, or the output's directory, does not exist.
        ConversionFailed: ``qemu-img`` is missing or failed.
    """
    if not streams:
        raise InvalidArgument("name at least one stream")
    converter = _find_converter() if output_format == "qcow2" else ""
    with landing(output, overwrite=overwrite) as path:
        with opened(path, os.O_RDWR) as fd:
            snapshots = _apply(fd, streams, progress or (lambda count: None))
        if output_format == "qcow2":
            _convert(converter, path)
    return snapshots


def _apply(fd: int, streams: Sequence[str], progress: Callable[[int], None]) -> tuple[SnapshotInfo, ...]:
    snapshots: tuple[SnapshotInfo, ...] = ()
    taken = 0
    for stream in streams:
        applier = StreamApplier(fd, base=snapshots[-1] if snapshots else None)
        try:
            with opened(stream) as source:
                for piece in stream_pieces(source):
                    applier.feed(piece)
                    taken += len(piece)
                    progress(taken)
            snapshots += applier.finish().snapshots
        except StreamError as error:
            raise StreamError(f"{stream}: {error}", detail=error.detail) from error
    return snapshots


def _find_converter() -> str:
    path = shutil.which("qemu-img")
    if path is None:
        raise ConversionFailed(
            "qcow2 output needs qemu-img, which is not installed",
            detail="install qemu-utils, or extract to raw",
        )
    return path


def _convert(converter: str, path: str) -> None:
    """Replace the raw file at ``path`` by its qcow2 form."""
    converted = f"{path}.qcow2"
    command = [converter, "convert", "-f", "raw", "-O", "qcow2", "--", path, converted]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 (fixed program, no shell)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[:_ERROR_BYTES]
            raise ConversionFailed(f"qemu-img failed: {said or f'exit status {done.returncode}'}")
        os.chmod(converted, os.stat(path).st_mode)
        os.replace(converted, path)
    finally:
        if os.path.lexists(converted):
            os.unlink(converted)
