"""A journal on ZFS with sync=disabled is refused, since nothing in it would be durable."""

import logging

import pytest

from imagestore.errors import JournalError
from imagestore.events.filesystem import mount_of, refuse_unsafe

MOUNTINFO = """\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:50 / /tank rw,xattr - zfs tank rw
31 30 0:51 / /tank/my\\040journals rw - zfs tank/my\\040journals rw,xattr
32 22 0:52 / /srv rw - tmpfs tmpfs rw
33 32 0:53 / /srv rw - zfs over/srv rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ("ext4", "/dev/vda1")),
        ("/tankard", ("ext4", "/dev/vda1")),
        ("/tank", ("zfs", "tank")),
        ("/tank/a/b", ("zfs", "tank")),
        ("/tank/my journals/x", ("zfs", "tank/my journals")),
        ("/srv/journal", ("zfs", "over/srv")),
    ],
)
def test_the_innermost_and_last_mount_counts(path: str, found: tuple[str, str]) -> None:
    assert mount_of(MOUNTINFO, path) == found


def test_no_mount_is_no_answer() -> None:
    assert mount_of("", "/x") == ("", "")


def test_sync_disabled_is_refused_with_the_command_that_mends_it() -> None:
    with pytest.raises(JournalError, match="sync=disabled") as caught:
        refuse_unsafe(
            "/tank/j", allow=False, mountinfo=lambda: MOUNTINFO, sync={"tank": "disabled"}.__getitem__
        )
    assert "zfs set sync=standard tank" in caught.value.detail


def test_allowing_it_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    refuse_unsafe("/tank/j", allow=True, mountinfo=lambda: MOUNTINFO, sync=lambda dataset: "disabled")
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


@pytest.mark.parametrize("sync", ["standard", "always", ""])
def test_other_datasets_are_fine(sync: str) -> None:
    refuse_unsafe("/tank/j", allow=False, mountinfo=lambda: MOUNTINFO, sync=lambda dataset: sync)


def test_other_file_systems_are_not_asked() -> None:
    def never(dataset: str) -> str:
        raise AssertionError(dataset)

    refuse_unsafe("/var/lib/j", allow=False, mountinfo=lambda: MOUNTINFO, sync=never)
    refuse_unsafe("/", allow=False, sync=never)
