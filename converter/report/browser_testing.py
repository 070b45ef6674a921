"""A headless Chromium, driven by its DevTools protocol: opens a page, listens to its console, takes pictures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_S, _ANSWER_S = 40, 60


def _browser() -> str:
    """The first of the known programs on the PATH; without one, the test that asks is skipped."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    return program or pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")


def screenshot_folder() -> Path:
    """Where tests leave their pictures: `build/screenshots` of the repository, or where Bazel collects outputs."""
    root = Path(__file__).resolve().parents[2] / "build"
    folder = Path(os.environ.get("TEST_UNDECLARED_OUTPUTS_DIR", root)) / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Page:
    """The browser's one page."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._last = socket, 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and waits for its answer."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        method, parameters = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(parameters["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, file: Path, *, width: int, dark: bool = False, height: int = 900) -> None:
        """Opens a file as on a screen of that many CSS pixels; what it complains of is in `complaints`."""
        self.complaints, self.requests, self._loaded = [], [], False
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=file.resolve().as_uri())
        while not self._loaded:
            self._hear(json.loads(self._socket.recv()))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of the page's script."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard, by its name."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, file: Path, *, tallest: int = 6000) -> Path:
        """A PNG of the whole page, down to `tallest` pixels."""
        sizes = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": sizes["width"], "height": min(sizes["height"], tallest), "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in `folder`, ended with all its processes."""
    program = _browser()
    flags = ["--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--hide-scrollbars"]
    flags += ["--disable-dev-shm-usage", "--disable-background-networking", "--remote-allow-origins=*"]
    flags += [f"--user-data-dir={folder}"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [program, *flags, "about:blank"], stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    try:
        socket = websocket.create_connection(_page_address(*_address(process, folder)), timeout=_ANSWER_S)
        try:
            yield Page(socket)
        finally:
            socket.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _address(process: subprocess.Popen, folder: Path) -> tuple[str, str]:
    """Where the browser listens, and the path of the browser itself: it writes both into its profile."""
    written = folder / "DevToolsActivePort"
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if written.exists() and len(lines := written.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}", lines[1]
        assert process.poll() is None, f"the browser ended: {(folder / 'log.txt').read_text()[-2000:]}"
        time.sleep(0.05)
    raise TimeoutError(f"the browser did not start: {(folder / 'log.txt').read_text()[-2000:]}")


def _page_address(address: str, path: str) -> str:
    socket = websocket.create_connection(address + path, timeout=_ANSWER_S)
    try:
        socket.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
        targets = json.loads(socket.recv())["result"]["targetInfos"]
        return f"{address}/devtools/page/" + next(t["targetId"] for t in targets if t["type"] == "page")
    finally:
        socket.close()


# What is wrong with a report as the browser shows it, as sentences; opens every layer first.
_FAULTS = """
(() => {
  const faults = [];
  for (const each of document.querySelectorAll("details")) each.open = true;
  for (const plot of document.querySelectorAll("svg.plot")) {
    const name = plot.getAttribute("aria-label"), box = plot.getBoundingClientRect();
    const visible = [...plot.querySelectorAll("path")].filter((path) => {
      const { width, height } = path.getBBox(), { stroke, fill } = getComputedStyle(path);
      return (width || height) && (stroke !== "none" || fill !== "none");
    });
    if (!name) faults.push("a figure without a description");
    if (box.width < 250 || box.height < 140) faults.push(`figure '${name}' is ${box.width} x ${box.height}`);
    if (visible.length < 5 || plot.querySelectorAll("text").length < 4) faults.push(`figure '${name}' is not drawn`);
    for (const text of plot.querySelectorAll("text")) {
      const place = text.getBoundingClientRect();
      if (place.left < box.left - 1 || place.right > box.right + 1 || place.top < box.top - 1 || place.bottom > box.bottom + 1)
        faults.push(`'${text.textContent}' of figure '${name}' is cut off`);
    }
  }
  for (const image of document.images) if (!image.naturalWidth) faults.push(`image '${image.alt}' is not drawn`);
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`two elements with id ${id}`);
  for (const link of document.querySelectorAll("a")) {
    const target = link.getAttribute("href");
    if (!ids.includes(target.slice(1))) faults.push(`a link to ${target}, which is not there`);
  }
  for (const use of document.querySelectorAll("use"))
    if (!ids.includes(use.getAttribute("xlink:href").slice(1))) faults.push("a mark of a figure is missing");
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`the page is ${root.scrollWidth} wide on a screen of ${root.clientWidth}`);
  for (const text of document.querySelectorAll("svg.network text")) {
    const svg = text.ownerSVGElement.getBoundingClientRect();
    if (text.getBoundingClientRect().right > svg.right + 1) faults.push(`'${text.textContent}' leaves the network's picture`);
  }
  return faults;
})()
"""


def faults(page: Page) -> list[str]:
    """What is wrong with the report that is open: figures, images, links, width, what the console says, requests."""
    found = [*page.evaluate(_FAULTS), *(f"console: {text[:300]}" for text in page.complaints)]
    outside = [url for url in page.requests if not url.startswith(("file:", "data:"))]
    return found + [f"asks for {url}" for url in outside]
