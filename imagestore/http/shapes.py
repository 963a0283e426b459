"""What a request may look like: the wire's types as one table, and the check against it.

Owns the reading of an object's members into a request of ``imagestore.model``,
as Go's ``encoding/json`` did for the clients that exist: keys match without
regard to case and the last one wins, null is the zero value, unknown members
are ignored, and the first member of a wrong type is named together with the
type that was expected.  A guest alone keeps what it was sent with: members we
do not know stay where they are, known ones get their canonical spelling.

Pure: no I/O, no state.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from imagestore.model import (
    U64_MAX,
    AdoptRequest,
    AliasRequest,
    CollectRequest,
    DriftRequest,
    GuestRequest,
    ImageRequest,
    OperationRequest,
    PlanRequest,
    PublishRequest,
    ReleaseRequest,
    SnapshotRequest,
    SourceRequest,
    TokenRequest,
    VolumeRequest,
)
from imagestore.screen import ExplainRequest, GuestsRequest, SearchRequest, StatusRequest

I64_MAX = (1 << 63) - 1


class WrongType(Exception):
    """A member has a type that its field cannot take; ``str()`` names both."""


class Text(Struct, frozen=True):
    """A string."""

    go: str = "string"


class Flag(Struct, frozen=True):
    """true or false."""

    go: str = "bool"


class Whole(Struct, frozen=True):
    """An integer between ``lowest`` and ``highest``."""

    go: str
    lowest: int
    highest: int


class ListOf(Struct, frozen=True):
    """An array of one kind."""

    element: "Kind"

    @property
    def go(self) -> str:
        return f"[]{self.element.go}"


class MapOf(Struct, frozen=True):
    """An object with any keys and values of one kind."""

    element: "Kind"

    @property
    def go(self) -> str:
        return f"map[string]{self.element.go}"


class Object(Struct, frozen=True):
    """An object with known members.

    ``open`` keeps members that are not known.  ``absent_when_null`` names the
    members that are left out when null, because the store reads them.
    """

    package: str
    name: str
    fields: Mapping[str, "Kind"]
    open: bool = False
    absent_when_null: frozenset[str] = frozenset()

    @property
    def go(self) -> str:
        return f"{self.package}.{self.name}"


Kind = Text | Flag | Whole | ListOf | MapOf | Object

TEXT = Text()
FLAG = Flag()
UINT64 = Whole("uint64", 0, U64_MAX)
UINT = Whole("uint", 0, U64_MAX)
INT = Whole("int", -I64_MAX - 1, I64_MAX)

_DISK_FIELDS: dict[str, Kind] = {
    "bus": TEXT,
    "device": TEXT,
    "size": UINT64,
    "volume": TEXT,
    "image": TEXT,
    "source": TEXT,
}
_NIC_FIELDS: dict[str, Kind] = {
    "name": TEXT,
    "network": TEXT,
    "model": TEXT,
    "mac": TEXT,
    "address": TEXT,
    "netmask": TEXT,
    "gateway": TEXT,
    "device": TEXT,
    "vlans": ListOf(INT),
}
DISK = Object("client", "Disk", _DISK_FIELDS, open=True, absent_when_null=frozenset(_DISK_FIELDS))
NIC = Object("client", "Nic", _NIC_FIELDS, open=True)
GUEST = Object(
    "client",
    "Guest",
    {
        "id": TEXT,
        "type": TEXT,
        "image": TEXT,
        "nics": ListOf(NIC),
        "disks": ListOf(DISK),
        "state": TEXT,
        "memory": UINT,
        "cpu": UINT,
        "vnc": INT,
        "metadata": MapOf(TEXT),
    },
    open=True,
    absent_when_null=frozenset({"id", "disks"}),
)

CHANGE = Object("rpc", "Change", {}, open=True)

RequestType = TypeVar("RequestType", bound=Struct)

REQUESTS: dict[type[Struct], Object] = {
    ImageRequest: Object(
        "rpc",
        "ImageRequest",
        {
            "id": TEXT,
            "type": TEXT,
            "dest": TEXT,
            "source": TEXT,
            "whenUnused": FLAG,
            "sha256": TEXT,
            "sums": TEXT,
            "keyring": TEXT,
        },
    ),
    SourceRequest: Object("rpc", "SourceRequest", {"id": TEXT, "source": TEXT, "sha256": TEXT, "sums": TEXT}),
    AliasRequest: Object("rpc", "AliasRequest", {"alias": TEXT, "id": TEXT}),
    PublishRequest: Object("rpc", "PublishRequest", {"id": TEXT, "snapshot": TEXT, "type": TEXT}),
    CollectRequest: Object("rpc", "CollectRequest", {"unusedSeconds": UINT64, "dryRun": FLAG}),
    VolumeRequest: Object("rpc", "VolumeRequest", {"id": TEXT, "size": UINT64, "force": FLAG, "thick": FLAG}),
    AdoptRequest: Object(
        "rpc",
        "AdoptRequest",
        {
            "id": TEXT,
            "guest": TEXT,
            "disk": INT,
            "image": TEXT,
            "type": TEXT,
            "dryRun": FLAG,
            "force": FLAG,
        },
    ),
    ReleaseRequest: Object("rpc", "ReleaseRequest", {"id": TEXT, "dryRun": FLAG}),
    SnapshotRequest: Object(
        "rpc",
        "SnapshotRequest",
        {
            "id": TEXT,
            "from": TEXT,
            "dest": TEXT,
            "recursive": FLAG,
            "destroyMoreRecent": FLAG,
            "force": FLAG,
        },
    ),
    GuestRequest: Object(
        "rpc", "GuestRequest", {"guest": GUEST, "action": TEXT, "args": MapOf(TEXT), "force": FLAG}
    ),
    PlanRequest: Object("rpc", "PlanRequest", {"method": TEXT, "request": CHANGE}),
    DriftRequest: Object("rpc", "DriftRequest", {}),
    TokenRequest: Object("rpc", "TokenRequest", {"name": TEXT, "role": TEXT, "expiresSeconds": UINT64}),
    StatusRequest: Object("rpc", "StatusRequest", {}),
    GuestsRequest: Object("rpc", "GuestsRequest", {"id": TEXT, "after": TEXT, "limit": UINT64}),
    ExplainRequest: Object("rpc", "ExplainRequest", {"id": TEXT}),
    SearchRequest: Object(
        "rpc",
        "SearchRequest",
        {
            "text": TEXT,
            "dataset": TEXT,
            "guest": TEXT,
            "image": TEXT,
            "who": TEXT,
            "operation": TEXT,
            "type": TEXT,
            "since": TEXT,
            "before": UINT64,
            "limit": UINT64,
        },
    ),
    OperationRequest: Object(
        "rpc",
        "OperationRequest",
        {
            "id": TEXT,
            "who": TEXT,
            "dataset": TEXT,
            "of": TEXT,
            "status": TEXT,
            "since": TEXT,
            "before": UINT64,
            "limit": UINT64,
            "timeout": UINT64,
        },
    ),
}

_FOLDED: dict[int, dict[str, str]] = {
    id(kind): {name.casefold(): name for name in kind.fields}
    for kind in (DISK, NIC, GUEST, CHANGE, *REQUESTS.values())
}


def read_request(value: object, request: type[RequestType]) -> RequestType:
    """``value``, as :func:`json_text.value` read it, as a request; null is the empty one.

    Raises:
        WrongType: naming the field and the type expected.
    """
    kind = REQUESTS[request]
    if value is None:
        return request()
    if not isinstance(value, dict):
        raise WrongType(f"json: cannot unmarshal {describe(value)} into Go value of type {kind.go}")
    return msgspec.convert(_read_members(value, kind, ""), request)


def describe(value: object) -> str:
    """A value's kind in Go's words."""
    match value:
        case bool():
            return "bool"
        case None:
            return "null"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "number"


def _read_members(value: dict[str, object], kind: Object, path: str) -> dict[str, object]:
    read: dict[str, object] = {}
    folded = _FOLDED[id(kind)]
    for key, member in value.items():
        name = key if key in kind.fields else folded.get(key.casefold())
        if name is None:
            if kind.open:
                read[key] = member
        elif member is None:
            if kind.open and name not in kind.absent_when_null:
                read[name] = None
        else:
            read[name] = _read(member, kind.fields[name], kind, f"{path}.{name}" if path else name)
    return read


def _read(value: object, kind: Kind, owner: Object, path: str) -> object:
    """``value`` as ``kind`` takes it.  ``owner`` and ``path`` say where it stands."""
    match kind, value:
        case (Text(), str()) | (Flag(), bool()):
            return value
        case Whole(), int() if not isinstance(value, bool):
            if kind.lowest <= value <= kind.highest:
                return value
            raise _wrong(f"number {value}", kind, owner, path)
        case Whole(), Raw():
            raise _wrong(f"number {bytes(value).decode()}", kind, owner, path)
        case ListOf(), list():
            return [_read_element(element, kind.element, owner, path) for element in value]
        case MapOf(), dict():
            return {key: _read_element(element, kind.element, owner, path) for key, element in value.items()}
        case Object(), dict():
            return _read_members(value, kind, path)
        case _:
            raise _wrong(describe(value), kind, owner, path)


def _read_element(value: object, kind: Kind, owner: Object, path: str) -> object:
    if value is not None:
        return _read(value, kind, owner, path)
    match kind:
        case Text():
            return ""
        case Flag():
            return False
        case Whole():
            return 0
        case ListOf():
            return []
        case MapOf() | Object():
            return {}


def _wrong(described: str, kind: Kind, owner: Object, path: str) -> WrongType:
    return WrongType(
        f"json: cannot unmarshal {described} into Go struct field {owner.name}.{path} of type {kind.go}"
    )
