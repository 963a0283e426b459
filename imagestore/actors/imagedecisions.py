"""The life of images, judged: deleted at once or when unused, revived, published, named, collected.

Pure functions of (command, state, view), like those of
:mod:`imagestore.actors.decisions`, which asks these.  Three rules hold the rest together:

* An image is deleted only when nothing leans on it: no clone, and no alias,
  whose name would mean something else the next time that it is asked for.
* A *retired* image (``DeleteImage`` when unused) is hidden from requests but for
  one that asks for it again; whatever was made of it goes on as before.
* No alias is an image's id, so that a name never means two images.
"""

from imagestore import names
from imagestore.actors.commands import (
    DeleteImage,
    PublishImage,
    ReapImage,
    RemoveAlias,
    ReviveImage,
    SetAlias,
)
from imagestore.actors.plans import Plan, Settled, check_no_clones, complete_image, dataset_id, existing, ids
from imagestore.actors.view import View
from imagestore.errors import AlreadyExists, Blocked, NotFound, NotSnapshot, NotVolume
from imagestore.events.catalogue import (
    AliasRemoved,
    AliasSet,
    DestroyIntent,
    ImageRetired,
    ImageRevived,
    NoteIntent,
    PublishIntent,
)
from imagestore.events.state import ImageRecord, State
from imagestore.pools.base import Dataset

# --- reading ---------------------------------------------------------------------


def image_named(text: str, state: State) -> str:
    """The id of the image that ``text``, an id or an alias, means; ``text`` if neither is known."""
    return text if text in state.images else state.aliases.get(text, text)


def aliases_of(image: str, state: State) -> list[str]:
    """Sorted."""
    return sorted(alias for alias, named in state.aliases.items() if named == image)


def clones_of(record: ImageRecord, view: View) -> list[str]:
    """Names of the volumes that are clones of an image, sorted."""
    if record.volume is None:
        return []
    return sorted(clone for row in view.snapshots(record.volume.name) for clone in view.clones(row.name))


def check_not_retired(image: str, state: State) -> None:
    """Raises NotFound for an image of which nothing new is to be made."""
    if image in state.retired:
        raise NotFound(
            detail=f"image {image} is to be deleted when its last clone goes; request it again to keep it"
        )


def check_free_id(image: str, state: State) -> None:
    """Raises AlreadyExists when an alias has the name that a new image is to have."""
    if image in state.aliases:
        raise AlreadyExists(f"alias already exists: {image}", detail=f"it names {state.aliases[image]}")


# --- deleting ----------------------------------------------------------------------


def delete_image(command: DeleteImage, state: State, view: View) -> Settled | Plan:
    record = state.images.get(command.image)
    if record is None:
        raise NotFound(detail=f"image {command.image}")
    if record.status == "pending":
        raise Blocked(f"image is being fetched: {command.image}", detail="wait until the fetch has ended")
    aliases = aliases_of(command.image, state)
    if aliases:
        raise Blocked(
            f"image has aliases: {', '.join(aliases)}", blockers=aliases, detail="remove or move them first"
        )
    if not command.when_unused or not clones_of(record, view):
        return _deletion(record, state, view)
    if command.image in state.retired:
        return Settled()
    return Plan(
        method="DeleteImage",
        subject=names.image(command.image),
        intent=NoteIntent(fact=ImageRetired(image=command.image)),
    )


def _deletion(record: ImageRecord, state: State, view: View, cause: str = "") -> Plan:
    """Destroy what the image consists of. Raises HasClones."""
    doomed: tuple[Dataset, ...] = ()
    volume = view.get(names.image(record.id))
    if volume is not None and (
        dataset_id(volume) == record.volume
        or state.owned(volume.name, volume.guid, volume.createtxg) is not None
    ):
        doomed = tuple(view.under(volume.name))
        check_no_clones(doomed, view, "image")
    return Plan(
        method="DeleteImage",
        subject=names.image(record.id),
        intent=DestroyIntent(datasets=ids(doomed), image=record.id),
        gone=doomed[:1],
        cause=cause,
    )


def is_due(image: str, state: State, view: View) -> bool:
    """Whether a retired image has no clone any more."""
    record = state.images.get(image)
    return image in state.retired and record is not None and not clones_of(record, view)


def reap_image(command: ReapImage, state: State, view: View) -> Settled | Plan:
    if not is_due(command.image, state, view):
        return Settled()
    record = state.images[command.image]
    return _deletion(record, state, view, cause=state.retired[command.image])


def revive_image(command: ReviveImage, state: State, view: View) -> Settled | Plan:
    if command.image not in state.retired or complete_image(command.image, state, view) is None:
        return Settled()
    return Plan(
        method="RequestImage",
        subject=names.image(command.image),
        intent=NoteIntent(fact=ImageRevived(image=command.image)),
    )


# --- publishing --------------------------------------------------------------------


def publish_image(command: PublishImage, state: State, view: View) -> Settled | Plan:
    row = existing(command.snapshot, state, view)
    if row.kind != "snapshot":
        raise NotSnapshot(detail=f"{row.name} is a {row.kind}")
    if not row.volsize:
        raise NotVolume(detail=f"{row.name} is a file system's snapshot; an image is one disk")
    check_free_id(command.image, state)
    record = state.images.get(command.image)
    if record is not None and record.status == "pending":
        raise Blocked(f"image is being fetched: {command.image}", detail="wait until the fetch has ended")
    whole = complete_image(command.image, state, view)
    if whole is not None and record is not None and command.image not in state.retired:
        if record.published == dataset_id(row):
            return Settled(rows=(whole.volume,))
        raise AlreadyExists.named(whole.volume.name, detail="delete the image first, or take another id")
    if names.image(command.image) in view:
        raise AlreadyExists.named(names.image(command.image))
    return Plan(
        method="PublishImage",
        subject=names.image(command.image),
        intent=PublishIntent(
            image=command.image,
            snapshot=dataset_id(row),
            type=command.type,
        ),
        reserve_bytes=row.referenced,
        answer=(names.image(command.image),),
    )


# --- aliases -----------------------------------------------------------------------


def set_alias(command: SetAlias, state: State, view: View) -> Settled | Plan:
    if complete_image(command.image, state, view) is None:
        raise NotFound(detail=f"image {command.image}: an alias names an image that is complete")
    check_not_retired(command.image, state)
    if command.alias in state.images or names.image(command.alias) in view:
        raise AlreadyExists(f"image already exists: {command.alias}", detail="an alias is no image's id")
    if state.aliases.get(command.alias) == command.image:
        return Settled()
    fact = AliasSet(alias=command.alias, image=command.image)
    return Plan(method="SetImageAlias", subject=names.image(command.image), intent=NoteIntent(fact=fact))


def remove_alias(command: RemoveAlias, state: State) -> Plan:
    image = state.aliases.get(command.alias)
    if image is None:
        raise NotFound(detail=f"alias {command.alias}")
    return Plan(
        method="RemoveImageAlias",
        subject=names.image(image),
        intent=NoteIntent(fact=AliasRemoved(alias=command.alias)),
    )


# --- collecting --------------------------------------------------------------------


def unused_images(state: State, view: View, *, before_ns: int) -> list[str]:
    """The complete images that have neither clone nor alias, and were brought in and last used before a time.

    In the order of ListImages.  One that is retired goes by itself.
    """
    named = set(state.aliases.values())
    found = []
    for record in state.images.values():
        if record.id in named or record.id in state.retired or clones_of(record, view):
            continue
        is_whole = complete_image(record.id, state, view) is not None
        if is_whole and max(record.completed_ns, record.last_used_ns) < before_ns:
            found.append(record.id)
    return found
