"""One running store: its parts, and the order in which they start and stop.

Start: pool (its lock) -> journal (its lock, replay) -> do the two belong
together -> zpool actor -> recovery -> the actors that take commands -> ready.

Stop, in phases: not ready -> HTTP takes no new connections and finishes its
requests -> mailboxes are closed and drained -> the journal is flushed and
closed -> the pool is released.  Each phase is bounded; SIGKILL at any point is
safe, so whatever is stuck at the end is cut off.

For embedding::

    store = create(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await nursery.start(store.run_http, 19999)
        ...
        await store.destroy()
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import NamedTuple

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore import attachment, traces
from imagestore.actors.archive import Archive
from imagestore.actors.conversion import convert
from imagestore.actors.fetch import Fetching
from imagestore.actors.fetcher import Fetcher
from imagestore.actors.guest import Guests
from imagestore.actors.keys import Keys
from imagestore.actors.listedsums import SumsReader
from imagestore.actors.operation import Operations, Trace
from imagestore.actors.original import tell_of_original
from imagestore.actors.receptions import Receptions
from imagestore.actors.recovery import recover
from imagestore.actors.retirement import Retirement
from imagestore.actors.spool import Spools
from imagestore.actors.transfer import TransferSettings
from imagestore.actors.volumes import Volumes
from imagestore.actors.zpool import ZpoolActor
from imagestore.config import Config
from imagestore.errors import ConfigError, ImageStoreError, PoolError, PoolMismatch
from imagestore.events import reader
from imagestore.events.catalogue import PoolAttached
from imagestore.events.feed import Feed
from imagestore.events.files import SYSTEM_FILES, Files
from imagestore.events.index import open_index
from imagestore.events.journal import Journal, JournalSettings, open_journal
from imagestore.guard import parse_allowed
from imagestore.headlog import log_heads
from imagestore.http.doors import check_way_in, open_doors
from imagestore.http.server import serve_http
from imagestore.http.settings import HttpSettings
from imagestore.identifiers import uuid7_maker
from imagestore.methods import Actors, Methods
from imagestore.pools.base import Mark, PoolDriver
from imagestore.pools.directory.driver import open_directory_pool
from imagestore.service import Readiness
from imagestore.supervisor import Supervisor, handed_over

_log = logging.getLogger(__name__)

PRINCIPAL = "imagestore"

LOCK_SECONDS = 2.0
"""A directory pool has no commands that outlive their store: its lock is free as soon as that is dead."""

SPACE_SECONDS = 5.0
"""A pool that has not told its space by then is left out of the metrics."""

EXIT_MARGIN_SECONDS = 1.0
"""How long after the last bounded phase the process is ended whatever hangs."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a store stands on: clock, identifiers, the journal's disk, the pool.

    A simulation puts its own in their place.  ``now_ns`` is the wall clock in
    nanoseconds since 1970; ``new_id`` makes UUIDv7s, by that clock when it is
    None; with ``threads`` off the journal works on trio's own thread.
    ``open_pool`` None: the one of the configuration.
    """

    now_ns: Callable[[], int] = time.time_ns
    new_id: Callable[[], str] | None = None
    files: Files = SYSTEM_FILES
    threads: bool = True
    open_pool: "Callable[[Config], AbstractAsyncContextManager[PoolDriver]] | None" = None


SYSTEM = Surroundings()


class Store(Methods):
    """A store made by :func:`create`. Implements ``imagestore.service.Service``."""

    def __init__(
        self,
        config: Config,
        *,
        trace: Trace = lambda step: None,
        surroundings: Surroundings = SYSTEM,
    ) -> None:
        super().__init__()
        self.config = config
        self._trace = trace
        self._surroundings = surroundings
        self._journal: Journal | None = None
        self._stop = trio.Event()
        self._ended = trio.Event()
        self._begun = False
        self._http_stop = trio.Event()
        self._host = config.host
        self.socket = ""
        """The Unix socket that is served, "" if none is."""
        self._feed: Feed | None = None
        self._sums = SumsReader(
            check_address=parse_allowed(config.allow_private_sources).check,
            keyring=config.sums_keyring,
            stall_seconds=config.fetch_stall_seconds,
        )

    # -- readiness --------------------------------------------------------------------

    def readiness(self) -> Readiness:
        """Whether changes are taken, and if not why, in one line."""
        if self._actors is None or self._journal is None:
            return Readiness(ready=False, reason=self._not_serving)
        if self._stop.is_set() or self._http_stop.is_set():
            return Readiness(ready=False, reason="store is shutting down")
        refused = self._actors.operations.read_only_reason
        trouble = self._journal.trouble() or refused
        if trouble:
            read_only = bool(refused) or self._journal.failed is not None
            return Readiness(ready=False, read_only=read_only, reason=trouble)
        trouble = self._actors.zpool.driver.trouble()
        return Readiness(ready=not trouble, reason=trouble)

    async def metrics(self) -> bytes:
        """See ``imagestore.service.Service.metrics``."""
        from imagestore.methods.metrics import exposition

        actors, space = self._actors, None
        if actors is not None:
            with trio.move_on_after(SPACE_SECONDS), contextlib.suppress(ImageStoreError):
                space = await actors.zpool.driver.space()
        statistics = self._journal.statistics() if self._journal is not None else None
        return exposition(actors, self.readiness(), statistics, space)

    # -- life -------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, recover, serve commands until :meth:`destroy`. "Started" means ready.

        Raises:
            ConfigError, PoolError, PoolMismatch, PoolBusy, JournalError: it cannot
            start; nothing was changed.
        """
        if self._begun:
            raise ConfigError("a store runs once; create another")
        self._begun = True
        self._not_serving = "store is starting"
        try:
            async with (
                (self._surroundings.open_pool or open_pool)(self.config) as driver,
                self._open_journal(driver) as journal,
            ):
                await self._attach(driver, journal)
                await self._serve(driver, journal, task_status)
        finally:
            self._actors = None
            self._not_serving = "store has ended"
            self._ended.set()

    @asynccontextmanager
    async def _open_journal(self, driver: PoolDriver) -> AsyncIterator[Journal]:
        """The journal, once it is known that it belongs to the pool."""
        mark = await driver.mark()

        def admit(journal: Journal) -> None:
            side = attachment.JournalSide(
                directory=self.config.journal,
                uuid=journal.uuid,
                epoch=journal.epoch,
                pool=journal.state.pool,
            )
            attachment.check(side, mark, self.config.pool)

        settings = JournalSettings(
            segment_bytes=self.config.journal_segment_bytes,
            checkpoint_events=self.config.checkpoint_events,
            allow_unsafe_filesystem=self.config.allow_unsafe_filesystem,
            threads=self._surroundings.threads,
        )
        async with open_journal(
            self.config.journal,
            now_ns=self._surroundings.now_ns,
            new_id=self._surroundings.new_id,
            files=self._surroundings.files,
            settings=settings,
            admit=admit,
        ) as journal:
            self._journal = journal
            try:
                yield journal
            finally:
                self._journal = None

    async def _attach(self, driver: PoolDriver, journal: Journal) -> None:
        await driver.set_mark(Mark(journal=journal.uuid, epoch=journal.epoch))
        kind = self.config.pool_address.driver
        if (journal.state.driver, journal.state.pool) != (kind, driver.name):
            entry = Operations.entry(PoolAttached(driver=kind, pool=driver.name), "", PRINCIPAL)
            await journal.append([entry])

    async def _serve(self, driver: PoolDriver, journal: Journal, task_status: trio.TaskStatus[None]) -> None:
        config = self.config
        zpool = ZpoolActor(driver, concurrency=config.driver_concurrency)
        new_id = self._surroundings.new_id or uuid7_maker(self._surroundings.now_ns)
        now_ns, threads = self._surroundings.now_ns, self._surroundings.threads
        journal.measure_flush = zpool.timings.flush.observe
        operations = Operations(journal, zpool, new_id=new_id, now_ns=now_ns, trace=self._trace)
        cache = (config.cache or f"{config.journal}.cache") if threads else ""
        files = self._surroundings.files
        archive = Archive(journal, open_index(config.journal, cache, files=files), threads=threads)
        self._feed = feed = Feed(
            config.journal, journal.state.seq, past=archive, files=files, threads=threads
        )
        journal.watch(feed.observe)
        keys = Keys(operations.history, archive, now_ns=now_ns, check_writable=operations.check_writable)
        spools = None if self._surroundings.open_pool is not None else _spools(config, driver)
        fetcher = Fetcher(
            operations,
            _fetching(config, spools),
            workers=config.num_fetchers,
            max_pending=config.max_pending,
            mailbox=config.mailbox_size,
        )
        guests = Guests(operations, mailbox=config.mailbox_size, idle_seconds=config.guest_idle_seconds)
        volumes = Volumes(operations, mailbox=config.mailbox_size)
        receptions = Receptions(operations)
        retirement = Retirement(operations, fetcher)
        head_log, tracing = trio.CancelScope(), trio.CancelScope()
        async with trio.open_nursery() as below:
            await below.start(zpool.run)
            await below.start(archive.run)
            if config.head_log_seconds and threads:
                below.start_soon(_log_heads, head_log, journal, config.head_log_seconds)
            if config.traces:
                under_way = tuple(journal.state.operations.values())
                spans = await below.start(partial(traces.export, config.traces, under_way, scope=tracing))
                journal.watch(spans.observe)
                zpool.timings.tell_call = spans.call
            await recover(operations, fetcher)
            if spools is not None:
                await trio.to_thread.run_sync(spools.prepare, frozenset(journal.state.operations))
            tell_of_original(operations.state, zpool.view)
            give_back_memory()
            async with trio.open_nursery() as owners:
                await owners.start(guests.run)
                await owners.start(volumes.run)
                await owners.start(fetcher.run)
                await owners.start(receptions.run)
                await owners.start(retirement.run)
                await owners.start(keys.run)
                self._actors = Actors(
                    operations,
                    fetcher,
                    guests,
                    volumes,
                    receptions,
                    archive,
                    keys,
                    feed,
                    journal,
                    now_ns=self._surroundings.now_ns,
                )
                archive.keep_up()
                task_status.started()
                await self._stop.wait()
                owners.cancel_scope.deadline = trio.current_time() + config.shutdown_seconds / 2
                for actor in (retirement, receptions, fetcher, volumes, guests, keys):
                    actor.close()
                operations.history.close()
            head_log.cancel(reason="the store ends")
            tracing.cancel(reason="the store ends")
            zpool.close()
            archive.close()
            below.cancel_scope.deadline = trio.current_time() + config.shutdown_seconds / 2

    async def run_http(
        self,
        port: int | None = None,
        *,
        host: str | None = None,
        handed: Sequence[socket.socket] = (),
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve HTTP until :meth:`stop_http` or :meth:`destroy`; reports the bound address.

        ``port`` and ``host`` default to the configuration's, listening sockets that are ``handed``
        over take their place. May be started before the store is ready; ``/readyz`` tells.
        """
        settings = HttpSettings(
            max_body_bytes=self.config.max_request_bytes,
            stall_seconds=self.config.download_stall_seconds,
            grace_seconds=self.config.shutdown_seconds / 2,
        )
        async with open_doors(self.config, handed) as doors:
            self.socket = doors.socket
            self._host = doors.widest_host(self.config.host)
            await serve_http(
                self,
                host=self.config.host if host is None else host,
                port=self.config.port if port is None else port,
                shutdown=self._http_stop,
                settings=settings,
                access=doors.access,
                tls=doors.tls,
                unix=doors.unix,
                tcp=doors.tcp,
                task_status=task_status,
            )

    def check_way_in(self) -> None:
        """Raises ConfigError if nobody can ever be let in. Of a store that runs."""
        tokens = any(not token.expired for token in self.known_tokens())
        check_way_in(replace(self.config, host=self._host), socket=self.socket, tokens=tokens)

    def stop_http(self) -> None:
        """Not ready any more; HTTP finishes its requests. Fetches are left to the next life at once,
        copies are broken off."""
        self._http_stop.set()
        if self._feed is not None:
            self._feed.close()
        if self._actors is not None:
            self._actors.fetcher.close()
            self._actors.zpool.break_off()

    async def destroy(self) -> None:
        """Stop and release everything; deletes no data. Idempotent; returns when it is done."""
        self.stop_http()
        self._stop.set()
        if self._begun:
            await self._ended.wait()


def _spools(config: Config, driver: PoolDriver) -> Spools:
    """Where bodies of fetches are kept: in a directory pool itself, else beside the journal."""
    own = driver.intake.directory if driver.intake is not None else f"{config.journal}.spool"
    return Spools(config.spool or own, quota_bytes=config.spool_bytes)


def _fetching(config: Config, spools: Spools | None) -> Fetching:
    return Fetching(
        service=config.image_service,
        settings=TransferSettings(
            fruitless_tries=config.fetch_tries,
            wait_seconds=config.fetch_wait_seconds,
            stall_seconds=config.fetch_stall_seconds,
            max_image_bytes=config.max_image_bytes,
            check_address=parse_allowed(config.allow_private_sources).check,
            convert=convert,
            service_token_file=config.image_service_token,
            service_ca_file=config.image_service_ca,
        ),
        spools=spools,
    )


def create(config: Config) -> Store:
    """A store that does not run yet. Touches nothing."""
    return Store(config)


@asynccontextmanager
async def open_pool(config: Config, *, create: bool = True) -> AsyncIterator[PoolDriver]:
    """The pool of ``config``, locked. With ``create`` a missing directory is made, but only for a
    journal without history.

    Raises PoolError, PoolBusy, PoolMismatch, ConfigError.
    """
    kind, place = config.pool_address
    pool: PoolDriver
    if kind == "zfs":
        from imagestore.pools.zfs.driver import open_zfs_pool

        pool = await open_zfs_pool(
            place,
            lock_deadline=config.recovery_wait_seconds,
            volmode=config.zfs_volmode,
            change_seconds=config.pool_stuck_seconds,
        )
    else:
        pool = await _open_directory(config, place, create=create)
    try:
        yield pool
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + config.shutdown_seconds):
            await pool.close()


async def _open_directory(config: Config, place: str, *, create: bool) -> PoolDriver:
    fresh = create and await trio.to_thread.run_sync(_is_fresh, config.journal)
    try:
        return await open_directory_pool(
            place, create=fresh, lock_deadline=min(LOCK_SECONDS, config.recovery_wait_seconds)
        )
    except PoolError as error:
        if (
            type(error) is not PoolError
            or fresh
            or not create
            or os.path.isdir(os.path.join(place, ".imagestore"))
        ):
            raise
        raise PoolMismatch(
            f"journal {config.journal} has a history, and there is no pool at {place}",
            detail="restore the pool, or begin afresh: "
            f"imagestore serve --pool {config.pool} --journal NEW-DIRECTORY",
        ) from error


async def _log_heads(scope: trio.CancelScope, journal: Journal, seconds: float) -> None:
    with scope:
        await log_heads(journal, seconds)


def give_back_memory() -> None:
    """Return what start-up took and freed to the system: with 100,000 datasets a fifth of all."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # a C library without malloc_trim keeps it
        ctypes.CDLL(None).malloc_trim(0)


def _is_fresh(directory: str) -> bool:
    """Whether the journal has no history: the directory is missing or holds no event."""
    return not os.path.isdir(directory) or reader.head(directory)[0] == 0


class Served(NamedTuple):
    """``address`` is ``http://HOST:PORT``, or ``https``; ``socket`` a Unix socket's path, "" without one."""

    address: str
    socket: str


async def serve(config: Config, *, task_status: trio.TaskStatus[Served] = trio.TASK_STATUS_IGNORED) -> None:
    """Run a store with HTTP until SIGTERM or SIGINT; reports where once it is ready.

    Raises what :meth:`Store.run` and ``serve_http`` raise, and ConfigError if nobody could be let in.
    """
    store, supervisor = create(config), Supervisor()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as root:
            async with trio.open_nursery() as front:
                host, port = await front.start(partial(store.run_http, handed=handed_over()))
                root.start_soon(_stop_at_signal, signals, store, config)
                await root.start(store.run)
                store.check_way_in()
                shown = f"[{host}]" if ":" in host else host
                scheme = "https" if config.tls_certificate else "http"
                supervisor.tell("READY=1", f"STATUS=serving {config.pool}")
                root.start_soon(supervisor.keep_watchdog)
                task_status.started(Served(f"{scheme}://{shown}:{port}", store.socket))
            supervisor.tell("STOPPING=1")
            await store.destroy()
            root.cancel_scope.cancel(reason="the store has stopped")


async def _stop_at_signal(signals: AsyncIterator[int], store: Store, config: Config) -> None:
    async for number in signals:
        _log.info("%s: stopping", signal.Signals(number).name)
        _end_process_after(config.shutdown_seconds + EXIT_MARGIN_SECONDS, os._exit)
        store.stop_http()


def _end_process_after(seconds: float, end: Callable[[int], None]) -> None:
    """Whatever hangs then, the process ends: the journal makes that safe."""
    timer = threading.Timer(seconds, end, args=(0,))
    timer.daemon = True
    timer.start()
