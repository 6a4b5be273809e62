"""Checks of the built site. Every problem found fails the strict build."""

from __future__ import annotations

import importlib
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_BYTES = 300_000
"""The maximum size of a page, without its pictures."""

MAX_BYTES_WITH_PICTURES = 1_000_000
"""The maximum size of a page with the pictures that it embeds."""

_RESOURCES = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}


@dataclass(slots=True)
class BuiltPage:
    """The contents of a built page.

    Attributes:
        n_bytes: The size, without pictures.
        n_bytes_with_pictures: The size with embedded pictures.
        ids: The anchors.
        links: The targets of links.
        resources: The URLs that a browser loads with the page.
        without_alt: The sources of pictures without alternative text.
    """

    n_bytes: int
    n_bytes_with_pictures: int
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    without_alt: list[str] = field(default_factory=list)


class _PageParser(HTMLParser):
    def __init__(self, page: BuiltPage) -> None:
        super().__init__()
        self.page = page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if "id" in values:
            self.page.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        if tag in _RESOURCES and values.get(_RESOURCES[tag]):
            self.page.resources.append(values[_RESOURCES[tag]])
        alt = values.get("alt", "").strip()
        if tag == "img" and (not alt or alt.startswith("No description")):
            self.page.without_alt.append(values.get("src", "")[:60])
        if tag == "svg" and values.get("role") == "img" and not values.get("aria-label"):
            self.page.without_alt.append("an SVG figure")


def parse(text: str) -> BuiltPage:
    """Parse the HTML of a page."""
    without = re.sub(r"data:image/[^\"']+", "", text)
    page = BuiltPage(len(without.encode()), len(text.encode()))
    parser = _PageParser(page)
    parser.feed(text)
    parser.close()
    return page


def parse_site(site: Path) -> dict[str, BuiltPage]:
    """Parse all pages of a built site; the keys are paths relative to its folder."""
    return {
        path.relative_to(site).as_posix(): parse(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def check(site: Path, pages: dict[str, BuiltPage]) -> Iterator[str]:
    """Yield one line for each problem in a built site.

    Args:
        site: The folder of the built site.
        pages: Its pages, from `parse_site`.
    """
    for name, page in pages.items():
        if page.n_bytes > MAX_BYTES:
            yield f"{name}: {page.n_bytes:,} bytes, more than {MAX_BYTES:,}."
        if page.n_bytes_with_pictures > MAX_BYTES_WITH_PICTURES:
            size = f"{page.n_bytes_with_pictures:,} bytes with its pictures"
            yield f"{name}: {size}, more than {MAX_BYTES_WITH_PICTURES:,}."
        for source in page.without_alt:
            yield f"{name}: a picture without alternative text: {source}."
        for url in page.resources:
            if urlsplit(url).netloc:
                yield f"{name}: loads {url} from another site."
        if name != "404.html":  # served at any depth, so its links start at the root
            for url in (*page.links, *page.resources):
                yield from _dead_link(site, pages, name, url)


def _dead_link(site: Path, pages: dict[str, BuiltPage], name: str, url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
    target = path if parts.path else name
    if (site / target).is_dir():
        target = posixpath.normpath(posixpath.join(target, "index.html"))
    if not (site / target).is_file():
        yield f"{name}: links to {url}, which does not exist."
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"{name}: links to {url}, but the page has no such anchor."


def undocumented(pages: dict[str, BuiltPage], packages: Iterable[str]) -> Iterator[str]:
    """Yield one line for each public name that the API reference does not document.

    Args:
        pages: The pages of the built site, from `parse_site`.
        packages: The names of the packages.
    """
    ids = {
        anchor
        for name, page in pages.items()
        if name.startswith("reference/")
        for anchor in page.ids
    }
    for package in packages:
        for name in importlib.import_module(f"scenelearn.{package}").__all__:
            if f"scenelearn.{package}.{name}" not in ids:
                yield f"scenelearn.{package}.{name} is public but not in the API reference."
