"""``python -m tests.zfs.crash --rounds N --seed S``: the long crash test on OpenZFS, within the machine."""

import sys

from tests.crash.__main__ import main
from tests.crash.rounds import Course
from tests.zfs.place import zfs_place

COURSE = Course(place=zfs_place, rounds_a_life=10, longest_load_seconds=12.0, answer_seconds=300.0)
"""Everything takes ten times as long in there."""

if __name__ == "__main__":
    sys.exit(main(COURSE))
