"""Scripts for clients: random calls, most of which make sense after those before them."""

import random

from msgspec.structs import replace

from imagestore.errors import ImageStoreError, InUse
from tests.simulation import expected
from tests.simulation.calls import SHARED, Call, Disk
from tests.simulation.expected import Model
from tests.simulation.network import IMAGES, MISSING
from tests.simulation.streamed import FULL, INCREMENT

SENSIBLE = 0.85
"""The part of the calls that are drawn again until they should succeed."""

STUBBORN = 0.95
"""So often a call that makes no sense whatever is named in it is not made after all."""

TRIES = 12


Weights = tuple[tuple[str, float], ...]

AREAS: Weights = (("shared", 25), ("images", 9), ("received", 6), ("volumes", 30), ("guests", 30))

KINDS: dict[str, Weights] = {
    "shared": (
        ("create", 5),
        ("clone", 2),
        ("delete", 4),
        ("snapshot", 3),
        ("recursive", 1),
        ("unsnapshot", 2),
        ("rollback", 2),
        ("delete-all", 0.3),
    ),
    "images": (("fetch", 7), ("delete-image", 2), ("cancel", 1)),
    "received": (("receive", 6), ("delete", 1), ("snapshot", 1), ("rollback", 2), ("write", 1)),
    "volumes": (
        ("create", 4),
        ("clone", 3),
        ("delete", 2),
        ("snapshot", 4),
        ("unsnapshot", 2),
        ("rollback", 4),
        ("write", 4),
        ("delete-all", 0.4),
    ),
    "guests": (
        ("create-guest", 4),
        ("delete-guest", 1.5),
        ("snapshot", 4),
        ("unsnapshot", 2),
        ("rollback", 4),
        ("write", 4),
    ),
}


def make_script(chance: random.Random, client: int, calls: int) -> tuple[Call, ...]:
    """Calls of one client; the first one sees to it that there is an image."""
    script = [Call(kind="fetch", name=tuple(IMAGES)[client % len(IMAGES)])]
    believed: dict[bool, Model] = {True: {}, False: {}}
    """What the client believes of what is everybody's, and of its own."""
    while len(script) < calls:
        area = _chosen(chance, AREAS)
        kind = _chosen(chance, KINDS[area])
        is_shared = area == "shared"
        for _ in range(TRIES if chance.random() < SENSIBLE else 1):
            call = _call(chance, client, area, kind)
            after = _after(believed[is_shared], call)
            if after is not None:
                believed[is_shared] = after
                script.append(_timed(chance, call))
                break
        else:
            if chance.random() > STUBBORN:
                script.append(_timed(chance, _call(chance, client, area, kind)))
    return tuple(script)


def _chosen(chance: random.Random, weights: Weights) -> str:
    return chance.choices([name for name, _ in weights], [weight for _, weight in weights])[0]


def _after(model: Model, call: Call) -> Model | None:
    """What the client believes then; None if the call makes no sense. That a disk is open makes sense."""
    if call.kind in {"fetch", "delete-image", "cancel"}:
        return model
    if call.kind == "write":
        return model if call.name in model else None
    try:
        return expected.after(model, call)
    except InUse:
        return model
    except ImageStoreError:
        return None


def _timed(chance: random.Random, call: Call) -> Call:
    return replace(
        call,
        pause=chance.choice((0.0, 0.0, 0.01, 0.2)),
        patience=chance.random() * 0.3 if chance.random() < 0.05 else 0.0,
        keyed=call.kind not in {"write", "receive", "cancel"} and chance.random() < 0.5,
    )


def _call(chance: random.Random, client: int, area: str, kind: str) -> Call:
    match area:
        case "shared":
            return _shared_call(chance, kind)
        case "images":
            is_missing = kind == "fetch" and chance.random() < 0.08
            return Call(kind=kind, name=MISSING if is_missing else _image(chance))
        case "received":
            snapshots = (FULL, INCREMENT) if kind == "receive" else (FULL, INCREMENT, "s")
            name = f"c{client}/r{chance.randrange(2)}"
            return Call(kind=kind, name=name, argument=chance.choice(snapshots), flag=True)
        case "volumes":
            return _volume_call(chance, client, kind)
        case _:
            return _guest_call(chance, client, kind)


def _size(chance: random.Random) -> int:
    return chance.choice((1, 1, 1, 2))


def _snapshot(chance: random.Random) -> str:
    return chance.choice(("s", "s", "t", "t", "u"))


def _image(chance: random.Random, client: int | None = None) -> str:
    """Mostly the one that the client has fetched itself."""
    images = tuple(IMAGES)
    if client is not None and chance.random() < 0.8:
        return images[client % len(images)]
    return chance.choice(images)


def _shared_call(chance: random.Random, kind: str) -> Call:
    name = f"{SHARED}/v{chance.randrange(3)}"
    clone = f"{SHARED}/k{chance.randrange(2)}"
    match kind:
        case "clone":
            return Call(kind=kind, name=clone, argument=_image(chance))
        case "delete":
            return Call(kind=kind, name=chance.choice((name, clone)))
        case "recursive":
            return Call(kind="snapshot", name=SHARED, argument=_snapshot(chance), flag=True)
        case "delete-all":
            return Call(kind="delete", name=SHARED)
        case _:
            return _disk_call(chance, name, kind)


def _volume_call(chance: random.Random, client: int, kind: str) -> Call:
    place = f"c{client}"
    name = f"{place}/v{chance.randrange(2)}"
    match kind:
        case "clone":
            return Call(kind=kind, name=name, argument=_image(chance, client))
        case "delete":
            return Call(kind=kind, name=name, in_use=chance.random() < 0.06, force=chance.random() < 0.1)
        case "delete-all":
            return Call(kind="delete", name=place)
        case _:
            return _disk_call(chance, name, kind)


def _guest_call(chance: random.Random, client: int, kind: str) -> Call:
    guest = f"g{client}{chance.choice('ab')}"
    name = f"guests/{guest}"
    match kind:
        case "create-guest":
            disks = tuple(
                Disk(image=_image(chance, client)) if chance.random() < 0.3 else Disk(size=_size(chance))
                for _ in range(chance.choice((1, 2, 2, 3)))
            )
            return Call(kind=kind, name=guest, disks=disks)
        case "delete-guest":
            return Call(kind=kind, name=guest, in_use=chance.random() < 0.06)
        case "write":
            return Call(kind=kind, name=f"{name}/disk-{chance.randrange(2)}")
        case _:
            return _disk_call(chance, name, kind)


def _disk_call(chance: random.Random, name: str, kind: str) -> Call:
    match kind:
        case "create":
            return Call(kind=kind, name=name, size=_size(chance))
        case "write":
            return Call(kind=kind, name=name)
        case "rollback":
            in_use = chance.random() < 0.06
            destroys = chance.random() < 0.6
            return Call(kind=kind, name=name, argument=_snapshot(chance), flag=destroys, in_use=in_use)
        case _:
            return Call(kind=kind, name=name, argument=_snapshot(chance))
