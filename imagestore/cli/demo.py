"""``imagestore demo``: a whole life of a throw-away store, shown and checked step by step.

Everything is real: a store in a process of its own, an image service on
loopback, HTTP between them, ``kill -9``.  Each step says what would be typed,
what was seen, and compares it with what must be; the first difference ends
the demo with exit status 1.
"""

import shutil
import tempfile

import click

from imagestore.cli.connection import examples
from imagestore.cli.demosteps import Scene, make_images, play
from imagestore.cli.imageservice import Hold, ImageService
from imagestore.cli.narrator import Narrator
from imagestore.cli.storeprocess import StoreProcess

HOLD_AFTER_BYTES = 1 << 20
"""The second image's download stops here until the store was killed."""


@click.command(epilog=examples("imagestore demo", "imagestore demo --keep /tmp/demo"))
@click.option("--keep", metavar="DIR", type=click.Path(), help="Work in DIR and leave everything there.")
def demo(keep: str | None) -> None:
    """Show a whole life of a store: fetch, disks, snapshot, write, rollback, download, kill -9,
    restart, audit. Takes seconds, needs nothing but a directory, cleans up after itself.
    """
    narrator = Narrator()
    directory = keep if keep is not None else tempfile.mkdtemp(prefix="imagestore-demo-")
    try:
        images = make_images(directory)
        hold = Hold(HOLD_AFTER_BYTES)
        with (
            ImageService(images.directory, holds={images.held.id: hold}) as service,
            StoreProcess(directory, service.address) as store,
        ):
            play(Scene(narrator=narrator, store=store, service=service, hold=hold, images=images))
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    narrator.end(
        f"Everything was as it must be. It is all in {keep}." if keep else "Everything was as it must be."
    )
