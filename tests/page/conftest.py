"""A browser for all tests of the page, and stores to look at."""

from collections.abc import Iterator

import pytest

from tests.page.browser import Browser


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(tmp_path_factory.mktemp("chromium"))) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """On an empty page, with nothing to complain of."""
    chromium.open("about:blank")
    chromium.wait("location.href === 'about:blank'")
    chromium.complaints.clear()
    chromium.requests.clear()
    return chromium
