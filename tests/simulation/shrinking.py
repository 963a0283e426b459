"""The shortest history that still fails: crashes, faults and calls are left out as long as it does."""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from tests.simulation.plan import Plan

MOST_RUNS = 600


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, most_runs: int = MOST_RUNS) -> Plan:
    """A plan like ``plan`` of which nothing can be left out; ``fails`` runs one."""
    runs = 0
    found = True
    while found:
        found = False
        for smaller in _smaller(plan):
            if runs == most_runs:
                return plan
            runs += 1
            if fails(smaller):
                plan, found = smaller, True
                break
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Large cuts first."""
    for client, script in enumerate(plan.scripts):
        if script:
            yield _with_script(plan, client, ())
    for place in range(len(plan.crashes)):
        yield replace(plan, crashes=plan.crashes[:place] + plan.crashes[place + 1 :])
    for calm in ({"pool_trouble": 0.0}, {"network_trouble": 0.0}, {"disk_fault": ""}, {"strangers": False}):
        quieter = replace(plan, **calm)
        if quieter != plan:
            yield quieter
    size = max(map(len, plan.scripts), default=0)
    while size >= 1:
        for client, script in enumerate(plan.scripts):
            for at in range(0, len(script), size):
                yield _with_script(plan, client, script[:at] + script[at + size :])
        size //= 2


def _with_script(plan: Plan, client: int, script: tuple[object, ...]) -> Plan:
    scripts = (*plan.scripts[:client], script, *plan.scripts[client + 1 :])
    return replace(plan, scripts=scripts)


def shown(plan: Plan) -> str:
    """A plan as a person reads it."""
    lines = [
        f"seed {plan.seed}: {plan.calls} calls, {len(plan.crashes)} crashes"
        f"{', failing pool commands' if plan.pool_trouble else ''}"
        f"{', network trouble' if plan.network_trouble else ''}"
        f"{f', {plan.disk_fault} fails after {plan.disk_fault_at}' if plan.disk_fault else ''}"
        f"{', strangers' if plan.strangers else ''}"
    ]
    lines += [f"  crash {point.steps} steps after call {point.calls} of the life" for point in plan.crashes]
    for client, script in enumerate(plan.scripts):
        lines += [f"  client {client}: {call}" for call in script]
    return "\n".join(lines)
