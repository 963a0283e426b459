"""What a client's own part of the pool must look like: a model, changed by pure functions.

A call gives the model after it, or the error with which it must be refused.
An interrupted call leaves the one before it or the one after it; there is
nothing between.  What depends on an image, which everybody works on, may go
either way.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    InUse,
    Modified,
    NewerSnapshots,
    NotFound,
)
from tests.simulation import streamed
from tests.simulation.calls import Call
from tests.simulation.network import IMAGES, TOKEN_BYTES

MIB = 1 << 20
BLANK = bytes(TOKEN_BYTES)


class Thing(Struct, frozen=True):
    """A file system (``size`` 0) or a volume. Snapshots, oldest first: name and content."""

    size: int = 0
    origin: str = ""
    content: bytes = BLANK
    snapshots: tuple[tuple[str, bytes], ...] = ()


Model = Mapping[str, Thing]
FILESYSTEM = Thing()


def after(model: Model, call: Call) -> Model:
    """The model once ``call`` was carried out. Raises the error that it must be refused with."""
    match call.kind:
        case "create":
            return _with_volume(model, call.name, Thing(size=call.size * MIB))
        case "clone":
            return _with_volume(model, call.name, _clone(call.argument))
        case "create-guest":
            for number, disk in enumerate(call.disks):
                wanted = _clone(disk.image) if disk.image else Thing(size=disk.size * MIB)
                model = _with_volume(model, names.disk(call.name, number), wanted)
            return model
        case "receive":
            return _received(model, call)
        case "delete":
            return _deleted(_required(model, call.name), call.name, call)
        case "delete-guest":
            return _deleted(model, names.guest(call.name), call)
        case "snapshot":
            return _snapshotted(_required(model, call.name), call)
        case "unsnapshot":
            return _unsnapshotted(_with_snapshot(model, call), call)
        case "rollback":
            return _rolled_back(_with_snapshot(model, call), call)
        case _:
            raise AssertionError(call.kind)


def needs_image(call: Call) -> bool:
    return call.kind == "clone" or any(disk.image for disk in call.disks)


def is_refusal(error: ImageStoreError, call: Call, model: Model) -> bool:
    """Whether ``error`` is what the model says."""
    try:
        after(model, call)
    except ImageStoreError as expected:
        return isinstance(error, type(expected))
    return False


def _clone(image: str) -> Thing:
    served = IMAGES[image]
    return Thing(size=len(served.raw), origin=image, content=served.token)


def _with_volume(model: Model, name: str, wanted: Thing) -> Model:
    there = model.get(name)
    if there is not None:
        if there.origin != wanted.origin or (not wanted.origin and there.size != wanted.size):
            raise AlreadyExists
        return model
    parents = [above for above in names.ancestors(name) if above != names.GUESTS]
    return {**dict.fromkeys(parents, FILESYSTEM), **model, name: wanted}


def _received(model: Model, call: Call) -> Model:
    """A stream: of a whole volume, or onto the newest snapshot, which must be what it is from."""
    came = (call.argument, streamed.CONTENTS[call.argument])
    thing = model.get(call.name)
    if call.argument == streamed.FULL:
        if thing is not None:
            raise AlreadyExists
        return _with_volume(model, call.name, Thing(streamed.SIZE_BYTES, "", came[1], (came,)))
    if thing is None:
        raise NotFound
    base = (streamed.FULL, streamed.CONTENTS[streamed.FULL])
    if not thing.snapshots or thing.snapshots[-1] != base:
        raise Blocked("its newest snapshot is another")
    if thing.content != base[1]:
        raise Modified("it was written")
    return {**model, call.name: replace(thing, content=came[1], snapshots=(*thing.snapshots, came))}


def _required(model: Model, name: str) -> Model:
    if name not in model:
        raise NotFound
    return model


def under(model: Model, name: str) -> list[str]:
    return [other for other in model if names.is_within(other, name)]


def _is_whole(call: Call) -> bool:
    """A guest, or recursive: all below it is meant."""
    return names.parent(call.name) == names.GUESTS


def _targets(model: Model, call: Call) -> list[str]:
    return under(model, call.name) if _is_whole(call) else [call.name]


def _deleted(model: Model, name: str, call: Call) -> Model:
    doomed = set(under(model, name))
    if call.in_use and not call.force and any(model[each].size for each in doomed):
        raise InUse("in use")
    return {each: thing for each, thing in model.items() if each not in doomed}


def _snapshotted(model: Model, call: Call) -> Model:
    taken = {}
    for name in _targets(model, call):
        thing = model[name]
        if call.argument in dict(thing.snapshots):
            raise AlreadyExists
        taken[name] = replace(thing, snapshots=(*thing.snapshots, (call.argument, thing.content)))
    return {**model, **taken}


def _with_snapshot(model: Model, call: Call) -> Model:
    if call.name not in model or call.argument not in dict(model[call.name].snapshots):
        raise NotFound
    return model


def _unsnapshotted(model: Model, call: Call) -> Model:
    less = {}
    for name in _targets(model, call):
        thing = model[name]
        less[name] = replace(thing, snapshots=tuple(s for s in thing.snapshots if s[0] != call.argument))
    return {**model, **less}


def _rolled_back(model: Model, call: Call) -> Model:
    volumes = [name for name in _targets(model, call) if model[name].size]
    if any(call.argument not in dict(model[name].snapshots) for name in volumes):
        raise Blocked("not all are covered")
    changed = {}
    for name in {**dict.fromkeys(volumes), call.name: None}:
        thing = model[name]
        place = [snapshot for snapshot, _ in thing.snapshots].index(call.argument)
        kept = thing.snapshots[: place + 1]
        if len(kept) < len(thing.snapshots) and not call.flag:
            raise NewerSnapshots("there are newer ones")
        content = kept[-1][1] if thing.size else thing.content
        changed[name] = replace(thing, snapshots=kept, content=content)
    if call.in_use and not call.force and volumes:
        raise InUse("in use")
    return {**model, **changed}


def written(model: Model, name: str, content: bytes) -> Model:
    return {**model, name: replace(model[name], content=content)}
