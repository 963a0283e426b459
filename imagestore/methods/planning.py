"""The method that tells what another one would do: judged as that one would be, nothing journaled or changed.

Works for every change by its entry in the table: the method runs as it always
does, up to where it would hand its command to an actor.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from imagestore.access import permit
from imagestore.actors import incoming, reception
from imagestore.actors.effects import driver_command
from imagestore.actors.foresight import Foreseen, command_lines, foresee
from imagestore.actors.plans import Plan, Settled
from imagestore.errors import InvalidArgument, NoSpace
from imagestore.methods.addressing import Addressing, Foretold
from imagestore.model import PlannedEffect, PlanRequest, PlanResponse, ReceivePlan
from imagestore.service import LOCAL, METHODS_BY_NAME, Caller, Method, needed_role
from imagestore.streams.snapshot import SnapshotInfo

_Request = TypeVar("_Request", bound=Struct)

OPERATION = "OPERATION"
"""What the commands show where the operation's id will be."""


class PlanningMethods(Addressing):
    """See the module."""

    async def plan_change(self, request: PlanRequest, caller: Caller = LOCAL) -> PlanResponse:
        """What the change would do, refused as the change itself would be."""
        if request.method.removeprefix("ImageStore.") == reception.METHOD:
            plan = self._reception(_read(reception.METHOD, ReceivePlan, request.request or {}), caller)
            return await self._planned_answer(reception.METHOD, plan)
        method = _method(request.method)
        wanted = _read(method.name, method.request, request.request or {})
        permit(caller.principal, caller.role, method.name, needed_role(method, wanted))
        self._running().operations.check_writable()
        try:
            await getattr(self, method.attribute)(wanted, structs.replace(caller, dry_run=True))
        except Foretold as told:
            if isinstance(told.judged, Settled):
                return PlanResponse(method=method.name, settled=True)
            return await self._planned_answer(method.name, told.judged)
        raise InvalidArgument(f"{method.name} cannot be tried dry")

    def _reception(self, wanted: ReceivePlan, caller: Caller) -> Plan:
        """What a stream with this heading would do. No entry of the table: its bytes come beside it."""
        permit(caller.principal, caller.role, reception.METHOD, "operator")
        actors = self._running()
        actors.operations.check_writable()
        order = incoming.Order(name=self._resolve(wanted.id), force=wanted.force)
        heading = SnapshotInfo(
            name=f"{order.name}@{wanted.snapshot}",
            guid=0,
            volsize=0,
            volblocksize=0,
            from_guid=wanted.baseGuid,
            is_clone=wanted.isClone,
        )
        intent = incoming.judge(order, heading, OPERATION, actors.operations.state, actors.zpool.view)
        return Plan(method=reception.METHOD, subject=intent.name, intent=intent, force=order.force)

    async def _planned_answer(self, method: str, plan: Plan) -> PlanResponse:
        actors = self._running()
        await actors.operations.check_users(plan)
        free = (await actors.zpool.space()).available
        if plan.reserve_bytes > free:
            raise NoSpace(
                detail=f"{plan.reserve_bytes} bytes are asked for, {free} are free and not promised"
            )
        command = driver_command(OPERATION, plan.intent, force=plan.force)
        return PlanResponse(
            method=method,
            subject=self._full(plan.subject),
            effects=tuple(map(self._effect, foresee(plan.intent, actors.zpool.view))),
            reserve_bytes=plan.reserve_bytes,
            available_bytes=free,
            commands=tuple(command_lines(command, actors.zpool.driver.texts)),
        )

    def _effect(self, foreseen: Foreseen) -> PlannedEffect:
        name = self._full(foreseen.name) if foreseen.name else ""
        return PlannedEffect(
            action=foreseen.action, id=name, what=foreseen.what, size_bytes=foreseen.size_bytes
        )


def _method(name: str) -> Method:
    method = METHODS_BY_NAME.get(name.removeprefix("ImageStore."))
    if method is None or not method.mutates:
        raise InvalidArgument("need a method that changes something", detail="for example CreateVolume")
    if "dryRun" in method.request.__struct_fields__:
        raise InvalidArgument(f"{method.name} has a dryRun of its own")
    return method


def _read(name: str, wanted: type[_Request], given: dict[str, Any]) -> _Request:
    try:
        return msgspec.convert(given, wanted)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{name}: {error}") from error
