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


def uuid7_maker(
    now_ns: Callable[[], int] = time.time_ns, randomness: random.Random | None = None
) -> Callable[[], str]:
    """Return a function that makes one new identifier a call, as canonical text.

    ``now_ns`` tells nanoseconds since 1970.  ``randomness`` is a generator of its
    own, seeded by the system, unless one is given: an identifier is no secret,
    and a system call for each would cost more than all the rest.
    """
    bits = (randomness if randomness is not None else random.Random()).getrandbits  # noqa: S311 (no secret)
    last_ms = -1
    counter = 0

    def new_id() -> str:
        nonlocal last_ms, counter
        now_ms = now_ns() // 1_000_000
        counter += 1
        if now_ms > last_ms or counter == _COUNTER_LIMIT:
            last_ms, counter = max(now_ms, last_ms + 1), 0
        version_and_counter, variant_and_chance = 7 << 12 | counter, 2 << 62 | bits(62)
        text = (last_ms << 80 | version_and_counter << 64 | variant_and_chance).to_bytes(16).hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    return new_id
