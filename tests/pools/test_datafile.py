"""Data files: copies with holes, and what changed between two of them."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from imagestore.pools.directory.datafile import (
    DataFiles,
    Extent,
    changed_bytes,
    copy_sparse,
    data_runs,
    nothing,
)

BLOCKS = 24

placements = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=BLOCKS, max_size=BLOCKS)
"""Of each block of a file: where on the disk it lies (in units that make runs likely), or a hole."""


def extents_of(blocks: list[int | None]) -> list[Extent]:
    """One extent a run of blocks that adjoin each other on the disk as well."""
    found: list[Extent] = []
    for index, shift in enumerate(blocks):
        if shift is None:
            continue
        physical = 1000 * shift + index
        last = found[-1] if found else None
        if last and (last.logical + last.length, last.physical + last.length) == (index, physical):
            found[-1] = Extent(last.logical, last.physical, last.length + 1)
        else:
            found.append(Extent(index, physical, 1))
    return found


@given(placements, placements)
def test_changed_bytes_are_those_that_lie_elsewhere(
    before: list[int | None], after: list[int | None]
) -> None:
    expected = sum(new is not None and new != old for old, new in zip(before, after, strict=True))
    assert changed_bytes(extents_of(before), extents_of(after)) == expected


def test_an_extent_of_unknown_place_counts_as_changed() -> None:
    assert changed_bytes([Extent(0, -1, 8)], [Extent(0, -1, 8)]) == 8


def test_a_copy_without_reflinks_keeps_content_and_holes(tmp_path: Path) -> None:
    source, destination = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "ab")
    size = 64 << 20
    os.ftruncate(source, size)
    for offset in (0, 20 << 20, size - 4096):
        os.pwrite(source, b"x" * 4096, offset)
    copy_sparse(source, destination, nothing)
    assert os.fstat(destination).st_size == size
    assert os.fstat(destination).st_blocks == os.fstat(source).st_blocks
    assert list(data_runs(destination, size)) == list(data_runs(source, size))
    for start, end in data_runs(source, size):
        assert os.pread(destination, end - start, start) == os.pread(source, end - start, start)
    os.close(source)
    os.close(destination)


def test_a_file_that_cannot_be_filled_is_gone(tmp_path: Path) -> None:
    files = DataFiles(str(tmp_path), reflink=False, entropy=os.urandom)
    source = files.blank(1 << 20)
    with open(files.path(source), "r+b") as file:
        file.write(b"x")

    def give_up() -> None:
        raise InterruptedError

    try:
        files.copy(source, progress=give_up)
    except InterruptedError:
        assert os.listdir(tmp_path) == [source]
    else:
        raise AssertionError("the copy was not interrupted")
