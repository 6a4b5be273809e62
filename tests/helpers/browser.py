"""A headless Chromium, driven by Playwright; tests skip where either is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
TIMEOUT_MS = 60_000  # also on a busy machine


@dataclass
class Page:
    """One tab, and what it requested and logged since it was opened."""

    driver: Any
    urls: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Open a page."""
        self.urls.clear()
        self.errors.clear()
        self.driver.goto(url)

    def resize(self, width: int) -> None:
        """Set the width of the window."""
        self.driver.set_viewport_size({"width": width, "height": 844})

    def external_requests(self, url: str) -> set[str]:
        """Requests to other sites."""
        return {each for each in self.urls if not each.startswith((url, "data:", "blob:"))}

    def overflow_px(self) -> int:
        """How much wider the page is than the window."""
        script = "document.documentElement.scrollWidth - window.innerWidth"
        return int(self.driver.evaluate(script))

    def accessibility_findings(self, selector: str = "html") -> list[Any]:
        """What axe-core finds in parts of the page; skips the test without SCENELEARN_AXE."""
        file = os.environ.get("SCENELEARN_AXE")
        if not file:
            pytest.skip("SCENELEARN_AXE is not set")
        self.driver.evaluate(Path(file).read_text(encoding="utf-8"))
        script = """selector => axe.run([...document.querySelectorAll(selector)]).then(
            found => found.violations.map(v => [v.id, v.nodes[0].html.slice(0, 200)]))"""
        return list(self.driver.evaluate(script, selector))


@contextmanager
def open_browser() -> Iterator[Page]:
    """A browser with one tab."""
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(bypass_csp=True)  # for axe-core
        tab.set_default_timeout(TIMEOUT_MS)
        page = Page(tab)
        tab.on("request", lambda request: page.urls.add(request.url))
        tab.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        browser.close()
