"""Sizes as people write and read them: ``512M``, ``10G``, ``1T``; powers of 1024.

The wire counts in MiB, so a size that is no whole number of MiB is refused
here rather than rounded.
"""

import re

import click

from imagestore.model import MIB, U64_MAX
from imagestore.sizes import show_bytes

_UNITS = {"": MIB, "K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE = re.compile(r"([0-9]{1,15})(?:([KMGTP])(?:i?B)?)?\Z", re.IGNORECASE)


def parse_mib(text: str) -> int:
    """MiB of ``10G``, ``512M`` or ``512`` (MiB).

    Raises:
        ValueError: what would be right, in words.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example 512M, 10G or 1T")
    size_bytes = int(match[1]) * _UNITS[(match[2] or "").upper()]
    size_mib, rest = divmod(size_bytes, MIB)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of MiB")
    if size_mib == 0:
        raise ValueError(f"{text!r} is no size for a disk; the least is 1M")
    if size_bytes > U64_MAX:
        raise ValueError(f"{text!r} is more than any disk can hold")
    return size_mib


def show_mib(size_mib: int) -> str:
    """``10G`` of 10240; one decimal where it is not even."""
    return show_bytes(size_mib * MIB)


class SizeType(click.ParamType[int]):
    """A size on the command line, in MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_mib(str(value))
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


SIZE = SizeType()
