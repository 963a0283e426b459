"""An upload between the task that reads it and the fetch that takes it in."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from imagestore.actors.imageupload import BATCH_BYTES, ImageUpload
from imagestore.errors import ContentRefused, FetchFailed


async def test_what_is_fed_comes_out_in_batches_and_the_outcome_comes_back() -> None:
    upload = ImageUpload(None)
    came: list[bytes] = []

    async def take() -> None:
        async for batch in upload:
            came.append(batch)
        upload.reply.put(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        for _ in range(5):
            await upload.feed(bytes(BATCH_BYTES // 2))
        await upload.finish()
    assert list(map(len, came)) == [BATCH_BYTES, BATCH_BYTES, BATCH_BYTES // 2]


async def test_a_reader_waits_until_the_fetch_takes_more_and_hears_why_it_does_not() -> None:
    upload = ImageUpload(None)
    async with trio.open_nursery() as nursery:

        async def feed() -> None:
            with pytest.raises(ContentRefused, match="no image"):
                await upload.feed(bytes(BATCH_BYTES))

        nursery.start_soon(feed)
        await wait_all_tasks_blocked()
        upload.reply.fail(ContentRefused("no image"))
    with pytest.raises(ContentRefused, match="no image"):
        await upload.feed(b"more")


async def test_an_upload_that_is_given_up_breaks_off() -> None:
    upload = ImageUpload(None)
    upload.abandon()
    with pytest.raises(FetchFailed, match="broke off after 0 bytes"):
        async for _ in upload:
            pass
