"""Scripts for clients: random calls, most of which make sense after those before them."""

import random

from msgspec.structs import replace

from imagestore.errors import ImageStoreError
from tests.simulation import expected
from tests.simulation.calls import SHARED, Call, Disk
from tests.simulation.expected import Model
from tests.simulation.network import IMAGES, MISSING

SENSIBLE = 0.85
"""The part of the calls that are drawn again until they should succeed."""

TRIES = 8


def make_script(chance: random.Random, client: int, calls: int) -> tuple[Call, ...]:
    """Calls of one client; the first ones see to it that there are images."""
    image = tuple(IMAGES)[client % len(IMAGES)]
    script = [Call(kind="fetch", name=image)]
    own: Model = {}
    shared: Model = {}
    while len(script) < calls:
        call = _call(chance, client)
        is_shared = call.name == SHARED or call.name.startswith(f"{SHARED}/")
        believed: Model | None = None
        for _ in range(TRIES if chance.random() < SENSIBLE else 1):
            believed = _after(shared if is_shared else own, call)
            if believed is not None:
                break
            again = _call(chance, client)
            if (again.name == SHARED or again.name.startswith(f"{SHARED}/")) == is_shared:
                call = again
        if believed is not None:
            if is_shared:
                shared = believed
            else:
                own = believed
        script.append(_timed(chance, call))
    return tuple(script)


def _after(model: Model, call: Call) -> Model | None:
    """What the client believes then; None if the call makes no sense."""
    if call.kind in {"fetch", "delete-image"}:
        return model
    if call.kind == "write":
        return model if call.name in model else None
    try:
        return expected.after(model, call)
    except ImageStoreError:
        return None


def _timed(chance: random.Random, call: Call) -> Call:
    patience = chance.random() * 0.3 if chance.random() < 0.05 else 0.0
    return replace(
        call,
        pause=chance.choice((0.0, 0.0, 0.01, 0.2)),
        patience=patience,
        keyed=call.kind != "write" and chance.random() < 0.5,
    )


def _call(chance: random.Random, client: int) -> Call:
    draw = chance.random()
    if draw < 0.25:
        return _shared_call(chance)
    if draw < 0.35:
        return _image_call(chance)
    if draw < 0.65:
        return _volume_call(chance, f"c{client}")
    return _guest_call(chance, f"g{client}{chance.choice('ab')}")


def _size(chance: random.Random) -> int:
    return chance.choice((1, 1, 1, 2))


def _snapshot(chance: random.Random) -> str:
    return chance.choice(("s", "t", "u"))


def _shared_call(chance: random.Random) -> Call:
    name = f"{SHARED}/v{chance.randrange(3)}"
    kind = chance.choices(
        ("create", "clone", "delete", "snapshot", "recursive", "unsnapshot", "rollback", "delete-tree"),
        (5, 2, 4, 3, 1, 2, 2, 0.3),
    )[0]
    match kind:
        case "create":
            return Call(kind="create", name=name, size=_size(chance))
        case "clone":
            return Call(kind="clone", name=f"{SHARED}/k{chance.randrange(2)}", argument=_image(chance))
        case "delete":
            return Call(kind="delete", name=chance.choice((name, f"{SHARED}/k{chance.randrange(2)}")))
        case "recursive":
            return Call(kind="snapshot", name=SHARED, argument=_snapshot(chance), flag=True)
        case "rollback":
            return Call(kind="rollback", name=name, argument=_snapshot(chance), flag=chance.random() < 0.7)
        case "delete-tree":
            return Call(kind="delete", name=SHARED)
        case _:
            return Call(kind=kind, name=name, argument=_snapshot(chance))


def _image(chance: random.Random) -> str:
    return chance.choice(tuple(IMAGES))


def _image_call(chance: random.Random) -> Call:
    if chance.random() < 0.7:
        return Call(kind="fetch", name=MISSING if chance.random() < 0.08 else _image(chance))
    return Call(kind="delete-image", name=_image(chance))


def _volume_call(chance: random.Random, place: str) -> Call:
    name = f"{place}/v{chance.randrange(2)}"
    kind = chance.choices(
        ("create", "clone", "delete", "snapshot", "unsnapshot", "rollback", "write", "delete-tree"),
        (6, 3, 2, 4, 1.5, 3, 3, 0.4),
    )[0]
    in_use = chance.random() < 0.06
    match kind:
        case "create":
            return Call(kind="create", name=name, size=_size(chance))
        case "clone":
            return Call(kind="clone", name=name, argument=_image(chance))
        case "delete":
            return Call(kind="delete", name=name, in_use=in_use, force=chance.random() < 0.1)
        case "delete-tree":
            return Call(kind="delete", name=place, in_use=False)
        case "rollback":
            return Call(
                kind="rollback",
                name=name,
                argument=_snapshot(chance),
                flag=chance.random() < 0.7,
                in_use=in_use,
            )
        case "write":
            return Call(kind="write", name=name)
        case _:
            return Call(kind=kind, name=name, argument=_snapshot(chance))


def _guest_call(chance: random.Random, guest: str) -> Call:
    name = f"guests/{guest}"
    kind = chance.choices(
        ("create-guest", "delete-guest", "snapshot", "unsnapshot", "rollback", "write"),
        (5, 1.5, 4, 1.5, 3, 3),
    )[0]
    match kind:
        case "create-guest":
            disks = tuple(
                Disk(image=_image(chance)) if chance.random() < 0.4 else Disk(size=_size(chance))
                for _ in range(chance.choice((1, 2, 2, 3)))
            )
            return Call(kind=kind, name=guest, disks=disks)
        case "delete-guest":
            return Call(kind=kind, name=guest, in_use=chance.random() < 0.06)
        case "write":
            return Call(kind=kind, name=f"{name}/disk-{chance.randrange(2)}")
        case "rollback":
            return Call(kind=kind, name=name, argument=_snapshot(chance), flag=chance.random() < 0.7)
        case _:
            return Call(kind=kind, name=name, argument=_snapshot(chance))
