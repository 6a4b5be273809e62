"""Every page of the built site in a real browser: `nox -s browser`.

Opens each page in headless Chromium, in the light and the dark theme, and looks for: errors on the
console, requests that fail or leave the site, sideways scrolling on a phone, outputs that scroll
although the window is wide, and what axe-core calls a serious violation. Then asks the site's
search for a part of a name. The site is served below a folder, as it may be on a real server.
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
from typing import Any
from urllib.parse import urlsplit

from tornado.websocket import WebSocketClientConnection, websocket_connect

FOLDER = "/some/folder/"
PHONE_PX, DESKTOP_PX = 360, 1280
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SEARCHED, FOUND = "max_batch", "Estimate.max_batch"

SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"
SCROLLING = """[...document.querySelectorAll('.cell-output')]
    .filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => one.innerText.slice(0, 50))"""
AXE = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .map(one => `${one.id}: ${one.help}: ` + one.nodes.slice(0, 3).map(
        node => node.target.join(' ') + ' ' + (node.any[0]?.message ?? '')).join(' | ')))"""
SEARCH = """new Promise(resolve => {
    document.querySelector('#__search').checked = true;
    const input = document.querySelector('.md-search__input');
    input.focus(); input.value = %s;
    input.dispatchEvent(new Event('keyup', {bubbles: true}));
    input.dispatchEvent(new Event('input', {bubbles: true}));
    setTimeout(() => resolve([...document.querySelectorAll('.md-search-result__link')].map(
        one => one.href)), 4000)})"""


@dataclass
class Browser:
    """A headless Chromium with one tab, spoken to by its DevTools protocol.

    Attributes:
        socket: to the browser.
        session: of the tab.
        events: what the tab has reported since the last page.
    """

    socket: WebSocketClientConnection
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.write_message(json.dumps(message))
        while True:
            heard = await self._hear()
            if heard.get("id") == number:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']['message']}")
                return dict(heard["result"])

    async def wait_for(self, method: str) -> None:
        """Wait until the tab reports this."""
        while not any(event["method"] == method for event in self.events):
            await self._hear()

    async def js(self, expression: str) -> Any:
        """The value of an expression in the tab."""
        answer = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        self.events.clear()
        await self.ask("Page.navigate", url=url)
        await self.wait_for("Page.loadEventFired")
        await self.js("new Promise(resolve => setTimeout(resolve, 400))")

    async def width(self, px: int, *, mobile: bool = False) -> None:
        """Give the window a width."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=px,
            height=900,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    async def theme(self, name: str) -> None:
        """Let the reader prefer light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.ask("Emulation.setEmulatedMedia", features=features)

    async def forget(self, site: str) -> None:
        """Drop what the site has stored: the theme that was shown last would win."""
        await self.open("about:blank")  # a page that is open would store it again
        parts = urlsplit(site)
        origin = f"{parts.scheme}://{parts.netloc}"
        await self.ask("Storage.clearDataForOrigin", origin=origin, storageTypes="local_storage")

    async def shoot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = (await self.ask("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _hear(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.read_message(), timeout=120)
        if text is None:
            raise RuntimeError("The browser closed the connection.")
        heard: dict[str, Any] = json.loads(text)
        if "method" in heard:
            self.events.append(heard)
        return heard


class _Below(http.server.SimpleHTTPRequestHandler):
    """Serves a folder below `FOLDER`, silently."""

    def translate_path(self, path: str) -> str:
        inside = path.removeprefix(FOLDER) if path.startswith(FOLDER) else "nothing is here"
        return super().translate_path("/" + inside)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    """The site on this machine, as long as the block runs; gives its address."""
    handler = partial(_Below, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{FOLDER}"
        server.shutdown()


@contextlib.contextmanager
def chromium() -> Iterator[str]:
    """A headless browser, as long as the block runs; gives the address of its socket."""
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
                if found := re.search(r"ws://\S+", line):
                    threading.Thread(target=process.stderr.read, daemon=True).start()
                    yield found[0]
                    break
            else:
                sys.exit("Chromium did not start.")
        finally:
            process.terminate()
            process.wait(timeout=20)


def wrong(events: list[dict[str, Any]], site: str) -> Iterator[str]:
    """What a page's events say went wrong: errors, and requests that fail or leave the site."""
    for event in events:
        about = event["params"]
        match event["method"]:
            case "Runtime.exceptionThrown":
                yield f"exception: {about['exceptionDetails']['text']}"
            case "Runtime.consoleAPICalled" if about["type"] == "error":
                yield f"console: {[one.get('value') for one in about['args']]}"
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
    """What is wrong with a page, a line each."""
    found = []
    for theme in THEMES:
        await browser.forget(site)
        await browser.theme(theme)
        await browser.width(DESKTOP_PX)
        await browser.open(site + page)
        found += [f"{theme}: {one}" for one in wrong(browser.events, site)]
        await browser.js(axe)
        found += [f"{theme}: {one}" for one in await browser.js(AXE)]
        if theme == THEMES[0]:
            found += [f"output scrolls: {one!r}" for one in await browser.js(SCROLLING)]
            await browser.width(PHONE_PX, mobile=True)
            if (over := await browser.js(SIDEWAYS)) > 0:
                found.append(f"{over} px too wide on a phone of {PHONE_PX} px")
    return [f"{page}: {one}" for one in found]


async def run(site: Path, url: str, socket: str, options: argparse.Namespace) -> list[str]:
    """Visit all pages; what is wrong, a line each."""
    axe = Path(options.axe).read_text(encoding="utf-8")
    browser = Browser(await websocket_connect(socket, max_message_size=2**28))
    tab = await browser.ask("Target.createTarget", url="about:blank")
    attached = await browser.ask("Target.attachToTarget", targetId=tab["targetId"], flatten=True)
    browser.session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        await browser.ask(f"{domain}.enable")
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    chosen = [page for page in pages if page != "404.html" and re.search(options.only, page)]
    found = []
    for page in chosen:
        here = await visit(browser, url, page, axe)
        print("\n".join(here) if here else f"{page}: fine", flush=True)
        found += here
        if options.shots:
            await shoot(browser, url, page, Path(options.shots))
    await browser.theme("light")
    await browser.width(DESKTOP_PX)
    await browser.open(f"{url}index.html")
    links = await browser.js(SEARCH % json.dumps(SEARCHED))
    if not any(FOUND in link for link in links):
        found.append(f"search for {SEARCHED!r} does not find {FOUND}: {links[:5]}")
        print(found[-1])
    return found


async def shoot(browser: Browser, url: str, page: str, folder: Path) -> None:
    """Pictures of a page: light on a desk, dark on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    name = page.removesuffix(".html").replace("/", "-")
    for theme, px in zip(THEMES, (DESKTOP_PX, PHONE_PX), strict=True):
        await browser.forget(url)
        await browser.theme(theme)
        await browser.width(px, mobile=px == PHONE_PX)
        await browser.open(url + page)
        await browser.shoot(folder / f"{name}-{theme}-{px}.png")


def main() -> int:
    """Visit the pages and say what is wrong; 1 if anything is."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("site", type=Path, help="the folder of the built site")
    options.add_argument("--axe", help="axe.min.js [the one of axe-playwright-python]")
    options.add_argument("--shots", help="a folder for pictures of the pages")
    options.add_argument("--only", default="", help="pages whose path matches this")
    given = options.parse_args()
    if given.axe is None:
        given.axe = str(resources.files("axe_playwright_python") / "axe.min.js")
    with served(given.site) as url, chromium() as socket:
        found = asyncio.run(run(given.site, url, socket, given))
    print(f"{len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
