"""Identifiers of events and operations: UUID version 7 (RFC 9562).

Owns their making.  Clock and randomness come in as parameters, so a run can be
repeated from its seed.  Identifiers of one maker grow strictly, also when the
clock stands still or steps back; nothing in imagestore derives an order from
that, it only keeps listings pleasant.
"""

import random
import time
from collections.abc import Callable, Iterator

_COUNTER_LIMIT = 1 << 12
_DRAWN = 64


def uuid7_maker(
    now_ns: Callable[[], int] = time.time_ns, randomness: random.Random | None = None
) -> Callable[[], str]:
    """Return a function that makes one new identifier a call, as canonical text.

    ``now_ns`` tells nanoseconds since 1970.  ``randomness`` is the system's
    unless a seeded one is given.
    """
    bits = (randomness if randomness is not None else random.SystemRandom()).getrandbits
    last_ms = -1
    counter = 0
    prefix = ""
    endings: list[str] = []

    def new_id() -> str:
        nonlocal last_ms, counter, prefix
        now_ms = now_ns() // 1_000_000
        counter += 1
        if now_ms > last_ms or counter == _COUNTER_LIMIT:
            last_ms, counter = max(now_ms, last_ms + 1), 0
            prefix = f"{last_ms >> 16:08x}-{last_ms & 0xFFFF:04x}-7"
        if not endings:  # a system call for each would cost more than all the rest
            endings.extend(_endings(bits(64 * _DRAWN)))
        return f"{prefix}{counter:03x}{endings.pop()}"

    return new_id


def _endings(drawn: int) -> Iterator[str]:
    """The last two groups of identifiers: the variant, then nothing but chance."""
    for place in range(_DRAWN):
        chance = drawn >> 64 * place
        yield f"-{0x8000 | chance >> 48 & 0x3FFF:04x}-{chance & 0xFFFF_FFFF_FFFF:012x}"
