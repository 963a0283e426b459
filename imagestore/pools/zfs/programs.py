"""Channel programs: changes of several datasets that happen together or not at all.

A channel program runs inside one transaction group, with the pool's
configuration locked: what its checks saw is still so when it acts, and power
loss leaves all of it or nothing.  It is not undone when a step fails, so each
program first checks everything, for all datasets, and acts only then.

Owns the programs' text and what their answers mean.  A program answers with a
refusal and the datasets it is about; an empty refusal means that it was done.
Numbers cross as text: guids are unsigned, the programs' integers are not.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from imagestore import names
from imagestore.errors import (
    Blocked,
    HasClones,
    Held,
    ImageStoreError,
    InvalidArgument,
    NewerSnapshots,
    NoSpace,
    NotFound,
    PoolError,
)
from imagestore.pools.base import Target
from imagestore.pools.zfs.commands import Commands
from imagestore.pools.zfs.failures import in_use, relative
from imagestore.pools.zfs.rows import signed
from imagestore.streams.nvlist import NvValue

_COMMON: Final = """
args = ...
argv = args["argv"]

local EBUSY, EEXIST, ENOSPC, EDQUOT = 16, 17, 28, 122

-- Whether the dataset of that name is the one that is meant.
function is_same(name, guid, createtxg)
    if not zfs.exists(name) then return false end
    return tostring(zfs.get_prop(name, "guid")) == guid
        and tostring(zfs.get_prop(name, "createtxg")) == createtxg
end

function is_snapshot(name)
    return string.find(name, "@", 1, true) ~= nil
end

function refusal(reason, found)
    for _ in pairs(found) do
        return { refusal = reason, datasets = found }
    end
    return nil
end

function has_snapshots(name)
    for _ in zfs.list.snapshots(name) do return true end
    return false
end

-- Clones of a snapshot that are not among those to be destroyed.
function find_clones(snapshot, wanted, found)
    for clone in zfs.list.clones(snapshot) do
        if not wanted[clone] then found[clone] = true end
    end
end

-- All that is below a dataset and not among what is to be destroyed.
function find_children(name, wanted, found)
    for snapshot in zfs.list.snapshots(name) do
        if not wanted[snapshot] then found[snapshot] = true end
    end
    for child in zfs.list.children(name) do
        if not wanted[child] then found[child] = true end
        find_children(child, wanted, found)
    end
end

-- Whether something keeps a snapshot: a hold, a send under way.
function is_held(snapshot)
    local references = zfs.get_prop(snapshot, "userrefs")
    return (references ~= nil and tonumber(references) > 0) or zfs.check.destroy(snapshot) == EBUSY
end
"""

_DESTROY: Final = (
    _COMMON
    + """
local targets, wanted, missing = {}, {}, {}
for i = 1, #argv, 3 do
    local name = argv[i]
    targets[#targets + 1] = name
    wanted[name] = true
    if not is_same(name, argv[i + 1], argv[i + 2]) then missing[name] = true end
end
local answer = refusal("missing", missing)
if answer then return answer end

local children, clones, held, busy = {}, {}, {}, {}
for _, name in ipairs(targets) do
    if is_snapshot(name) then
        find_clones(name, wanted, clones)
        if is_held(name) then held[name] = true end
    else
        find_children(name, wanted, children)
        -- "busy" of a dataset with snapshots may mean those; a rollback's check does not mind them.
        local check = has_snapshots(name) and zfs.check.rollback or zfs.check.destroy
        if check(name) == EBUSY then busy[name] = true end
    end
end
answer = refusal("children", children) or refusal("clones", clones)
    or refusal("held", held) or refusal("busy", busy)
if answer then return answer end

-- Whatever the order in which they depend on each other: each pass destroys those that nothing keeps.
while #targets > 0 do
    local rest = {}
    for _, name in ipairs(targets) do
        if zfs.check.destroy(name) ~= 0 or zfs.sync.destroy(name) ~= 0 then rest[#rest + 1] = name end
    end
    if #rest == #targets then
        local left = {}
        for _, name in ipairs(rest) do left[name] = true end
        return { refusal = "left", datasets = left }
    end
    targets = rest
end
return { refusal = "", datasets = {} }
"""
)

_ROLLBACK: Final = (
    _COMMON
    + """
local operation = argv[1]
local plans, wanted, missing, rolled = {}, {}, {}, {}
for i = 2, #argv, 4 do
    local kind, name, guid, createtxg = argv[i], argv[i + 1], argv[i + 2], argv[i + 3]
    if not is_same(name, guid, createtxg) then missing[name] = true end
    if kind == "to" then
        local dataset = string.match(name, "^[^@]+")
        plans[#plans + 1] = { snapshot = name, dataset = dataset }
        rolled[dataset] = true
    else
        wanted[name] = true
    end
end
local answer = refusal("missing", missing)
if answer then return answer end

local unnamed, clones, held, busy, full, covered = {}, {}, {}, {}, {}, {}
for _, plan in ipairs(plans) do
    local boundary = zfs.get_prop(plan.snapshot, "createtxg")
    plan.newer = {}
    for snapshot in zfs.list.snapshots(plan.dataset) do
        if zfs.get_prop(snapshot, "createtxg") > boundary then
            plan.newer[#plan.newer + 1] = snapshot
            covered[snapshot] = true
            if not wanted[snapshot] then unnamed[snapshot] = true end
            find_clones(snapshot, {}, clones)
            if is_held(snapshot) then held[snapshot] = true end
        end
    end
    local check = zfs.check.rollback(plan.dataset)
    if check == EBUSY then busy[plan.dataset] = true end
    if check == ENOSPC or check == EDQUOT then full[plan.dataset] = true end
end
-- Snapshots of what is not rolled back (the file system that holds a guest's disks) go with them.
local beside, others = {}, {}
for snapshot in pairs(wanted) do
    if not covered[snapshot] then
        local dataset = string.match(snapshot, "^[^@]+")
        if rolled[dataset] or not is_snapshot(snapshot) then others[snapshot] = true end
        beside[#beside + 1] = snapshot
        find_clones(snapshot, {}, clones)
        if is_held(snapshot) then held[snapshot] = true end
    end
end
answer = refusal("others", others) or refusal("newer", unnamed) or refusal("clones", clones)
    or refusal("held", held) or refusal("busy", busy) or refusal("full", full)
if answer then return answer end

local left = {}
for _, snapshot in ipairs(beside) do
    if zfs.sync.destroy(snapshot) ~= 0 then left[snapshot] = true end
end
for _, plan in ipairs(plans) do
    for _, snapshot in ipairs(plan.newer) do
        if zfs.sync.destroy(snapshot) ~= 0 then left[snapshot] = true end
    end
    if zfs.sync.rollback(plan.dataset) ~= 0 then left[plan.dataset] = true end
    zfs.sync.set_prop(plan.dataset, "imagestore:last", operation)
end
return { refusal = next(left) and "left" or "", datasets = left }
"""
)

_SET: Final = (
    _COMMON
    + """
-- For each dataset: name, guid, createtxg, how many properties, then those and their values.
local settings, missing, i = {}, {}, 1
while i <= #argv do
    local name, count = argv[i], tonumber(argv[i + 3])
    if not is_same(name, argv[i + 1], argv[i + 2]) then missing[name] = true end
    for j = i + 4, i + 2 + 2 * count, 2 do
        settings[#settings + 1] = { name = name, property = argv[j], value = argv[j + 1] }
    end
    i = i + 4 + 2 * count
end
local answer = refusal("missing", missing)
if answer then return answer end

function put(name, property, value)
    if value == "" then return zfs.sync.inherit(name, property) end
    return zfs.sync.set_prop(name, property, value)
end

for done, setting in ipairs(settings) do
    local value, source = zfs.get_prop(setting.name, setting.property)
    setting.before = source == setting.name and value or ""
    local status = 0
    if setting.before ~= setting.value then status = put(setting.name, setting.property, setting.value) end
    if status ~= 0 then
        for i = done - 1, 1, -1 do
            local undone = settings[i]
            if undone.before ~= undone.value then put(undone.name, undone.property, undone.before) end
        end
        error("property " .. setting.property .. ": error " .. tostring(status))
    end
end
return { refusal = "", datasets = {} }
"""
)


class Setting(Struct, frozen=True):
    """User properties to be set on a dataset; "" takes one off."""

    target: Target
    pairs: Sequence[tuple[str, str]]


async def destroy(commands: Commands, targets: Sequence[Target]) -> None:
    """Destroy exactly ``targets``. Raises NotFound, Blocked, HasClones, Held, InUse (names, no users)."""
    # Clones and children are made after what they depend on: so one pass is usually enough.
    ordered = sorted(targets, key=lambda target: -target.createtxg)
    await _run(commands, _DESTROY, [word for target in ordered for word in _words(target, commands.pool)])


async def rollback(
    commands: Commands, snapshots: Sequence[Target], newer: Sequence[Target], operation: str
) -> None:
    """Destroy ``newer``, roll back to ``snapshots``, set ``imagestore:last``.

    Raises NotFound, NewerSnapshots, HasClones, Held, InUse, NoSpace, InvalidArgument.
    """
    words = [operation]
    for kind, targets in (("to", snapshots), ("newer", newer)):
        for target in targets:
            words += (kind, *_words(target, commands.pool))
    await _run(commands, _ROLLBACK, words)


async def set_properties(commands: Commands, settings: Sequence[Setting]) -> None:
    """Set user properties of several datasets, all or none. Raises NotFound."""
    words: list[str] = []
    for setting in settings:
        words += (*_words(setting.target, commands.pool), str(len(setting.pairs)))
        words += (word for pair in setting.pairs for word in pair)
    await _run(commands, _SET, words)


def _words(target: Target, pool: str) -> tuple[str, str, str]:
    return names.full(target.name, pool), str(signed(target.guid)), str(target.createtxg)


async def _run(commands: Commands, program: str, words: Sequence[str]) -> None:
    refusal = refusal_of(await commands.program(program, words, changes=True), commands.pool)
    if refusal is not None:
        raise refusal


def refusal_of(answer: NvValue, pool: str) -> ImageStoreError | None:
    """What a program's answer means; None: it was done."""
    if not isinstance(answer, dict) or not isinstance(about := answer.get("datasets"), dict):
        return PoolError(f"a channel program gave an answer that is not understood: {answer!r}")
    datasets = sorted(relative(name, pool) for name in about)
    listed = ", ".join(datasets)
    match answer.get("refusal"):
        case "":
            return None
        case "missing":
            return NotFound(detail=f"not there, or another dataset than was meant: {listed}")
        case "children":
            return Blocked(f"dataset has children: {listed}", blockers=datasets)
        case "clones":
            return HasClones.of("snapshot", datasets)
        case "held":
            return Held.named(datasets)
        case "busy":
            return in_use(datasets[0], ())
        case "newer":
            return NewerSnapshots.named(datasets)
        case "full":
            return NoSpace(detail=f"no room to roll back {listed}")
        case "others":
            return InvalidArgument(detail="a rollback destroys only newer snapshots of what is rolled back")
    return PoolError(f"a channel program could not do all that it had checked; left: {listed}")
