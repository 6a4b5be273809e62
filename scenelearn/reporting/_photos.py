"""Misclassified photos, rejected files and duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting._html import (
    count,
    escape,
    figure,
    name,
    path,
    percent,
    region,
    section,
    table,
)
from scenelearn.reporting._thumbnails import inline_image, thumbnail

if TYPE_CHECKING:
    from scenelearn.data import Audit, Rejected
    from scenelearn.finetune import FitResult

_MAX_MISTAKES = 12
_MAX_REJECTED = 200
_MAX_GROUPS, _MAX_PHOTOS_PER_GROUP = 20, 6  # of duplicates
_THUMBNAIL_PX = 160


def mistakes(fit: FitResult) -> str:
    """The most confident mistakes, with their photos."""
    title = "Most confident mistakes"
    wrong = analysis.misclassifications(fit)
    if not wrong:
        return section("mistakes", title, "<p>No test photo is misclassified.</p>")
    shown = wrong[:_MAX_MISTAKES]
    which = "All" if len(shown) == len(wrong) else f"The {len(shown)} most confident"
    intro = (
        f"<p>{len(wrong):,} of {count(fit.evaluation.n_photos, 'test photo')} "
        f"{'is' if len(wrong) == 1 else 'are'} misclassified. {which} are shown, as center crops, "
        "which is what the network sees. Next to each, in orange, is the evidence for the wrong "
        "class (Grad-CAM). Below is the most similar training photo, by the network's features. "
        "Label issues tend to show up here.</p>"
    )
    items = "".join(f"<li>{_mistake(fit, mistake)}</li>\n" for mistake in shown)
    return section("mistakes", title, f'{intro}<ul class="gallery wide">\n{items}</ul>')


def _mistake(fit: FitResult, mistake: analysis.Misclassification) -> str:
    photos = fit.splits.photos
    alt = f"Test photo of class {mistake.label}, misclassified as {mistake.predicted}"
    shown = thumbnail(photos, mistake.index, alt, _THUMBNAIL_PX)
    caption = (
        f"predicted <b>{name(mistake.predicted)}</b> {percent(mistake.probability)}<br>"
        f"true <strong>{name(mistake.label)}</strong> {percent(mistake.true_probability)}"
        f"{path(photos.paths[mistake.index])}"
    )
    if not shown.startswith("<img"):
        return figure(shown, caption)
    explanation = fit.classifier.explain(
        photos.read(mistake.index), label=mistake.predicted, n_neighbors=1
    )
    px = len(explanation.heatmap)
    overlay = explanation.picture().crop((px, 0, 2 * px, px))
    overlay = overlay.resize((_THUMBNAIL_PX, _THUMBNAIL_PX))
    heat_map = inline_image(overlay, f"Grad-CAM heat map for {mistake.predicted}")
    nearest = "".join(
        f"nearest training photo: {name(neighbor.label)}{path(neighbor.path)}"
        for neighbor in explanation.neighbors
    )
    return figure(f'<div class="two">{shown}{heat_map}</div>', caption + nearest)


def rejected_and_duplicates(fit: FitResult, audit: Audit | None = None) -> str:
    """The files that were not used, and duplicates among those that were."""
    duplicates = _exact_duplicates(fit) if audit is None else _near_duplicates(fit, audit)
    return rejected_files(fit.rejected, duplicates)


def _exact_duplicates(fit: FitResult) -> str:
    """Identical files, by their hashes."""
    photos = fit.splits.photos
    groups = analysis.exact_duplicates(photos)
    if not groups:
        return "<h3>Duplicates</h3><p>There are no exact duplicates.</p>"
    summary = f"{count(len(groups), 'group')} of identical files."
    conflicting = [group for group in groups if len(set(photos.labels[group].tolist())) > 1]
    if not conflicting:
        return f"<h3>Duplicates</h3><p>{summary}</p>"
    return (
        f"<h3>Duplicates</h3><p>{summary} Conflicting labels: {len(conflicting):,}. "
        "<code>scenelearn audit</code> shows the photos.</p>"
        f"{_groups(fit, conflicting)}"
    )


def _near_duplicates(fit: FitResult, audit: Audit) -> str:
    """Groups of duplicates from an audit, with leaks between the splits of this fit."""
    photos = fit.splits.photos
    split_of = {
        int(index): split
        for split in ("train", "validation", "test")
        for index in getattr(fit.splits, split)
    }
    by_group: dict[int, list[int]] = {}
    for index, number in enumerate(audit.groups.tolist()):
        by_group.setdefault(number, []).append(index)
    groups = [group for group in by_group.values() if len(group) > 1]
    leaks = [g for g in groups if len({split_of[k] for k in g if k in split_of}) > 1]
    conflicting = [g for g in groups if len({int(photos.labels[k]) for k in g}) > 1]
    if not groups:
        return "<h3>Duplicates</h3><p>There are no exact or near-duplicates.</p>"
    parts = [
        f"<h3>Duplicates</h3><p>{count(len(groups), 'group')} of exact or near-duplicates "
        "(identical, re-encoded, resized, mirrored, rotated or cropped).</p>"
    ]
    if leaks:
        parts.append(
            f"<p><strong>{count(len(leaks), 'leak')}</strong> between splits: the same picture is "
            "in several splits, which inflates the accuracy. Split with "
            f"<code>groups=audit.groups</code>.</p>{_groups(fit, leaks)}"
        )
    else:
        parts.append("<p>There are no leaks between splits.</p>")
    if conflicting:
        parts.append(
            f"<p>{count(len(conflicting), 'group')} with conflicting labels.</p>"
            f"{_groups(fit, conflicting)}"
        )
    return "".join(parts)


def _groups(fit: FitResult, groups: Sequence[Sequence[int]]) -> str:
    """Paths of the photos of each group, up to a limit."""
    photos = fit.splits.photos
    items = "".join(
        "<li>"
        f"{', '.join(path(photos.paths[index]) for index in group[:_MAX_PHOTOS_PER_GROUP])}</li>\n"
        for group in groups[:_MAX_GROUPS]
    )
    rest = len(groups) - _MAX_GROUPS
    return f"<ul>\n{items}</ul>" + (f"<p>and {rest:,} more</p>" if rest > 0 else "")


def rejected_files(files: Sequence[Rejected], after: str = "") -> str:
    """The section of files that were not used: counts by reason, and a list up to a limit.

    Args:
        files: the rejected files, in any order.
        after: HTML for the end of the section.
    """
    total, title = len(files), "Rejected files"
    if not total:
        return section("rejected-files", title, f"<p>No file was rejected.</p>{after}")
    groups = analysis.group_rejected(files, _MAX_REJECTED)
    n_listed = sum(len(group.listed) for group in groups)
    more = (
        f" {n_listed:,} of them are listed here, rare reasons first. The other "
        f"{total - n_listed:,} are in <code>result.json</code>."
        if n_listed < total
        else ""
    )
    intro = f"<p>{count(total, 'file')} {'was' if total == 1 else 'were'} rejected.{more}</p>"
    reasons = table(
        "Rejected files by reason",
        ("reason", "files"),
        [(escape(group.reason), f"{group.n:,}") for group in groups],
        "ln",
    )
    rows = [
        f"<tr><td class='l'>{path(rejection.path)}</td><td class='l'>"
        f"{escape(group.reason)}"
        + (f'<span class="rare">{escape(rejection.detail)}</span>' if rejection.detail else "")
        + "</td></tr>\n"
        for group in reversed(groups)
        for rejection in group.listed
    ]
    listing = region(
        "Rejected files",
        '<table><thead><tr><th scope="col">file</th><th scope="col">reason</th></tr></thead>'
        f"<tbody>\n{''.join(rows)}</tbody></table>",
        "tall",
    )
    body = f"{intro}{reasons}<h3>Files</h3>{listing}{after}"
    return section("rejected-files", title, body)
