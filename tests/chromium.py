# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that shows a page: what it says of it, and how it looks."""

import base64
import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars"),
)
_SECONDS = 60.0
_SAID = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

# Every text, and every bar, against the background behind it, as WCAG has it.
_CONTRASTS = """
(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parts(color).slice(0, 3).map((c) => c / 255).map(
      (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((parts(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = own.map((node) => node.textContent).join("").trim();
    if (!text && element.tagName !== "rect") continue;
    const style = getComputedStyle(element);
    const color = element.ownerSVGElement ? style.fill : style.color;
    const [a, b] = [light(color), light(behind(element))].sort((a, b) => b - a);
    found.push([text, (a + 0.05) / (b + 0.05)]);
  }
  return found;
})()
"""


class Page:
    """A page, driven through Chromium's DevTools protocol. `said`: what the browser
    wrote into its console.
    """

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = to, of
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[str] = []
        self.said: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def show(
        self, path: Path, scheme: str, width: int, height: int, scale: float = 1
    ) -> None:
        """A file, to a reader who likes it "light" or "dark"."""
        wanted = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[wanted])
        size = {"width": width, "height": height, "deviceScaleFactor": scale}
        self._call("Emulation.setDeviceMetricsOverride", **size, mobile=False)
        self._events.clear()
        self._call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._receive()

    def contrasts(self) -> list[tuple[str, float]]:
        """Of each text, and of each bar (without a text), 1 to 21."""
        return [(text, ratio) for text, ratio in self._evaluate(_CONTRASTS)]

    def overflows(self) -> bool:
        """Is it wider than the window?"""
        root = "document.documentElement"
        return bool(self._evaluate(f"{root}.scrollWidth > {root}.clientWidth"))

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _evaluate(self, expression: str) -> Any:
        told = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"]["value"]

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = self._receive()
            if told.get("id") == number:
                assert "result" in told, told
                return dict(told["result"])

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            assert select.select([self._of], [], [], max(0.0, left))[0], "no answer"
            piece = os.read(self._of, 1 << 20)
            assert piece, "Chromium has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        if "method" in told:
            self._events.append(told["method"])
            if told["method"] in _SAID:
                self.said.append(json.dumps(told["params"]))
        return told


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A browser of its own, with nothing remembered; gone at the end."""
    its_input, to = os.pipe()
    of, its_output = os.pipe()
    # It talks on 3 and 4; the shell puts them there, and becomes it.
    script = f'exec chromium "$@" 3<&{its_input} 4>&{its_output}'
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(
            ["bash", "-c", script, "bash", *_FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(its_input, its_output),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
    ):
        os.close(its_input)
        os.close(its_output)
        try:
            yield Page(to, of)
        finally:
            os.killpg(process.pid, 9)
            process.wait()
            os.close(to)
            os.close(of)
