"""Check every page of the built site in a real browser: `nox -s browser`.

    python -m tests.bench.browser SITE [--axe FILE] [--shots FOLDER] [--only PATTERN]

Opens each page in headless Chromium, in the light and the dark theme, and looks for errors on the
console, requests that fail or leave the site, horizontal scrolling on a phone, outputs that scroll
although the window is wide, pages over 1 MB, and violations that axe-core finds. Then searches the
site for a part of a name. The site is served below a folder, as it may be on a real server.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.server
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.bench._common import bench_parser

if TYPE_CHECKING:
    from tornado.websocket import WebSocketClientConnection

FOLDER = "/some/folder/"
PHONE_PX, DESKTOP_PX = 360, 1280
MAX_BYTES = 1_000_000  # of a page
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SEARCHED, FOUND = "max_batch", "Estimate.max_batch"

OVERFLOW_PX = "document.documentElement.scrollWidth - window.innerWidth"
SCROLLING = """[...document.querySelectorAll('.cell-output')]
    .filter(output => output.scrollWidth > output.clientWidth + 1)
    .map(output => output.innerText.slice(0, 50))"""
# The theme gives the landmarks of all code blocks one name.
AXE = """axe.run(
    {include: [['body']], exclude: [['.md-code__nav']]}, {resultTypes: ['violations']}
).then(result => result.violations
    .map(rule => `${rule.id}: ${rule.help}: ` + rule.nodes.slice(0, 3).map(
        node => node.target.join(' ') + ' ' + (node.any[0]?.message ?? '')).join(' | ')))"""
SEARCH = """new Promise(resolve => {
    document.querySelector('#__search').checked = true;
    const input = document.querySelector('.md-search__input');
    input.focus(); input.value = %s;
    input.dispatchEvent(new Event('keyup', {bubbles: true}));
    input.dispatchEvent(new Event('input', {bubbles: true}));
    setTimeout(() => resolve([...document.querySelectorAll('.md-search-result__link')].map(
        link => link.href)), 4000)})"""


@dataclass
class Browser:
    """A headless Chromium with one tab, controlled through its DevTools protocol.

    Attributes:
        socket: the connection to the browser.
        session: the id of the tab.
        events: what the tab reported since the last page.
    """

    socket: WebSocketClientConnection
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        await self.socket.write_message(json.dumps(request))
        while True:
            message = await self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return dict(message["result"])

    async def wait_for(self, method: str) -> None:
        """Wait until the tab reports this event."""
        while not any(event["method"] == method for event in self.events):
            await self._receive()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the tab."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self.events.clear()
        await self.send("Page.navigate", url=url)
        await self.wait_for("Page.loadEventFired")
        await self.evaluate("new Promise(resolve => setTimeout(resolve, 400))")

    async def set_width(self, px: int, *, mobile: bool = False) -> None:
        """Set the width of the window."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=px,
            height=900,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    async def set_theme(self, name: str) -> None:
        """Set whether the reader prefers light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def clear_storage(self, site: str) -> None:
        """Clear the local storage of the site, where the last theme is stored."""
        await self.open("about:blank")  # an open page would store it again
        parts = urlsplit(site)
        origin = f"{parts.scheme}://{parts.netloc}"
        await self.send("Storage.clearDataForOrigin", origin=origin, storageTypes="local_storage")

    async def screenshot(self, path: Path) -> None:
        """Save a picture of the whole page."""
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _receive(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.read_message(), timeout=120)
        if text is None:
            raise RuntimeError("The browser closed the connection.")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder below `FOLDER`, silently."""

    def translate_path(self, path: str) -> str:
        inside = path.removeprefix(FOLDER) if path.startswith(FOLDER) else "nothing"
        return super().translate_path("/" + inside)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serve(site: Path) -> Iterator[str]:
    """Serve the site on this machine while the block runs; yields its address."""
    handler = partial(_Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{FOLDER}"
        server.shutdown()


@contextlib.contextmanager
def chromium() -> Iterator[str]:
    """Run a headless browser while the block runs; yields the address of its socket."""
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        sys.exit("No Chromium is installed: apt-get install -y chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                command,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if address := re.search(r"ws://\S+", line):
                    threading.Thread(target=process.stderr.read, daemon=True).start()
                    yield address[0]
                    break
            else:
                sys.exit("Chromium did not start.")
        finally:
            process.terminate()
            process.wait(timeout=20)


def find_errors(events: list[dict[str, Any]], site: str) -> Iterator[str]:
    """Errors among a page's events, and requests that fail or leave the site."""
    for event in events:
        about = event["params"]
        match event["method"]:
            case "Runtime.exceptionThrown":
                yield f"exception: {about['exceptionDetails']['text']}"
            case "Runtime.consoleAPICalled" if about["type"] == "error":
                yield f"console: {[argument.get('value') for argument in about['args']]}"
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                yield f"log: {about['entry']['text']} {about['entry'].get('url', '')}"
            case "Network.requestWillBeSent":
                url = about["request"]["url"]
                if not url.startswith((site, "data:", "blob:", "about:")):
                    yield f"request that leaves the site: {url}"
            case "Network.loadingFailed":
                yield f"request that failed: {about['errorText']}"
            case "Network.responseReceived" if about["response"]["status"] >= 400:
                yield f"{about['response']['status']}: {about['response']['url']}"


async def visit(browser: Browser, site: str, page: str, axe: str) -> list[str]:
    """The findings on a page, one per line."""
    findings = []
    for theme in THEMES:
        await browser.clear_storage(site)
        await browser.set_theme(theme)
        await browser.set_width(DESKTOP_PX)
        await browser.open(site + page)
        findings += [f"{theme}: {error}" for error in find_errors(browser.events, site)]
        await browser.evaluate(axe)
        findings += [f"{theme}: {text}" for text in await browser.evaluate(AXE)]
        if theme == THEMES[0]:
            findings += [f"output scrolls: {text!r}" for text in await browser.evaluate(SCROLLING)]
            await browser.set_width(PHONE_PX, mobile=True)
            if (excess := await browser.evaluate(OVERFLOW_PX)) > 0:
                findings.append(f"{excess} px too wide on a phone of {PHONE_PX} px")
    return [f"{page}: {text}" for text in findings]


async def run(site: Path, url: str, socket: str, options: argparse.Namespace) -> list[str]:
    """Visit all pages; the findings, one per line."""
    from tornado.websocket import websocket_connect

    axe = Path(options.axe).read_text(encoding="utf-8")
    browser = Browser(await websocket_connect(socket, max_message_size=2**28))
    tab = await browser.send("Target.createTarget", url="about:blank")
    attached = await browser.send("Target.attachToTarget", targetId=tab["targetId"], flatten=True)
    browser.session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        await browser.send(f"{domain}.enable")
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    chosen = [page for page in pages if page != "404.html" and re.search(options.only, page)]
    findings = []
    for page in chosen:
        new = await visit(browser, url, page, axe)
        if (size := (site / page).stat().st_size) > MAX_BYTES:
            new.append(f"{page}: {size:,} bytes")
        print("\n".join(new) if new else f"{page}: no findings", flush=True)
        findings += new
        if options.shots:
            await save_screenshots(browser, url, page, Path(options.shots))
    await browser.set_theme("light")
    await browser.set_width(DESKTOP_PX)
    await browser.open(f"{url}index.html")
    links = await browser.evaluate(SEARCH % json.dumps(SEARCHED))
    if not any(FOUND in link for link in links):
        findings.append(f"search for {SEARCHED!r} does not find {FOUND}: {links[:5]}")
        print(findings[-1])
    return findings


async def save_screenshots(browser: Browser, url: str, page: str, folder: Path) -> None:
    """Save pictures of a page: light on a desktop, dark on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    name = page.removesuffix(".html").replace("/", "-")
    for theme, px in zip(THEMES, (DESKTOP_PX, PHONE_PX), strict=True):
        await browser.clear_storage(url)
        await browser.set_theme(theme)
        await browser.set_width(px, mobile=px == PHONE_PX)
        await browser.open(url + page)
        await browser.screenshot(folder / f"{name}-{theme}-{px}.png")


def main() -> int:
    """Visit the pages and print the findings; 1 if there are any."""
    parser = bench_parser("browser", __doc__)
    parser.add_argument("site", metavar="SITE", type=Path, help="folder of the built site")
    parser.add_argument(
        "--axe", metavar="FILE", help="axe.min.js (default: the one of axe-playwright-python)"
    )
    parser.add_argument("--shots", metavar="FOLDER", help="where to save pictures of the pages")
    parser.add_argument("--only", metavar="PATTERN", default="", help="pages whose path matches")
    options = parser.parse_args()
    if options.axe is None:
        options.axe = str(resources.files("axe_playwright_python") / "axe.min.js")
    with serve(options.site) as url, chromium() as socket:
        findings = asyncio.run(run(options.site, url, socket, options))
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
