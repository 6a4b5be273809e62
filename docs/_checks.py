"""Checks on the built site. What they find fails the strict build.

Run on the finished pages, so that they hold for every page alike, however it was made.
"""

from __future__ import annotations

import importlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 300_000
"""No page is larger, its pictures not counted."""

_LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}


@dataclass(slots=True)
class Built:
    """What a built page holds.

    Attributes:
        n_bytes: its size, without what it loads.
        ids: its anchors.
        links: where it links to.
        loaded: what a browser loads with it.
        undescribed: pictures without alternative text, by their sources.
    """

    n_bytes: int
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    undescribed: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self, built: Built) -> None:
        super().__init__()
        self.built = built

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if "id" in given:
            self.built.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.built.links.append(given["href"])
        if tag in _LOADED and given.get(_LOADED[tag]):
            self.built.loaded.append(given[_LOADED[tag]])
        alt = given.get("alt", "").strip()
        if tag == "img" and (not alt or alt.startswith("No description")):
            self.built.undescribed.append(given.get("src", "")[:60])
        if tag == "svg" and given.get("role") == "img" and not given.get("aria-label"):
            self.built.undescribed.append("a drawing")


def read(text: str) -> Built:
    """What a page holds.

    Args:
        text: its HTML.
    """
    built = Built(n_bytes=len(text.encode()))
    reader = _Reader(built)
    reader.feed(text)
    reader.close()
    return built


def read_all(site: Path) -> dict[str, Built]:
    """The pages of a built site by their paths.

    Args:
        site: the folder of the built site.
    """
    return {
        path.relative_to(site).as_posix(): read(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def check(site: Path, pages: dict[str, Built]) -> Iterator[str]:
    """What is wrong with the pages of a built site, one line each.

    Args:
        site: the folder of the built site.
        pages: of it, from `read_all`.
    """
    for name, page in pages.items():
        if page.n_bytes > MOST_BYTES:
            yield f"{name}: {page.n_bytes:,} bytes, more than {MOST_BYTES:,}."
        for source in page.undescribed:
            yield f"{name}: a picture without alternative text: {source}."
        for url in page.loaded:
            if urlsplit(url).netloc:
                yield f"{name}: it loads {url}, from another site."
        if name != "404.html":  # shown at any depth, so its links start at the root
            for url in (*page.links, *page.loaded):
                yield from _dead(site, pages, name, url)


def _dead(site: Path, pages: dict[str, Built], name: str, url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
    target = name if not parts.path else path
    if (site / target).is_dir():
        target = posixpath.normpath(posixpath.join(target, "index.html"))
    if not (site / target).is_file():
        yield f"{name}: a link to {url}, which is not there."
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"{name}: a link to {url}, where there is no such anchor."


def undocumented(pages: dict[str, Built], rooms: Iterable[str]) -> Iterator[str]:
    """Public names that no page of the reference describes.

    Args:
        pages: of the built site, from `read_all`.
        rooms: names of the rooms.
    """
    ids = {one for name, page in pages.items() if name.startswith("reference/") for one in page.ids}
    for room in rooms:
        for name in importlib.import_module(f"scenelearn.{room}").__all__:
            if f"scenelearn.{room}.{name}" not in ids:
                yield f"scenelearn.{room}.{name} is public, and the reference does not have it."
