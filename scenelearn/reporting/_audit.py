"""The page of an audit: all findings with their photos, a filter, and the quarantine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn.reporting._html import count, document, escape, name, path, section
from scenelearn.reporting._photos import rejected_files
from scenelearn.reporting._thumbnails import thumbnail

if TYPE_CHECKING:
    from scenelearn.data import Audit

_THUMBNAIL_PX = 112
_MAX_FINDINGS = 60  # of one kind on the page; all are in audit.json
_MAX_PHOTOS = 12  # of one finding

_KINDS = (
    ("conflicting_labels", "Conflicting labels", "The same picture has several labels."),
    ("leaks", "Leaks", "The same picture is in several splits."),
    (
        "label_issues",
        "Label issues",
        "A classifier trained on all other photos predicts another class. Check each label.",
    ),
    (
        "exact_duplicates",
        "Exact duplicates",
        "Identical files. Keep each group in one split; it counts several times.",
    ),
    (
        "near_duplicates",
        "Near-duplicates",
        "The same picture re-encoded, resized, mirrored, rotated or cropped.",
    ),
    ("blank", "Blank photos", "A single color from edge to edge."),
    ("tiny", "Tiny photos", "Smaller than the input of any network."),
    ("animated", "Animated images", "Only the first frame is used."),
)

SCRIPT = """
"use strict";
const all = query => [...document.querySelectorAll(query)];
const search = document.querySelector("#search"), kinds = all("input[name=kind]");
const findings = all("li.finding"), boxes = all("input[name=quarantine]");
const save = document.querySelector("#save"), hidden = JSON.parse(save.dataset.hidden);
const quarantine = () => [...new Set(boxes.filter(b => b.checked).map(b => JSON.parse(b.value)))]
  .concat(hidden);
function filter() {
  const words = search.value.toLowerCase();
  const selected = new Set(kinds.filter(k => k.checked).map(k => k.value));
  let n = 0;
  for (const finding of findings) {
    finding.hidden = !(selected.has(finding.dataset.kind)
      && finding.textContent.toLowerCase().includes(words));
    n += !finding.hidden;
  }
  document.querySelector("#shown").textContent = `${n} of ${findings.length} shown`;
}
function count() { save.textContent = `Save quarantine.json (${quarantine().length})`; }
search.addEventListener("input", filter);
kinds.forEach(k => k.addEventListener("change", filter));
boxes.forEach(b => b.addEventListener("change", () => {
  boxes.filter(o => o.value === b.value).forEach(o => { o.checked = b.checked; });
  count();
}));
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(quarantine(), null, 1)]));
  link.download = "quarantine.json";
  link.click();
});
document.querySelector("#controls").hidden = false;
filter(); count();
"""


def audit_page(audit: Audit) -> str:
    """The page as HTML."""
    photos = audit.photos
    issues = {issue.position: issue for issue in audit.label_issues}
    findings: dict[str, Sequence[tuple[int, ...]]] = {
        "conflicting_labels": audit.conflicting_labels,
        "leaks": audit.leaks,
        "label_issues": [(index,) for index in issues],
        "exact_duplicates": audit.exact_duplicates,
        "near_duplicates": audit.near_duplicates,
        "blank": [(index,) for index in audit.blank],
        "tiny": [(index,) for index in audit.tiny],
        "animated": [(index,) for index in audit.animated],
    }
    quarantine = set(audit.quarantine)
    shown: set[str] = set()
    parts = []
    for kind, title, meaning in _KINDS:
        groups = findings[kind]
        if not groups:
            continue
        items = []
        for group in groups[:_MAX_FINDINGS]:
            figures = []
            for index in group[:_MAX_PHOTOS]:
                shown.add(photos.paths[index])
                suggested = issues[index].suggested_label if kind == "label_issues" else None
                figures.append(_photo(audit, index, photos.paths[index] in quarantine, suggested))
            rest = len(group) - _MAX_PHOTOS
            more = f"<p>and {count(rest, 'more photo')}</p>" if rest > 0 else ""
            items.append(
                f'<li class="finding" data-kind="{kind}"><div class="gallery small">'
                f"{''.join(figures)}</div>{more}</li>\n"
            )
        rest = len(groups) - _MAX_FINDINGS
        more = f" {rest:,} more are in <code>audit.json</code>." if rest > 0 else ""
        intro = f"<p>{count(len(groups), 'finding')}. {meaning}{more}</p>"
        body = f'{intro}<ul class="findings">\n{"".join(items)}</ul>'
        parts.append(section(kind.replace("_", "-"), title, body))
    hidden = json.dumps([path_ for path_ in audit.quarantine if path_ not in shown])
    n_findings = sum(map(len, findings.values()))
    header = (
        f'<header><p class="eyebrow">scenelearn audit</p>\n'
        f"<h1>{name(photos.folder.name)}: {count(len(photos.class_names), 'class', 'classes')}, "
        f"{count(len(photos), 'photo')}</h1>\n"
        f'<p class="lead">{_summary(audit, n_findings)}</p>\n{_controls(findings, hidden)}'
        "</header>\n"
    )
    body = (
        f"<main>\n{header}{''.join(parts)}{rejected_files(audit.rejected)}</main>\n<footer><p>"
        "<code>quarantine.json</code> lists the selected photos. To fit without them, run "
        "<code>scenelearn fit FOLDER --quarantine quarantine.json</code>. All findings are in "
        "<code>audit.json</code>.</p></footer>\n"
    )
    return document(f"{escape(photos.folder.name)}: audit · scenelearn", body, SCRIPT)


def _summary(audit: Audit, n_findings: int) -> str:
    if not n_findings and not audit.rejected:
        return "No findings."
    return (
        f"<strong>{count(n_findings, 'finding')}</strong>, "
        f"{count(len(audit.rejected), 'rejected file')}, "
        f"{count(len(audit.quarantine), 'photo')} suggested for quarantine."
    )


def _controls(findings: dict[str, Sequence[tuple[int, ...]]], hidden: str) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" name="kind" value="{kind}" checked> {title} '
        f"({len(findings[kind]):,})</label>\n"
        for kind, title, _ in _KINDS
        if findings[kind]
    )
    return (
        '<div id="controls" class="controls" hidden>\n<label>Filter by path or class: '
        f'<input id="search" type="search" autocomplete="off"></label>\n{boxes}'
        '<p><output id="shown"></output> '
        f'<button id="save" type="button" data-hidden="{escape(hidden)}">Save</button></p>\n'
        "</div>\n"
        "<noscript><p>Filter and selection need JavaScript. <code>quarantine.json</code>, next to "
        "this page, lists the photos that are selected now.</p></noscript>\n"
    )


def _photo(audit: Audit, index: int, selected: bool, suggested: int | None) -> str:
    photos = audit.photos
    label = photos.class_names[photos.labels[index]]
    split = f", {photos.splits[index]}" if photos.splits[index] else ""
    suggestion = (
        f"<br>predicted <b>{name(photos.class_names[suggested])}</b>"
        if suggested is not None
        else ""
    )
    value = escape(json.dumps(photos.paths[index]))
    return (
        f"<figure>{thumbnail(photos, index, f'Photo of class {label}', _THUMBNAIL_PX)}"
        f"<figcaption><strong>{name(label)}</strong>{split}{suggestion}{path(photos.paths[index])}"
        f'<label><input type="checkbox" name="quarantine" value="{value}"'
        f"{' checked' if selected else ''}> quarantine</label></figcaption></figure>\n"
    )
