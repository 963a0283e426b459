"""One transfer against an image service that misbehaves in every way we know."""

import gzip
import hashlib
import random
import struct
from collections.abc import Callable

import pytest
import trio
import trio.testing

from imagestore.actors.targets import Destination
from imagestore.actors.transfer import (
    BATCH_BYTES,
    Order,
    Phase,
    Transferred,
    TransferSettings,
    Tries,
    after_failure,
    transfer,
)
from imagestore.actors.unpacking import STEP_BYTES
from imagestore.errors import ContentRefused, FetchFailed, FetchUnreachable, ImageStoreError, NoSpace
from imagestore.streams.content import OUTPUT_BYTES
from tests.imageservice import (
    ImageService,
    Script,
    answer,
    chunked,
    endless,
    head,
    redirect,
    resets,
    sends,
    stalls,
    status,
    truncated,
)
from tests.receivers import MemorySink

RAW = random.Random(5).randbytes(5 * BATCH_BYTES + 512)
STREAM = struct.pack("<IIQ", 0, 0, 0x2F5BACBAC) + random.Random(6).randbytes(2 * BATCH_BYTES)
GZIPPED = gzip.compress(STREAM, 1)
ERROR_TEXT = b"read /var/lib/images/a: input/output error\n"

IMPATIENT = TransferSettings(wait_seconds=0.0, stall_seconds=0.2, metadata_seconds=0.2)
"""Sockets know no virtual clock, so times that must pass are short."""

PATIENT = TransferSettings(wait_seconds=0.0)


class Progress:
    def __init__(self) -> None:
        self.reports: list[tuple[Phase, int, int | None]] = []

    def __call__(self, phase: Phase, done: int, total: int | None) -> None:
        self.reports.append((phase, done, total))


async def fetch(
    service: ImageService,
    sink: MemorySink,
    *,
    image: str = "a",
    settings: TransferSettings = PATIENT,
    progress: Progress | None = None,
) -> Transferred:
    order = Order(image=image, service=service.address)
    return await transfer(order, Destination(sink=sink), settings=settings, progress=progress or Progress())


async def refusal(
    service: ImageService, sink: MemorySink, settings: TransferSettings = PATIENT
) -> ImageStoreError:
    """The error a transfer ends with; checks what is true of every one."""
    with pytest.raises(ImageStoreError) as caught:
        await fetch(service, sink, settings=settings)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert "http://" not in text
    assert not any(receiver.finished for receiver in sink.receivers)
    assert sink.left == 0
    return caught.value


@pytest.fixture
async def service(nursery: trio.Nursery) -> ImageService:
    service = ImageService()
    await nursery.start(service.run)
    return service


# --- what works ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "content"),
    [
        pytest.param(RAW, "raw", RAW, id="raw"),
        pytest.param(STREAM, "stream", STREAM, id="stream"),
        pytest.param(GZIPPED, "stream", STREAM, id="gzipped stream"),
        pytest.param(gzip.compress(RAW, 1), "raw", RAW, id="gzipped raw"),
        pytest.param(bytes(512), "raw", bytes(512), id="smallest"),
    ],
)
async def test_an_image_arrives_as_it_is_in_the_body(
    service: ImageService, body: bytes, kind: str, content: bytes
) -> None:
    service.download("a", answer(body))
    service.metadata("a", size=len(body), status="complete", type="kvm")
    sink = MemorySink()
    transferred = await fetch(service, sink)
    assert service.requests == ["/images/a", "/images/a/download"]
    assert transferred.content == kind
    assert transferred.sha256 == hashlib.sha256(body).hexdigest()
    assert transferred.body_bytes == len(body)
    assert transferred.type == "kvm"
    assert transferred.datasets[0].volsize == len(content)
    assert [receiver.content for receiver in sink.receivers] == [content]
    assert sink.receivers[0].finished


async def test_progress_counts_the_body_and_then_tells_of_the_import(service: ImageService) -> None:
    service.download("a", answer(GZIPPED))
    progress = Progress()
    await fetch(service, MemorySink(), progress=progress)
    total = len(GZIPPED)
    assert progress.reports[0] == ("downloading", 0, total)
    assert progress.reports[-2:] == [("downloading", total, total), ("importing", total, total)]
    assert progress.reports == sorted(progress.reports)


async def test_a_body_without_a_length_is_taken_when_it_ends_well(service: ImageService) -> None:
    service.download("a", chunked(RAW))
    progress = Progress()
    transferred = await fetch(service, MemorySink(whole=RAW), progress=progress)
    assert transferred.body_bytes == len(RAW)
    assert progress.reports[-1] == ("importing", len(RAW), len(RAW))


async def test_an_id_is_one_component_of_the_address(service: ImageService) -> None:
    service.on("/images/a%2F..%2Fb%3F%25%20%C3%A9/download", answer(RAW))
    await fetch(service, MemorySink(), image="a/../b?% é")
    assert service.downloads == 1


async def test_redirects_are_followed(service: ImageService) -> None:
    service.download("a", redirect("/elsewhere/a b?x=1#part", 307))
    service.on("/elsewhere/a%20b?x=1", redirect(f"http://localhost:{service.port}/there"))
    service.on("/there", answer(RAW))
    await fetch(service, MemorySink(whole=RAW))
    assert service.requests[-1] == "/there"


async def test_proxies_of_the_environment_are_not_used(
    service: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    service.download("a", answer(RAW))
    await fetch(service, MemorySink(whole=RAW))
    assert "accept-encoding: identity" in service.heads[-1].lower()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(status(404), id="404"),
        pytest.param(status(500), id="500"),
        pytest.param(answer(b"null"), id="null"),
        pytest.param(answer(b'[{"id":"a"}]'), id="a list"),
        pytest.param(answer(b'{"size":"large","status":"error"}'), id="wrong types"),
        pytest.param(answer(b"<html>\xff"), id="no JSON"),
        pytest.param(answer(b"[" * 50_000), id="deep"),
        pytest.param(answer(b'{"size":1e400}'), id="a number too large"),
        pytest.param(answer(b" " * 100_000), id="long"),
        pytest.param(endless(b"{" * 4096), id="endless"),
        pytest.param(stalls(b"{", 10), id="stalls"),
        pytest.param(sends(b"\0garbage\r\n\r\n"), id="garbage"),
        pytest.param(sends(), id="hangs up"),
        pytest.param(redirect("/images/a"), id="redirect loop"),
        pytest.param(answer(b'{"status":"downloading","size":12}'), id="not complete"),
        pytest.param(answer(b'{"size":-1}'), id="negative"),
    ],
)
async def test_metadata_that_say_nothing_do_not_matter(service: ImageService, script: Script) -> None:
    service.metadata("a", script)
    service.download("a", answer(RAW))
    await fetch(service, MemorySink(whole=RAW), settings=IMPATIENT)


# --- what is refused at once ---------------------------------------------------


async def test_an_image_that_is_not_there_is_asked_for_once(service: ImageService) -> None:
    error = await refusal(service, MemorySink())
    assert type(error) is FetchFailed
    assert str(error) == f"image a was not found at the image service {service.address}"
    assert service.requests == ["/images/a", "/images/a/download"]


async def test_an_image_that_the_service_is_still_fetching_may_come_later(service: ImageService) -> None:
    service.metadata("a", status="downloading", size=0, expected_size=100)
    error = await refusal(service, MemorySink())
    assert isinstance(error, FetchUnreachable)
    assert "not complete" in str(error)
    assert service.downloads == 1


async def test_an_image_in_error_is_not_asked_for(service: ImageService) -> None:
    service.metadata("a", status="error", size=-1)
    service.download("a", answer(RAW))
    error = await refusal(service, MemorySink())
    assert type(error) is FetchFailed
    assert service.downloads == 0


@pytest.mark.parametrize("code", [204, 206, 304, 400, 403, 410])
async def test_other_answers_are_final(service: ImageService, code: int) -> None:
    service.download("a", sends(head(code) if code in {204, 304} else head(code, Content_Length=0)))
    error = await refusal(service, MemorySink())
    assert type(error) is FetchFailed
    assert str(code) in str(error)
    assert service.downloads == 1


async def test_a_flood_of_redirects_ends(service: ImageService) -> None:
    service.download("a", redirect("/images/a/download"))
    error = await refusal(service, MemorySink())
    assert type(error) is FetchFailed
    assert service.downloads == 11


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/a",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1/a",
        "http://[::1",
        "http://a:99999/",
    ],
)
async def test_a_redirect_that_may_not_be_followed_is_final(service: ImageService, location: str) -> None:
    service.download("a", redirect(location))
    error = await refusal(service, MemorySink())
    assert type(error) is FetchFailed
    assert "secret" not in str(error)
    assert service.downloads == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>not an image</html>", id="text"),
        pytest.param(RAW[:-1], id="no multiple of 512"),
        pytest.param(gzip.compress(b"<html>not an image</html>"), id="gzip of text"),
        pytest.param(gzip.compress(b""), id="gzip of nothing"),
        pytest.param(GZIPPED[:-9], id="gzip cut short"),
        pytest.param(GZIPPED[:-8] + bytes(8), id="gzip with a wrong trailer"),
        pytest.param(GZIPPED[:1000] + bytes(500) + GZIPPED[1500:], id="gzip with damage"),
    ],
)
async def test_a_whole_body_that_is_no_image_is_refused(service: ImageService, body: bytes) -> None:
    service.download("a", answer(body))
    error = await refusal(service, MemorySink())
    assert isinstance(error, ContentRefused)
    assert service.downloads == 1


async def test_error_text_in_a_body_of_the_right_length_is_refused_by_the_receiver(
    service: ImageService,
) -> None:
    body = STREAM[: -len(ERROR_TEXT)] + ERROR_TEXT
    service.download("a", answer(body))
    service.metadata("a", size=len(body), status="complete")
    error = await refusal(service, MemorySink(whole=STREAM))
    assert isinstance(error, ContentRefused)
    assert service.downloads == 1


async def test_a_full_pool_ends_the_transfer(service: ImageService) -> None:
    service.download("a", answer(RAW))
    error = await refusal(service, MemorySink(full=NoSpace()))
    assert type(error) is NoSpace
    assert service.downloads == 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(answer(bytes(1 << 20)), id="announced"),
        pytest.param(endless(bytes(64 << 10)), id="endless"),
        pytest.param(answer(gzip.compress(bytes(64 << 20), 1)), id="decompression bomb"),
    ],
)
async def test_an_image_over_the_limit_is_refused(service: ImageService, script: Script) -> None:
    service.download("a", script)
    sink = MemorySink()
    error = await refusal(service, sink, TransferSettings(max_image_bytes=(1 << 20) - 512))
    assert isinstance(error, ContentRefused)
    assert "limit" in str(error)
    assert sum(len(receiver.content) for receiver in sink.receivers) < 1 << 20


# --- what is tried again ----------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(status(500), id="500"),
        pytest.param(status(503), id="503"),
        pytest.param(status(429), id="429"),
        pytest.param(sends(), id="hangs up"),
        pytest.param(sends(b"\0garbage\r\n\r\n"), id="garbage"),
        pytest.param(sends(head(Content_Length="12, 13"), b"x" * 13), id="two lengths"),
        pytest.param(truncated(RAW[:5000], len(RAW)), id="truncated"),
        pytest.param(truncated(RAW[:-512] + ERROR_TEXT, len(RAW)), id="truncated, with error text"),
        pytest.param(resets(RAW[: 2 * BATCH_BYTES], len(RAW)), id="reset"),
        pytest.param(stalls(RAW[:5000], len(RAW)), id="stalls"),
        pytest.param(chunked(RAW[:5000], end=False), id="chunks cut short"),
        pytest.param(chunked(RAW[:4096]), id="shorter than the metadata say"),
        pytest.param(answer(RAW[:4096]), id="a length shorter than the metadata say"),
        pytest.param(sends(head(), RAW[:4096]), id="no length, shorter than the metadata say"),
        pytest.param(answer(RAW + bytes(512)), id="a length longer than the metadata say"),
        pytest.param(chunked(RAW + bytes(512)), id="longer than the metadata say"),
        pytest.param(sends(head(Content_Length=len(RAW) + 1)), id="a length and nothing else"),
    ],
)
async def test_what_may_pass_is_tried_again_from_the_beginning(service: ImageService, script: Script) -> None:
    service.metadata("a", size=len(RAW), status="complete")
    service.download("a", script, script, answer(RAW))
    sink = MemorySink(whole=RAW)
    transferred = await fetch(service, sink, settings=IMPATIENT)
    assert transferred.sha256 == hashlib.sha256(RAW).hexdigest()
    assert service.downloads == 3
    assert sink.left == 0
    assert [receiver.finished for receiver in sink.receivers][-1:] == [True]
    assert all(receiver.aborted for receiver in sink.receivers[:-1])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(status(500), id="500"),
        pytest.param(truncated(RAW[:5000], len(RAW)), id="truncated"),
        pytest.param(answer(RAW[:5120]), id="metadata say more"),
        pytest.param(stalls(b"", len(RAW)), id="stalls"),
        pytest.param(sends(b"\0garbage\r\n\r\n"), id="garbage"),
    ],
)
async def test_three_tries_without_progress_are_enough(service: ImageService, script: Script) -> None:
    service.metadata("a", size=len(RAW), status="complete")
    service.download("a", script)
    error = await refusal(service, MemorySink(), IMPATIENT)
    assert type(error) is FetchUnreachable
    assert service.downloads == 3


async def test_tries_that_get_further_do_not_count_as_fruitless(service: ImageService) -> None:
    further = [truncated(RAW[: at * BATCH_BYTES], len(RAW)) for at in (1, 2, 3)]
    nothing = [status(500)] * 2
    service.download("a", *further, *nothing, answer(RAW))
    await fetch(service, MemorySink(whole=RAW))
    assert service.downloads == 6


async def test_a_reset_midway_leaves_nothing_to_the_next_try(service: ImageService) -> None:
    sink = MemorySink(whole=RAW)
    reset = resets(b"", 0)

    async def midway(stream: trio.SocketStream) -> None:
        await stream.send_all(head(Content_Length=len(RAW)) + RAW[: 4 * BATCH_BYTES])
        await sink.opened.wait()
        await sink.receivers[0].fed.wait()
        await reset(stream)

    service.download("a", midway, answer(RAW))
    await fetch(service, sink)
    assert [receiver.aborted for receiver in sink.receivers] == [True, False]
    assert sink.receivers[1].content == RAW


async def test_a_stale_length_heals_with_the_next_try(service: ImageService) -> None:
    service.metadata("a", answer(b'{"size":1048576,"status":"complete"}'), status(404))
    service.download("a", answer(RAW))
    await fetch(service, MemorySink(whole=RAW))
    assert service.requests == ["/images/a", "/images/a/download"] * 2


async def test_a_service_that_is_not_there_is_unreachable() -> None:
    with trio.socket.socket() as taken:  # bound and not listening: refuses
        await taken.bind(("127.0.0.1", 0))
        order = Order(image="a", service=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(FetchUnreachable, match=r"cannot be reached: Connection refused \(3 tries\)$"):
            await transfer(order, Destination(sink=MemorySink()), settings=PATIENT, progress=Progress())


# --- flow and cancellation -----------------------------------------------------------


async def test_cancelling_leaves_no_receiver_and_no_connection(
    service: ImageService, nursery: trio.Nursery
) -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.send_all(head(Content_Length=len(RAW)) + RAW[: 4 * BATCH_BYTES])
        await service.until_hung_up(stream)

    service.download("a", half)
    sink = MemorySink()
    with trio.CancelScope() as scope:

        async def cancel_midway() -> None:
            await sink.opened.wait()
            await sink.receivers[0].fed.wait()
            scope.cancel()

        nursery.start_soon(cancel_midway)
        await fetch(service, sink)
    assert scope.cancelled_caught
    assert [receiver.aborted for receiver in sink.receivers] == [True]
    with trio.fail_after(10):
        await service.hung_up.wait()


async def test_a_slow_receiver_slows_the_download(service: ImageService, nursery: trio.Nursery) -> None:
    body = random.Random(7).randbytes(32 << 20)
    service.download("a", answer(body))
    sink = MemorySink(blocked=True)
    progress = Progress()
    finished = trio.Event()

    async def run() -> None:
        await fetch(service, sink, progress=progress)
        finished.set()

    nursery.start_soon(run)
    await sink.opened.wait()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert progress.reports[-1][1] <= 6 * BATCH_BYTES
    sink.receivers[0].go_on.set()
    await finished.wait()
    assert sink.receivers[0].content == body


async def test_a_small_body_that_holds_a_huge_image_is_decoded_in_steps(service: ImageService) -> None:
    service.download("a", answer(gzip.compress(bytes(64 << 20), 1)))
    sink = MemorySink()
    await fetch(service, sink)
    assert len(sink.receivers[0].content) == 64 << 20
    assert sink.receivers[0].largest_piece < STEP_BYTES + OUTPUT_BYTES


# --- the decision to try again ------------------------------------------------------------


def give_up_after(accepted: Callable[[int], int], settings: TransferSettings) -> tuple[int, float]:
    """How many tries are made, and how many seconds waited, when try n gets accepted(n) bytes."""
    tries, waited = Tries(), 0.0
    for made in range(1, 1000):
        again = after_failure(tries, accepted(made), settings)
        if again is None:
            return made, waited
        tries, wait = again
        waited += wait
    raise AssertionError("never gives up")


def test_three_fruitless_tries_wait_three_seconds() -> None:
    assert give_up_after(lambda _: 0, TransferSettings()) == (3, 3.0)


def test_getting_as_far_as_before_is_no_progress() -> None:
    assert give_up_after(lambda _: 100, TransferSettings())[0] == 4


@pytest.mark.parametrize("tries", [1, 2, 5, 20])
def test_tries_with_progress_end_as_well(tries: int) -> None:
    made, waited = give_up_after(lambda number: number, TransferSettings(tries=tries))
    assert made == tries
    assert waited <= 5.0
