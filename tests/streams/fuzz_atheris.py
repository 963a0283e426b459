"""``python -m tests.streams.fuzz_atheris [CORPUS…] [-runs=N]``: coverage-guided fuzzing.

Needs atheris, which is no dependency: ``pip install atheris``.  The first byte
of an input chooses what is done with the rest: fed as it is, sealed again
record by record, or decoded as a body.
"""

import sys

import atheris  # type: ignore[import-untyped, unused-ignore]  # no dependency: installed for this run

with atheris.instrument_imports(include=["imagestore"]):
    from tests.streams.fuzzing import apply_any, decode_any, fitted, guard_any, seeds

from tests.streams import building


def one_input(data: bytes) -> None:
    """Whatever the bytes, nothing but the expected errors."""
    if not data:
        return
    mode, rest = data[0] % 4, data[1:]
    if mode == 0:
        apply_any(rest, [1 << 20])
    elif mode == 1:
        decode_any(rest, [977])
    else:
        sealed = building.stream([fitted(record) for record in records_of(rest)])
        guarded = guard_any(sealed, [1 << 20])
        assert guarded in (apply_any(sealed, [313]), ("refused",))


def records_of(data: bytes) -> list[building.Record]:
    """A seed, with header fields overwritten: five bytes each (record, place, three of value)."""
    records = list(seeds()[data[0] % len(seeds())]) if data else []
    for at in range(1, len(data) - 4, 5):
        number, place = data[at] % len(records), data[at + 1] % 35 * 8
        header, payload = records[number]
        value = int.from_bytes(data[at + 2 : at + 5], "little") << (data[at + 1] % 6 * 8)
        changed = header[:place] + value.to_bytes(8, "little") + header[place + 8 :]
        records[number] = changed, payload
    return records


def main() -> None:
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
