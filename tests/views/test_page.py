# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison in a browser: nothing to complain of, legible to all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.record.measured import read
from agent.snapshot.comparison import compare
from agent.views.page import compared_html
from tests.chromium import Page, chromium
from tests.record.fakes import record

LEAST_TEXT, LEAST_BAR = 4.5, 3.0  # WCAG AA


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """IPv4 is better, IPv6 worse."""
    for name, big, fast in (("off", 0, "ipv6"), ("on", 50, "ipv4")):
        told = record(name, [100.0, 101.0, 102.0], big)
        faster = record(name, [130.0, 131.0, 133.0], big, p50=12)
        both = {
            family: (faster if family == fast else told).families["ipv4"]
            for family in ("ipv4", "ipv6")
        }
        told.families.update(both)
        (tmp_path / f"{name}.json").write_text(told.json())
    off, on = (read(str(tmp_path / f"{name}.json")) for name in ("off", "on"))
    page = tmp_path / "page.html"
    page.write_text(compared_html(compare(off, on)))
    return page


def test_it_is_legible_on_light_and_dark(browser: Page, path: Path) -> None:
    seen = []
    for scheme in ("light", "dark"):
        browser.show(path, scheme, 960, 1200)
        contrasts = browser.contrasts()
        assert {"better", "worse", "not judged"} <= {text for text, _ in contrasts}
        for text, ratio in contrasts:
            assert ratio >= (LEAST_TEXT if text else LEAST_BAR), (scheme, text, ratio)
        assert not browser.overflows()
        seen.append(browser.picture())
    assert seen[0] != seen[1]
    assert browser.said == []


def test_it_fits_a_telephone(browser: Page, path: Path) -> None:
    browser.show(path, "light", 360, 800)
    assert not browser.overflows()


def test_the_browser_complains_of_what_a_page_must_not_have(
    browser: Page, path: Path
) -> None:
    path.write_text(path.read_text().replace("</body>", "<script>1</script></body>"))
    browser.show(path, "light", 960, 1200)
    (said,) = browser.said
    assert "Content Security Policy" in said
    browser.said.clear()
