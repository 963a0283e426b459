"""The methods that take over what others made, and let go of what is ours: only tags change.

A dry run judges as the real one does and tells the commands; it journals
nothing and changes nothing.
"""

from collections.abc import Sequence

import trio
from msgspec import UNSET

from imagestore import names
from imagestore.actors import adoption
from imagestore.actors.commands import Adopt, Release
from imagestore.actors.effects import driver_command
from imagestore.actors.original import Left, Survey, survey
from imagestore.actors.originaldatabase import Original, read
from imagestore.actors.plans import Plan
from imagestore.actors.zpool import Adopt as AdoptEffect
from imagestore.actors.zpool import Retag
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    InvalidArgument,
    NotFound,
)
from imagestore.events.catalogue import AdoptIntent, ReleaseIntent
from imagestore.methods.addressing import Addressing, unbound
from imagestore.model import Adopted, AdoptRequest, AdoptResponse, LeftOut, ReleaseRequest, ReleaseResponse
from imagestore.service import LOCAL, Caller

MAX_DISK_NUMBER = 9_999
MAX_TYPE_CHARACTERS = 64

OPERATION = "OPERATION"
"""What a dry run shows where the operation's id will be."""

REFUSALS = (Blocked, InvalidArgument, NotFound, AlreadyExists)
"""What concerns one image or guest and none of the others."""


class AdoptionMethods(Addressing):
    """See the module."""

    async def adopt_dataset(self, request: AdoptRequest, caller: Caller = LOCAL) -> AdoptResponse:
        """Take over a volume that others made, where it stands, as a guest's disk or an image."""
        if not request.id:
            raise InvalidArgument("need an id")
        command = _ordered(request, self._resolve(request.id))
        await self._running().zpool.refresh()
        if request.dryRun:
            plan = await self._planned(command)
            return AdoptResponse(adopted=self._adopted(plan), commands=self._commands(plan))
        adopted = self._adopted(self._judged(command))
        answer = AdoptResponse(adopted=adopted)
        await self._perform(_owner(command), command, caller, shown=answer)
        return answer

    async def adopt_original(self, request: AdoptRequest, caller: Caller = LOCAL) -> AdoptResponse:
        """Take over all that the original program left in the pool."""
        await self._running().zpool.refresh()
        original = await self._original()
        found = self._surveyed(original, force=request.force)
        adopted: list[Adopted] = []
        commands: list[str] = []
        left = [*_database(original), *found.left]
        for command in found.takes:
            try:
                plan = await self._planned(command)
                if request.dryRun:
                    commands += self._commands(plan)
                else:
                    await self._perform(_owner(command), command, unbound(caller))
            except REFUSALS as refusal:
                left.append(Left(name=_subject(command), reason=_in_words(refusal)))
            else:
                adopted += self._adopted(plan)
        return AdoptResponse(
            adopted=tuple(adopted),
            left=tuple(LeftOut(id=self._full(entry.name), reason=entry.reason) for entry in left),
            commands=tuple(commands),
        )

    async def release_dataset(self, request: ReleaseRequest, caller: Caller = LOCAL) -> ReleaseResponse:
        """Let go of a volume or an image; its data stay."""
        if not request.id:
            raise InvalidArgument("need an id")
        actors = self._running()
        command = Release(name=self._resolve(request.id))
        plan = adoption.release(command, actors.operations.state, actors.zpool.view)
        assert isinstance(plan.intent, ReleaseIntent)
        released = tuple(self._full(dataset.name) for dataset in plan.intent.datasets)
        if request.dryRun:
            return ReleaseResponse(released=released, commands=self._commands(plan))
        answer = ReleaseResponse(released=released)
        await self._perform(command.name, command, caller, shown=answer)
        return answer

    # -- looking --------------------------------------------------------------------

    async def _original(self) -> Original:
        """The database of the original program, if it left one in this pool."""
        directory = self._running().zpool.driver.mountpoint(names.IMAGES)
        return await trio.to_thread.run_sync(read, directory)

    def _surveyed(self, original: Original, *, force: bool) -> Survey:
        actors = self._running()
        return survey(original, actors.operations.state, actors.zpool.view, force=force)

    def _judged(self, command: Adopt) -> Plan:
        actors = self._running()
        return adoption.adopt(command, actors.operations.state, actors.zpool.view)

    async def _planned(self, command: Adopt) -> Plan:
        """What the command would do, refused as the command itself would be."""
        plan = self._judged(command)
        await self._running().operations.check_users(plan)
        return plan

    def _commands(self, plan: Plan) -> tuple[str, ...]:
        """What the pool would be told, as an administrator would type it."""
        driver = self._running().zpool.driver
        match driver_command(OPERATION, plan.intent, force=plan.force):
            case AdoptEffect(parents=parents, changes=changes):
                return tuple(driver.retag_commands(changes, parents=parents))
            case Retag(changes=changes):
                return tuple(driver.retag_commands(changes))
            case _:
                return ()

    def _adopted(self, plan: Plan) -> tuple[Adopted, ...]:
        assert isinstance(plan.intent, AdoptIntent)
        return tuple(
            Adopted(
                id=self._full(adoptee.name),
                role=adoptee.role,
                guest=adoptee.guest or UNSET,
                disk=int(adoptee.disk) if adoptee.disk else UNSET,
                image=adoptee.image or UNSET,
            )
            for adoptee in plan.intent.datasets
        )


def _ordered(request: AdoptRequest, name: str) -> Adopt:
    """The command that a request means. Raises InvalidArgument, NotValid."""
    if request.guest and request.image:
        raise InvalidArgument(detail="a volume becomes a guest's disk or an image, not both")
    if len(request.type) > MAX_TYPE_CHARACTERS or not request.type.isprintable():
        raise InvalidArgument(detail=f'type: "" or "kvm", at most {MAX_TYPE_CHARACTERS} characters')
    if request.image:
        image = names.check_image_id(request.image)
        return Adopt(volumes=(name,), image=image, type=request.type, force=request.force)
    if not request.guest:
        if request.disk is not None:
            raise InvalidArgument("need a guest", detail="a disk's number is that of a guest's disk")
        return Adopt(volumes=(name,), force=request.force)
    guest = names.check_guest_id(request.guest)
    if request.disk is None or not 0 <= request.disk <= MAX_DISK_NUMBER:
        raise InvalidArgument("need a disk", detail=f"its number, from 0 to {MAX_DISK_NUMBER}")
    return Adopt(volumes=(name,), guest=guest, disks=(request.disk,), force=request.force)


def _owner(command: Adopt) -> str:
    """The name whose owner takes the command."""
    return names.guest(command.guest) if command.guest else command.volumes[0]


def _subject(command: Adopt) -> str:
    return command.volumes[0] if len(command.volumes) == 1 else names.guest(command.guest)


def _in_words(refusal: ImageStoreError) -> str:
    return f"{refusal} ({refusal.detail})" if refusal.detail else str(refusal)


def _database(original: Original) -> Sequence[Left]:
    """A line for a database that is there and could not be read."""
    if original.found != "unreadable":
        return ()
    return [Left(name=names.IMAGES, reason=f"the original's database is not understood: {original.reason}")]
