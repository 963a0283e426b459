"""Pictures of the page for the README: ``python -m tests.page.screenshots DIRECTORY``.

A real store with images, guests of all kinds, a fetch under way and one that
failed; the page in both schemes, and a guest's lineage.  Needs Chromium.
"""

import contextlib
import os
import sys
import tempfile

from imagestore.cli.storeprocess import StoreProcess
from imagestore.client import Client
from imagestore.errors import FetchFailed
from tests.page.browser import Browser
from tests.page.scenes import MIB, SlowService, make_guests, pulling
from tests.pools.harness import opened_for_writing

MOST_BYTES = 150_000


def fill(client: Client) -> None:
    """Guests of which one has something to tell."""
    for image in ("debian-12", "fedora-43"):
        client.request_image(image)
    client.set_image_alias("stable", "debian-12")
    names = ("build-1", "build-2", "db-1", "db-2", "mail", "proxy", "web-1", "web-2")
    images = ("debian-12", "fedora-43")
    make_guests(
        client,
        [
            {"id": name, "disks": [{"image": images[number % 2]}, {"size": 256 << number % 4}]}
            for number, name in enumerate(names)
        ],
    )
    for day in ("monday", "tuesday", "wednesday"):
        client.create_snapshot("guests/db-1", day, recursive=True)
    client.create_snapshot("guests/web-1", "before-upgrade", recursive=True)
    with contextlib.suppress(FetchFailed):
        client.request_image("ubuntu-2604")


def main() -> None:
    """Write page-light.png, page-dark.png and lineage.png."""
    directory = sys.argv[1]
    os.makedirs(directory, exist_ok=True)
    sizes = {"debian-12": 24 * MIB, "fedora-43": 32 * MIB, "alpine-3.22": 64 * MIB}
    with tempfile.TemporaryDirectory() as place, SlowService(sizes) as service:
        with (
            StoreProcess(place, service.address) as process,
            Browser(f"{place}/chromium", width=1080, height=1060) as browser,
        ):
            client = process.start()
            fill(client)
            device = next(volume.device for volume in client.list_volumes() if "db-1/disk-1" in volume.id)
            with opened_for_writing(device), pulling(client, service, "alpine-3.22"):
                look(browser, client, directory)


def look(browser: Browser, client: Client, directory: str) -> None:
    """Take the pictures."""
    browser.open(f"{client.server}/")
    browser.wait_text("#running", "50 %")
    browser.wait_text("#drift-list", "The pool is as the journal says")
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        save(browser, f"{directory}/page-{scheme}.png")
    browser.prefer("light")
    browser.command(
        "Emulation.setDeviceMetricsOverride", width=960, height=760, deviceScaleFactor=1, mobile=False
    )
    browser.click('[data-key="guest-db-1"]')
    browser.wait("document.querySelector('#detail svg')")
    save(browser, f"{directory}/lineage.png")


def save(browser: Browser, path: str) -> None:
    """Raises ValueError: the picture is larger than a README should load."""
    picture = browser.screenshot()
    if len(picture) > MOST_BYTES:
        raise ValueError(f"{path} would have {len(picture)} bytes, {MOST_BYTES} at most")
    with open(path, "wb") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
