"""The page of an audit: every finding with its photos, a filter, and ticks for the quarantine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn.reporting._background import refused
from scenelearn.reporting._markup import count, name, path, section, text
from scenelearn.reporting._pictures import picture
from scenelearn.reporting._shell import document

if TYPE_CHECKING:
    from scenelearn.data import Audit

_THUMBNAIL_PX = 112
_MOST_FINDINGS = 60  # of one kind on the page; all are in audit.json
_MOST_PHOTOS = 12  # of one finding

_KINDS = (
    ("two_labels", "One picture under two classes", "At most one of the two is right."),
    ("across_sides", "One picture on two sides", "What was trained on would be tested on."),
    ("suspicious", "Labels that look wrong", "By all other photos; glance at each."),
    ("copies", "Identical files", "Harmless if split together; each counts several times."),
    ("alike", "One picture in several files", "Re-encoded, resized, mirrored, turned, cropped."),
    ("blank", "Blank photos", "One shade from edge to edge."),
    ("tiny", "Tiny photos", "Smaller than any network sees."),
    ("animated", "Several pictures in one file", "The first of them is used."),
)

SCRIPT = """
"use strict";
const all = query => [...document.querySelectorAll(query)];
const find = document.querySelector("#find"), kinds = all("input[name=kind]");
const findings = all("li.finding"), ticks = all("input[name=apart]");
const save = document.querySelector("#save"), unseen = JSON.parse(save.dataset.unseen);
const apart = () => [...new Set(ticks.filter(t => t.checked).map(t => JSON.parse(t.value)))]
  .concat(unseen);
function show() {
  const words = find.value.toLowerCase();
  const on = new Set(kinds.filter(k => k.checked).map(k => k.value));
  let n = 0;
  for (const one of findings) {
    one.hidden = !(on.has(one.dataset.kind) && one.textContent.toLowerCase().includes(words));
    n += !one.hidden;
  }
  document.querySelector("#shown").textContent = `${n} of ${findings.length} shown`;
}
function count() { save.textContent = `Save quarantine.json (${apart().length})`; }
find.addEventListener("input", show);
kinds.forEach(k => k.addEventListener("change", show));
ticks.forEach(t => t.addEventListener("change", () => {
  ticks.filter(o => o.value === t.value).forEach(o => { o.checked = t.checked; });
  count();
}));
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(apart(), null, 1)]));
  link.download = "quarantine.json";
  link.click();
});
document.querySelector("#controls").hidden = false;
show(); count();
"""


def audit_page(audit: Audit) -> str:
    """The page as HTML."""
    photos = audit.photos
    suspects = {one.photo: one for one in audit.suspicious}
    found: dict[str, Sequence[tuple[int, ...]]] = {
        "two_labels": audit.two_labels,
        "across_sides": audit.across_sides,
        "suspicious": [(index,) for index in suspects],
        "copies": audit.copies,
        "alike": audit.alike,
        "blank": [(index,) for index in audit.blank],
        "tiny": [(index,) for index in audit.tiny],
        "animated": [(index,) for index in audit.animated],
    }
    apart = set(audit.quarantine)
    shown: set[str] = set()
    parts = []
    for kind, title, meaning in _KINDS:
        groups = found[kind]
        if not groups:
            continue
        items = []
        for group in groups[:_MOST_FINDINGS]:
            figures = []
            for index in group[:_MOST_PHOTOS]:
                shown.add(photos.paths[index])
                like = suspects[index].label if kind == "suspicious" else None
                figures.append(_photo(audit, index, photos.paths[index] in apart, like))
            rest = len(group) - _MOST_PHOTOS
            more = f"<p>and {count(rest, 'more photo')}</p>" if rest > 0 else ""
            items.append(
                f'<li class="finding" data-kind="{kind}"><div class="gallery small">'
                f"{''.join(figures)}</div>{more}</li>\n"
            )
        rest = len(groups) - _MOST_FINDINGS
        more = f" {rest:,} more are in <code>audit.json</code>." if rest > 0 else ""
        intro = f"<p>{count(len(groups), 'finding')}. {meaning}{more}</p>"
        body = f'{intro}<ul class="findings">\n{"".join(items)}</ul>'
        parts.append(section(kind, title, body))
    unseen = json.dumps([one for one in audit.quarantine if one not in shown])
    n_found = sum(map(len, found.values()))
    header = (
        f'<header><p class="eyebrow">scenelearn audit</p>\n'
        f"<h1>{name(photos.folder.name)}: {count(len(photos.class_names), 'class', 'classes')}, "
        f"{count(len(photos), 'photo')}</h1>\n"
        f'<p class="lead">{_lead(audit, n_found)}</p>\n{_controls(found, unseen)}</header>\n'
    )
    body = (
        f"<main>\n{header}{''.join(parts)}{refused(audit.refused)}</main>\n<footer><p>Ticked "
        "photos are listed in <code>quarantine.json</code>: "
        "<code>scenelearn fit FOLDER --quarantine quarantine.json</code> goes without them. All "
        "findings are in <code>audit.json</code>.</p></footer>\n"
    )
    return document(f"{text(photos.folder.name)}: audit · scenelearn", body, SCRIPT)


def _lead(audit: Audit, n_found: int) -> str:
    if not n_found and not audit.refused:
        return "Nothing amiss."
    return (
        f"<strong>{count(n_found, 'finding')}</strong>, "
        f"{count(len(audit.refused), 'file')} refused, "
        f"{count(len(audit.quarantine), 'photo')} proposed for quarantine."
    )


def _controls(found: dict[str, Sequence[tuple[int, ...]]], unseen: str) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" name="kind" value="{kind}" checked> {title} '
        f"({len(found[kind]):,})</label>\n"
        for kind, title, _ in _KINDS
        if found[kind]
    )
    return (
        '<div id="controls" class="controls" hidden>\n<label>Show only paths and classes with '
        f'<input id="find" type="search" autocomplete="off"></label>\n{boxes}'
        '<p><output id="shown"></output> '
        f'<button id="save" type="button" data-unseen="{text(unseen)}">Save</button></p>\n</div>\n'
        "<noscript><p>Filter and ticks need JavaScript; <code>quarantine.json</code> beside this "
        "page lists what is ticked.</p></noscript>\n"
    )


def _photo(audit: Audit, index: int, ticked: bool, like: int | None) -> str:
    photos = audit.photos
    label = photos.class_names[photos.labels[index]]
    side = f", {photos.sides[index]}" if photos.sides[index] else ""
    looks = f"<br>looks like <b>{name(photos.class_names[like])}</b>" if like is not None else ""
    value = text(json.dumps(photos.paths[index]))
    return (
        f"<figure>{picture(photos, index, f'Photo of class {label}', _THUMBNAIL_PX)}"
        f"<figcaption><strong>{name(label)}</strong>{side}{looks}{path(photos.paths[index])}"
        f'<label><input type="checkbox" name="apart" value="{value}"'
        f"{' checked' if ticked else ''}> quarantine</label></figcaption></figure>\n"
    )
