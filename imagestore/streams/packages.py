"""What a package's header says: which snapshots of which dataset it means to carry.

A package (``zfs send -R``, ``-I``, ``-p``) opens with a BEGIN of its own whose
payload, if it has one, is a name-value list.  This module knows the names in
it; ``nvlist`` knows the bytes, ``checker`` the order of streams.
"""

from msgspec import Struct

from imagestore.errors import StreamError
from imagestore.streams import nvlist
from imagestore.streams.nvlist import NvList, NvValue
from imagestore.streams.records import Begin
from imagestore.streams.rules import parse_name


class PackageHeader(Struct, frozen=True, kw_only=True, gc=False):
    """``name`` is the package's own, of its last snapshot; ``tosnap``/``fromsnap`` as the sender was asked.

    ``snapshots`` maps guids to snapshot names, ``properties`` are the
    dataset's; both empty when the header has no payload (a bare ``-I``).
    """

    name: str
    fromsnap: str = ""
    tosnap: str = ""
    snapshots: dict[int, str] = {}
    properties: dict[str, str] = {}
    features: int = 0

    def check_member(self, guid: int) -> None:
        """Raises StreamError if the header lists snapshots and ``guid`` is none of them."""
        if self.snapshots and guid not in self.snapshots:
            raise StreamError(f"the package's header does not list the snapshot with guid {guid}")


def parse_header(begin: Begin, payload: memoryview) -> PackageHeader:
    """The header that a package's BEGIN and its payload make.

    Raises:
        StreamError: malformed, or of several datasets.
    """
    name = parse_name(begin.toname)
    if not len(payload):
        return PackageHeader(name=name, features=begin.features)
    pairs = nvlist.decode(payload)
    datasets = _list(pairs, "fss")
    if len(datasets) != 1:
        raise StreamError(f"the package is of {len(datasets)} datasets; one volume is accepted")
    dataset = _as_list(next(iter(datasets.values())), "fss")
    return PackageHeader(
        name=name,
        fromsnap=_text(pairs, "fromsnap"),
        tosnap=_text(pairs, "tosnap"),
        snapshots={_guid(guid): snapshot for snapshot, guid in _list(dataset, "snaps").items()},
        properties={key: str(value) for key, value in _list(dataset, "props").items()},
        features=begin.features,
    )


def encode_header(
    *,
    dataset: str,
    dataset_guid: int,
    snapshots: dict[str, int],
    tosnap: str,
    fromsnap: str,
    parent_guid: int,
) -> bytes:
    """The payload of a package of one dataset's ``snapshots`` (name: guid)."""
    header: NvList = {}
    if fromsnap:
        header["fromsnap"] = fromsnap
    header["tosnap"] = tosnap
    header["not_recursive"] = None
    inner: NvList = {
        "name": dataset,
        "parentfromsnap": parent_guid,
        "props": {},
        "snaps": dict(snapshots),
        "snapprops": {name: {} for name in snapshots},
    }
    header["fss"] = {f"0x{dataset_guid:x}": inner}
    return nvlist.encode(header)


def _as_list(value: NvValue, name: str) -> NvList:
    if not isinstance(value, dict):
        raise StreamError(f"{name!r} of the package's header is no list")
    return value


def _list(pairs: NvList, name: str) -> NvList:
    return _as_list(pairs.get(name, {}), name)


def _text(pairs: NvList, name: str) -> str:
    value = pairs.get(name, "")
    if not isinstance(value, str):
        raise StreamError(f"{name!r} of the package's header is no string")
    return value


def _guid(value: NvValue) -> int:
    if not isinstance(value, int) or not value:
        raise StreamError("a snapshot in the package's header has no guid")
    return value
