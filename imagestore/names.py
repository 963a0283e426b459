"""The one place where names are checked.

Inside imagestore a dataset's name is *relative*: it does not begin with the
pool's name, ``""`` is the pool's root, ``guests/vm1/disk-0@monday`` a snapshot.
Whatever passes :func:`parse` cannot leave the pool, cannot be taken for an
option by any command, and is at most 255 bytes long with the pool in front.

The grammar is OpenZFS's (``zfs_namecheck.c``) minus blanks, components that
begin with ``-`` or ``.``, and bookmarks (``#``).  Names that begin with ``.``
are reserved: staging datasets live there.
"""

import re

from imagestore.errors import InvalidArgument, NotValid

MAX_NAME_BYTES = 255
"""Longest full name, pool included (ZFS_MAX_DATASET_NAME_LEN - 1)."""

MAX_DEPTH = 50
"""Most components in a name (zfs_max_dataset_nesting)."""

_COMPONENT = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_:.-]*\Z")
_SNAPSHOT = re.compile(r"[A-Za-z0-9_:.-]+\Z")

IMAGES = "images"
GUESTS = "guests"
STAGING_PREFIX = ".staging-"


def parse(text: str, pool: str) -> str:
    """Return the relative name that ``text`` means in ``pool``.

    ``text`` may be relative or begin with the pool's own name; a caller for
    whom an existing relative name of that spelling wins must look first (see
    :func:`candidates`).

    Raises:
        NotValid: ``text`` cannot be a dataset of this pool.
    """
    dataset, at, snapshot = text.partition("@")
    if at and not _SNAPSHOT.match(snapshot):
        raise NotValid(detail=f"snapshot name {snapshot!r} must match [A-Za-z0-9_:.-]+")
    if dataset == "" and at:
        components: list[str] = []
    else:
        components = dataset.split("/")
    for component in components:
        if not _COMPONENT.match(component):
            raise NotValid(
                detail=f"{component!r} in {text!r} is not a dataset component: letters, digits "
                "and _ : . - are allowed, the first not . or -"
            )
    if len(components) > MAX_DEPTH:
        raise NotValid(detail=f"more than {MAX_DEPTH} components")
    if len(full(text, pool).encode()) > MAX_NAME_BYTES:
        raise NotValid(detail=f"with the pool's name it is over {MAX_NAME_BYTES} bytes long")
    return text


def candidates(text: str, pool: str) -> tuple[str, ...]:
    """The relative names that ``text`` may mean, the first existing one wins.

    ``mistify/images`` means ``images`` of pool ``mistify``, unless there is a
    dataset ``mistify/mistify/images``.

    Raises:
        NotValid: ``text`` cannot be a dataset of this pool.
    """
    if text == pool:
        return ("",) if not _COMPONENT.match(text) else (text, "")
    if text.startswith(f"{pool}@"):
        return parse(text, pool), parse(text[len(pool) :], pool)
    if text.startswith(f"{pool}/"):
        return parse(text, pool), parse(text[len(pool) + 1 :], pool)
    return (parse(text, pool),)


def full(name: str, pool: str) -> str:
    """The name with the pool in front, as answers and commands show it."""
    if name == "":
        return pool
    if name.startswith("@"):
        return pool + name
    return f"{pool}/{name}"


def parent(name: str) -> str:
    """``a/b`` of ``a/b/c`` and of ``a/b@s``; ``""`` of a top-level name."""
    if "@" in name:
        return name.partition("@")[0]
    return name.rpartition("/")[0]


def ancestors(name: str) -> tuple[str, ...]:
    """Every dataset above ``name``, outermost first, without the root."""
    parts = name.split("/")[:-1]
    return tuple("/".join(parts[: i + 1]) for i in range(len(parts)))


def is_within(name: str, subtree: str) -> bool:
    """Whether ``name`` is ``subtree`` or lies below it (its snapshots included)."""
    return subtree == "" or name == subtree or name.startswith((f"{subtree}/", f"{subtree}@"))


def check_image_id(text: str) -> str:
    """Raises NotValid unless ``text`` can be the name of an image."""
    if not _COMPONENT.match(text) or len(text) > 200:
        raise NotValid(
            detail=f"image id {text[:80]!r}: 1 to 200 letters, digits and _ : . -, the first not . or -"
        )
    return text


def check_guest_id(text: str) -> str:
    """Raises InvalidArgument unless ``text`` can be the id of a guest."""
    if not _COMPONENT.match(text) or len(text) > 200:
        raise InvalidArgument(
            detail=f"guest id {text[:80]!r}: 1 to 200 letters, digits and _ : . -, the first not . or -"
        )
    return text


def check_snapshot_dest(text: str) -> str:
    """Raises InvalidArgument unless ``text`` can follow the ``@`` of a snapshot."""
    if not _SNAPSHOT.match(text) or len(text) > 200:
        raise InvalidArgument("invalid snapshot dest", detail="allowed: [A-Za-z0-9_:.-]+")
    return text


def image(image_id: str) -> str:
    return f"{IMAGES}/{image_id}"


def staging(operation: str) -> str:
    """Where the image of a fetch grows until it is whole."""
    return f"{IMAGES}/{STAGING_PREFIX}{operation}"


def guest(guest_id: str) -> str:
    return f"{GUESTS}/{guest_id}"


def disk(guest_id: str, number: int) -> str:
    return f"{GUESTS}/{guest_id}/disk-{number}"
