"""The page in a browser: what it shows, that it lives, and that everybody can use it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagestore.cli.storeprocess import StoreProcess
from imagestore.client import Client
from imagestore.errors import FetchFailed
from imagestore.model import TokenRequest
from tests.page.browser import Browser
from tests.page.scenes import MIB, SlowService, make_guests, pulling
from tests.pools.harness import opened_for_writing

pytestmark = pytest.mark.system

Serve = Callable[..., Any]

ROWS = "document.querySelectorAll('#guest-table tbody tr').length"


@pytest.fixture
def service() -> Iterator[SlowService]:
    with SlowService({"golden": 4 * MIB, "slow": 16 * MIB}) as service:
        yield service


@pytest.fixture
def process(tmp_path: Path, service: SlowService) -> Iterator[StoreProcess]:
    with StoreProcess(str(tmp_path), service.address) as process:
        yield process


@contextmanager
def looked_at(browser: Browser, client: Client) -> Iterator[None]:
    """The page is open, live, and has shown everything once.

    At the end its console has complained of nothing, and it asked nobody but the store.
    """
    browser.open(f"{client.server}/")
    browser.wait_text("#connection", "live")
    browser.wait_text("#drift-list", "The pool is as the journal says")
    yield
    assert browser.complaints == []
    assert {request.partition("?")[0].rsplit("/", 1)[0].split("/ui")[0] for request in browser.requests} <= {
        client.server
    }


def row(guest: str) -> str:
    return f'tr[data-guest="{guest}"]'


def test_it_shows_the_state_the_pool_guests_images_and_the_journal(
    browser: Browser, process: StoreProcess
) -> None:
    client = process.start()
    client.request_image("golden")
    client.create_guest_disks({"id": "vm1", "disks": [{"image": "golden"}, {"size": 10}]})
    client.create_snapshot("guests/vm1", "monday", recursive=True)
    client.create_guest_disks({"id": "vm2", "disks": [{"size": 5}]})
    device = next(volume.device for volume in client.list_volumes() if "vm2" in volume.id)
    with opened_for_writing(device), looked_at(browser, client):
        browser.wait(f"{ROWS} === 2")
        assert browser.text("#level") == "OK"
        assert "GiB" in browser.text("#pool-used")
        assert browser.text("#pool-promised").startswith("19 MiB")
        assert browser.text(row("vm1")).split("\t")[:5] == ["vm1", "○ no", "14 MiB", "4 MiB", "golden, blank"]
        assert browser.text(row("vm1")).split("\t")[5].endswith("ago")
        assert browser.text(row("vm2")).split("\t") == ["vm2", "● in use", "5 MiB", "0 B", "blank", "never"]
        browser.wait_text("#image-list", "golden")
        assert "✓ complete\t4 MiB\t✓ verified\t1" in browser.text("#image-list")
        browser.wait_text("#events", "CreateGuestDisks guests/vm2")
        assert browser.text("#journal-p99").startswith("≤ ")
        assert len(browser.text("#journal-head")) == 64


def test_what_failed_is_shown_with_the_command_that_is_next(browser: Browser, process: StoreProcess) -> None:
    client = process.start()
    with pytest.raises(FetchFailed):
        client.request_image("missing")
    with looked_at(browser, client):
        browser.wait_text("#level", "ATTENTION")
        assert browser.text("#next") == "imagestore image pull missing"
        assert "was not found at the image service" in browser.text("#failures")
        assert browser.evaluate("document.title").startswith("ATTENTION · pool")
        browser.click("#failures button")
        browser.wait("document.querySelector('#detail').open")
        assert "imagestore op show " in browser.text("#detail-body")


def test_read_only_has_its_word_its_reason_and_its_command(browser: Browser, process: StoreProcess) -> None:
    with looked_at(browser, process.start()):
        browser.wait_text("#level", "OK")
        browser.evaluate(
            "import('/ui/summary.js').then((m) => m.showCondition({level: 'read-only', reason: 'no disk',"
            " next: 'mend', findings: [{reason: 'no disk', next: 'mend'}, {reason: 'full', next: 'gc'}]}))"
        )
        shown = [line for line in browser.text("#condition").split("\n") if line]
        assert shown == ["State of the store", "✕ READ-ONLY", "no disk", "Next: mend", "full gc"]


def test_it_follows_a_fetch_while_it_runs(
    browser: Browser, process: StoreProcess, service: SlowService
) -> None:
    client = process.start()
    with looked_at(browser, client):
        browser.wait_text("#running", "Nothing is under way")
        with pulling(client, service, "slow") as gate:
            browser.wait_text("#running", "RequestImage")
            browser.wait_text("#running", "50 %")
            assert browser.evaluate("document.querySelector('#running progress').position") == 0.5
            browser.wait_text("#image-list", "slow")
            gate.set()
        browser.wait_text("#running", "Nothing is under way")
        browser.wait_text("#image-list", "✓ complete")
        client.create_guest_disks({"id": "vm1", "disks": [{"image": "slow"}]})
        browser.wait_text("#guest-table tbody", "vm1")
        client.delete_guests_disks({"id": "vm1"})
        browser.wait(f"{ROWS} === 0")
        browser.wait_text("#guests-empty", "There are no guests")


def test_it_says_that_the_store_is_away_and_goes_on_when_it_is_back(
    browser: Browser, tmp_path: Path, service: SlowService
) -> None:
    with StoreProcess(str(tmp_path), service.address) as first:
        client = first.start()
        client.create_guest_disks({"id": "vm1", "disks": [{"size": 1}]})
        browser.open(f"{client.server}/")
        browser.wait(f"{ROWS} === 1")
        first.kill()
        browser.wait_text("#level", "NOT CONNECTED")
        browser.wait_text("#connection", "not connected, trying again")
        assert "What is shown is as of " in browser.text("#reason")
        assert browser.evaluate(ROWS) == 1
        port = int(client.server.rpartition(":")[2])
        with StoreProcess(str(tmp_path), service.address, port=port) as second:
            again = second.start()
            again.create_guest_disks({"id": "vm2", "disks": [{"size": 1}]})
            browser.wait_text("#level", "OK")
            browser.wait_text("#connection", "live")
            browser.wait(f"{ROWS} === 2")
            assert browser.text("#journal-epoch") == "2"
    # The browser itself notes each request that found nobody, and the answer of a store that started.
    assert [each for each in browser.complaints if not each.startswith("network: Failed to load")] == []


COUNT_PIECES = f"""window.pieces = new Set();
const look = () => {{ window.pieces.add({ROWS}); requestAnimationFrame(look); }};
look();"""


def test_a_thousand_guests_come_in_pieces_and_an_event_touches_one_row(
    browser: Browser, process: StoreProcess
) -> None:
    client = process.start()
    make_guests(client, [{"id": f"vm{number:04}", "disks": [{"size": 1}]} for number in range(1000)])
    with looked_at(browser, client):
        browser.open("about:blank")
        script = browser.command("Page.addScriptToEvaluateOnNewDocument", source=COUNT_PIECES)
        browser.open(f"{client.server}/")
        browser.wait(f"{ROWS} === 1000")
        browser.command("Page.removeScriptToEvaluateOnNewDocument", **script)
        seen = browser.evaluate("window.pieces.size")
        assert seen > 10, "the browser had time for others between the pieces"
        browser.evaluate("window.kept = document.querySelectorAll('#guest-table tbody tr')[500]; 1")
        client.create_snapshot("guests/vm0500", "monday", recursive=True)
        browser.wait("window.kept.innerText.includes('ago')")
        assert browser.evaluate(f"{ROWS} === 1000 && window.kept.isConnected")
        browser.type("#guest-filter", "vm099")
        browser.wait(f"{ROWS} === 10")
        assert browser.text("#guests-count") == "10 of 1000"


def test_a_guest_opens_by_the_keyboard_with_its_lineage_and_its_commands(
    browser: Browser, process: StoreProcess
) -> None:
    client = process.start()
    client.request_image("golden")
    client.create_guest_disks({"id": "vm1", "disks": [{"image": "golden"}]})
    for name in ("monday", "tuesday"):
        client.create_snapshot("guests/vm1/disk-0", name)
    with looked_at(browser, client):
        browser.wait(f"{ROWS} === 1")
        browser.evaluate("document.querySelector('#guest-filter').focus()")
        for _ in range(2):  # the region that scrolls, then the first guest in it
            browser.press("Tab", 9)
        assert browser.evaluate("document.activeElement.dataset.key") == "guest-vm1"
        browser.press("Enter", 13)
        browser.wait("document.querySelector('#detail').open && document.querySelector('#detail svg')")
        drawn = browser.evaluate(
            "[...document.querySelectorAll('#detail svg text')].map((each) => each.textContent)"
        )
        assert drawn[:2] == ["image golden", "pool/images/golden@image"]
        assert [text for text in drawn if text.startswith("@")] == ["@monday", "@tuesday"]
        told = browser.evaluate("document.querySelector('#detail svg').getAttribute('aria-label')")
        assert told == "pool/guests/vm1/disk-0: clone of pool/images/golden@image; 2 snapshots"
        body = browser.text("#detail-body")
        assert "imagestore guest rm vm1" in body
        assert "imagestore snap rm guests/vm1/disk-0@tuesday" in body
        browser.press("Escape", 27)
        browser.wait("!document.querySelector('#detail').open")
        assert browser.evaluate("document.activeElement.dataset.key") == "guest-vm1"


def test_the_journal_is_searched_and_a_dataset_explained(browser: Browser, process: StoreProcess) -> None:
    client = process.start()
    client.request_image("golden")
    client.create_guest_disks({"id": "vm1", "disks": [{"image": "golden"}]})
    client.create_volume("scratch", size_mib=1)
    with looked_at(browser, client):
        browser.type("#search-text", "scratch created")
        browser.press("Enter", 13)
        browser.wait_text("#events-state", "1 events found")
        assert "scratch (volume, 1M)" in browser.text("#events")
        client.create_volume("later", size_mib=1)
        browser.click("#search-form button[type=reset]")
        browser.wait_text("#events", "later (volume, 1M)")
        browser.type("#explain-name", "guests/vm1/disk-0")
        browser.press("Enter", 13)
        browser.wait_text("#story", "It came from images/golden@image")
        assert "CreateGuestDisks guests/vm1" in browser.text("#story")
        browser.type("#explain-name", "never")
        browser.press("Enter", 13)
        browser.wait_text("#story", "the journal knows nothing of never")


def test_every_control_has_a_name_and_the_page_its_landmarks(browser: Browser, process: StoreProcess) -> None:
    client = process.start()
    client.request_image("golden")
    client.create_guest_disks({"id": "vm1", "disks": [{"image": "golden"}]})
    with looked_at(browser, client):
        browser.wait(f"{ROWS} === 1")
        browser.wait_text("#image-list", "golden")
        nodes = browser.accessible()
        controls = {
            "button",
            "link",
            "textbox",
            "searchbox",
            "combobox",
            "checkbox",
            "progressbar",
            "img",
            "table",
        }
        assert [node for node in nodes if node["role"] in controls and not node["name"]] == []
        assert {"banner", "main", "contentinfo", "navigation", "search", "status"} <= {
            node["role"] for node in nodes
        }
        headings = [node["name"].split(" ")[0] for node in nodes if node["role"] == "heading"]
        assert headings[:5] == ["imagestore:", "State", "Pool", "Operations", "Failed"]
        assert browser.evaluate("document.documentElement.lang") == "en"
        assert browser.evaluate("document.querySelectorAll('th:not([scope])').length") == 0


CONTRAST = """(() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const speaks = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  for (const element of document.querySelectorAll('body *')) {
    if (!element.checkVisibility() || !speaks(element)) continue;
    const colours = [parse(getComputedStyle(element).color), ground(element)];
    const [a, b] = colours.map(luminance).sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(element.outerHTML.slice(0, 80));
  }
  return poor;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_both_schemes(browser: Browser, process: StoreProcess, scheme: str) -> None:
    client = process.start()
    client.create_guest_disks({"id": "vm1", "disks": [{"size": 1}]})
    browser.prefer(scheme)
    with looked_at(browser, client):
        browser.wait(f"{ROWS} === 1")
        for level in ("ok", "attention", "read-only", "lost"):
            browser.evaluate(
                "import('/ui/summary.js').then((m) => m.showCondition("
                f"{{level: '{level}', reason: 'because', next: 'mend', findings: []}}))"
            )
            assert browser.evaluate(CONTRAST) == [], level


def test_without_access_it_asks_for_a_token(browser: Browser, tmp_path: Path, service: SlowService) -> None:
    socket = str(tmp_path / "store.sock")
    more = ("--socket", socket, "--set", "loopback_role=none")
    with StoreProcess(str(tmp_path), service.address, more=more) as process:
        server = process.start().server
        admin = Client(f"unix:{socket}")
        secret = admin.create_token(TokenRequest(name="eyes", role="reader")).secret
        browser.open(f"{server}/")
        browser.wait_text("#access-title", "Access")
        browser.wait("document.activeElement.id === 'token'")
        browser.type("#token", "wrong")
        browser.press("Enter", 13)
        browser.wait_text("#access-reason", "the token is not known")
        browser.type("#token", str(secret))
        browser.press("Enter", 13)
        browser.wait_text("#connection", "live")
        admin.create_guest_disks({"id": "vm1", "disks": [{"size": 1}]})
        browser.wait(f"{ROWS} === 1")
        assert browser.evaluate("document.cookie + localStorage.length + sessionStorage.length") == "00"
