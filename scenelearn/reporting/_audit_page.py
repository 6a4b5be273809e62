"""The page of an audit: all findings with their photos, a filter, and the quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from scenelearn.data._resize import Resize
from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting._render import render
from scenelearn.reporting._thumbnails import Thumbnail, thumbnail

if TYPE_CHECKING:
    from scenelearn.data import Audit, Photos

_THUMBNAIL = Resize(112, 112)
_MAX_FINDINGS = 60  # of one kind on the page; all are in audit.json
_MAX_PHOTOS = 12  # of one finding


class Photo(NamedTuple):
    """A photo of a finding, with the class that a classifier suggests for it."""

    position: int
    image: Thumbnail
    suggested: int | None


class Group(NamedTuple):
    """The photos of a finding, and how many more it has."""

    photos: list[Photo]
    n_more: int


class Findings(NamedTuple):
    """The findings of one kind: their number, and those on the page."""

    n: int
    groups: list[Group]


def audit_page(audit: Audit) -> str:
    """The page as HTML."""
    suggested = {issue.position: issue.suggested_label for issue in audit.label_issues}
    groups: dict[str, Sequence[tuple[int, ...]]] = {
        "conflicting_labels": audit.conflicting_labels,
        "leaks": audit.leaks,
        "label_issues": [(index,) for index in suggested],
        "exact_duplicates": audit.exact_duplicates,
        "near_duplicates": audit.near_duplicates,
        "blank": [(index,) for index in audit.blank],
        "tiny": [(index,) for index in audit.tiny],
        "animated": [(index,) for index in audit.animated],
    }
    findings = {
        kind: Findings(
            len(found),
            [
                _group(audit.photos, group, suggested if kind == "label_issues" else {})
                for group in found[:_MAX_FINDINGS]
            ],
        )
        for kind, found in groups.items()
        if found
    }
    shown = {
        audit.photos.paths[photo.position]
        for kind in findings.values()
        for group in kind.groups
        for photo in group.photos
    }
    return render(
        "audit.html",
        audit=audit,
        findings=findings,
        quarantine=set(audit.quarantine),
        hidden=[path for path in audit.quarantine if path not in shown],
        rejected=analysis.group_rejected(audit.rejected),
        json_file="audit.json",
    )


def _group(photos: Photos, group: tuple[int, ...], suggested: Mapping[int, int]) -> Group:
    shown = [
        Photo(position, thumbnail(photos, position, _THUMBNAIL), suggested.get(position))
        for position in group[:_MAX_PHOTOS]
    ]
    return Group(shown, len(group) - len(shown))
