"""Identifiers of events and operations: UUID version 7 (RFC 9562).

Owns their making.  Clock and randomness come in as parameters, so a run can be
repeated from its seed.  Identifiers of one maker grow strictly, also when the
clock stands still or steps back; nothing in imagestore derives an order from
that, it only keeps listings pleasant.
"""

import random
import time
from collections.abc import Callable

_COUNTER_LIMIT = 1 << 12
_62_BITS = (1 << 62) - 1
_DRAWN = 64


def uuid7_maker(
    now_ns: Callable[[], int] = time.time_ns, randomness: random.Random | None = None
) -> Callable[[], str]:
    """Return a function that makes one new identifier a call, as canonical text.

    ``now_ns`` tells nanoseconds since 1970.  ``randomness`` is the system's
    unless a seeded one is given.
    """
    bits = (randomness if randomness is not None else random.SystemRandom()).getrandbits
    last_ms = 0
    counter = 0
    pool: list[int] = []

    def new_id() -> str:
        nonlocal last_ms, counter
        if not pool:  # a system call for each would cost more than all the rest
            drawn = bits(62 * _DRAWN)
            pool.extend(drawn >> 62 * place & _62_BITS for place in range(_DRAWN))
        now_ms = now_ns() // 1_000_000
        if now_ms > last_ms:
            last_ms, counter = now_ms, 0
        else:
            counter += 1
            if counter == _COUNTER_LIMIT:
                last_ms, counter = last_ms + 1, 0
        text = f"{last_ms << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | pool.pop():032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    return new_id
