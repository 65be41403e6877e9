# SPDX-License-Identifier: Apache-2.0
"""The README's pictures, of real traffic: `python -m tests.pictures [RECORDS]`.

docs/compare-*.png: the page of off.json and on.json in the folder RECORDS, which
`demo --record` has written; without one the demo runs. docs/top.svg: `top` with probes
of its own on the demo's router, while its uplink is at 64 KiB.
"""

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from agent import inquiry
from agent.lab.demo import BIG, LEGACY
from agent.lab.netns import chain
from agent.lab.netperf import MESSAGE_BYTES, PORT, serve
from agent.settings import Cluster
from agent.views.top.app import TopApp
from agent.watching import Live, LiveFeed
from tests.chromium import chromium
from tests.process import COMMAND

DOCS = Path(__file__).parent.parent / "docs"
PAGE_SIZE = (900, 1725)  # the first family, to the last run of it
SCREEN_SIZE = (104, 15)
SAMPLES = 16  # of a trend
NOWHERE = Cluster("/nonexistent", "", "", "", "", pods=False)


def compared(records: Path) -> None:
    """The page, as a reader of each taste sees it; an error where it is not whole."""
    with tempfile.TemporaryDirectory() as work, chromium() as page:
        path = Path(work) / "page.html"
        both = [str(records / f"{name}.json") for name in ("off", "on")]
        subprocess.run([COMMAND, "compare", *both, "--html", str(path)], check=True)
        for scheme in ("light", "dark"):
            page.show(path, scheme, *PAGE_SIZE, scale=0.8)
            (DOCS / f"compare-{scheme}.png").write_bytes(page.picture())
        assert page.said == [], page.said


def screen() -> None:
    """Run it where packets are cut."""
    with chain() as stand:
        stand.set_sizes(BIG, uplink=LEGACY)
        serve(stand.server, 0)
        address, size = stand.addresses["ipv4"], str(MESSAGE_BYTES)
        stand.client.start(
            *("netperf", "-4", "-H", address, "-p", str(PORT), "-l", "600"),
            *("-t", "TCP_RR", "--", "-r", f"{size}:{size}"),
        )
        assert stand.uplink
        router, _ = stand.uplink
        router.run(sys.executable, "-m", "tests.pictures", "--here")


async def here() -> None:
    """Draw what passes in this network namespace."""
    with inquiry.asked(None, NOWHERE) as who:
        feed = LiveFeed(Live(who, None), 0.5)
        app = TopApp(feed)
        async with app.run_test(size=SCREEN_SIZE) as pilot:
            await pilot.press("4", "slash", *"link", "enter")
            while not any(len(row.trend) >= SAMPLES for row in app.traffic.rows):
                await pilot.pause(0.1)
            drawn = app.export_screenshot(title="bigtcp-agent top")
        feed.stop()
    # No font, nor anything else, of somebody's server.
    drawn = re.sub(r" *(@font-face \{.*?\}|<!--.*?-->)\n", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "monospace")
    assert "http" not in drawn.replace("http://www.w3.org/", "")
    (DOCS / "top.svg").write_text(drawn)


def main() -> None:
    if sys.argv[1:] == ["--here"]:
        asyncio.run(here())
        return
    with tempfile.TemporaryDirectory() as work:
        records = Path(sys.argv[1]) if sys.argv[1:] else Path(work)
        if not sys.argv[1:]:
            demo = (COMMAND, "demo", "--rounds", "5", "--record", work)
            subprocess.run(demo, check=True)
        compared(records)
    screen()


if __name__ == "__main__":
    main()
