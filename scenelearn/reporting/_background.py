"""What lies behind the results: mistaken photos, refused files, time, and the way to repeat it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _findings as findings
from scenelearn.reporting import _sentences as sentences
from scenelearn.reporting._markup import (
    NONE,
    count,
    duration,
    figure,
    name,
    path,
    percent,
    region,
    section,
    table,
    text,
)
from scenelearn.reporting._pictures import inline, picture

if TYPE_CHECKING:
    from scenelearn.data import Audit, Refused
    from scenelearn.finetune import FitResult

_N_MISTAKES = 12
_N_REFUSED = 200
_THUMBNAIL_PX = 160
_MOST_GROUPS, _MOST_OF_A_GROUP = 20, 6  # of identical files under two classes


def mistakes(fit: FitResult) -> str:
    """The most confident mistakes, with their photos."""
    found = findings.mistakes(fit)
    if not found:
        body = "<p>Every test photo was recognized.</p>"
        return section("mistakes", "The most confident mistakes", body)
    shown = found[:_N_MISTAKES]
    which = "all of them" if len(shown) == len(found) else f"the {len(shown)} most confident"
    intro = (
        f"<p>{count(len(found), 'test photo')} of {fit.evaluation.n_photos:,} "
        f"{'was' if len(found) == 1 else 'were'} mistaken; here {which}. "
        "The photos are shown as the network saw them, cut to their central square; beside each, "
        "in orange, what spoke for the wrong class (Grad-CAM), and below, the training photo that "
        "is most alike to the network. A wrong label shows here first.</p>"
    )
    items = "".join(f"<li>{_mistake(fit, mistake)}</li>\n" for mistake in shown)
    body = f'{intro}<ul class="gallery wide">\n{items}</ul>'
    return section("mistakes", "The most confident mistakes", body)


def _mistake(fit: FitResult, mistake: findings.Mistake) -> str:
    photos = fit.splits.photos
    alt = f"Test photo of class {mistake.true}, taken for {mistake.predicted}"
    shown = picture(photos, mistake.index, alt, _THUMBNAIL_PX)
    caption = (
        f"taken for <b>{name(mistake.predicted)}</b> {percent(mistake.probability)}<br>"
        f"is <strong>{name(mistake.true)}</strong> {percent(mistake.true_probability)}"
        f"{path(photos.paths[mistake.index])}"
    )
    if not shown.startswith("<img"):
        return figure(shown, caption)
    explained = fit.classifier.explain(
        photos.read(mistake.index), label=mistake.predicted, n_nearest=1
    )
    px = len(explained.heat)
    heat = explained.picture().crop((px, 0, 2 * px, px)).resize((_THUMBNAIL_PX, _THUMBNAIL_PX))
    seen = inline(heat, f"The same photo: orange where it speaks for {mistake.predicted}")
    near = "".join(
        f"nearest training photo: {name(one.label)}{path(one.path)}" for one in explained.nearest
    )
    return figure(f'<div class="two">{shown}{seen}</div>', caption + near)


def refused_and_copies(fit: FitResult, audit: Audit | None = None) -> str:
    """The files that were not used, and pictures that are there twice."""
    return refused(fit.refused, _copies(fit) if audit is None else _alike(fit, audit))


def _copies(fit: FitResult) -> str:
    """Identical files, by their hashes."""
    photos = fit.splits.photos
    groups = findings.copies(photos)
    if not groups:
        return "<p>No two photos are the same file.</p>"
    told = (
        f"{count(len(groups), 'photo')} {'is' if len(groups) == 1 else 'are'} there several times"
    )
    two = [group for group in groups if len(set(photos.labels[group].tolist())) > 1]
    if not two:
        return f"<h3>Copies</h3><p>{told}, as identical files.</p>"
    return (
        f"<h3>Copies</h3><p>{told}, as identical files; {len(two):,} of them "
        "under two classes, of which at most one is right. <code>scenelearn audit</code> shows "
        f"them.</p>{_groups(fit, two)}"
    )


def _alike(fit: FitResult, audit: Audit) -> str:
    """What an audit found of pictures that are there several times, by the fit's own sides."""
    photos = fit.splits.photos
    side_of = {
        int(index): side
        for side in ("train", "validation", "test")
        for index in getattr(fit.splits, side)
    }
    by_group: dict[int, list[int]] = {}
    for index, group in enumerate(audit.groups.tolist()):
        by_group.setdefault(group, []).append(index)
    several = [group for group in by_group.values() if len(group) > 1]
    across = [g for g in several if len({side_of[k] for k in g if k in side_of}) > 1]
    two = [g for g in several if len({int(photos.labels[k]) for k in g}) > 1]
    if not several:
        return "<p>No picture is there twice, not even re-encoded, mirrored or cropped.</p>"
    told = [
        f"<h3>Copies</h3><p>{count(len(several), 'picture')} "
        f"{'is' if len(several) == 1 else 'are'} there in several files, "
        "identical, re-encoded, resized, mirrored, turned or cropped.</p>"
    ]
    if across:
        told.append(
            f"<p><strong>{count(len(across), 'picture')}</strong> on two sides of this split: what "
            "was trained on was also judged, which flatters the result. Split with "
            f"<code>groups=audit.groups</code>.</p>{_groups(fit, across)}"
        )
    else:
        told.append("<p>Each of them lies on one side of this split.</p>")
    if two:
        told.append(
            f"<p>{count(len(two), 'picture')} under two classes, of which at most one is right."
            f"</p>{_groups(fit, two)}"
        )
    return "".join(told)


def _groups(fit: FitResult, groups: Sequence[Sequence[int]]) -> str:
    """Paths of the photos of each group, up to a limit."""
    photos = fit.splits.photos
    items = "".join(
        f"<li>{', '.join(path(photos.paths[index]) for index in group[:_MOST_OF_A_GROUP])}</li>\n"
        for group in groups[:_MOST_GROUPS]
    )
    rest = len(groups) - _MOST_GROUPS
    return f"<ul>\n{items}</ul>" + (f"<p>and {rest:,} more</p>" if rest > 0 else "")


def refused(files: Sequence[Refused], after: str = "") -> str:
    """Every file that was not used: counted by reason, and listed up to a limit.

    Args:
        files: what was refused, in any order.
        after: HTML that ends the section.
    """
    total = len(files)
    if not total:
        return section("refused", "What was refused", f"<p>Every file found was used.</p>{after}")
    groups = findings.refused_groups(files, _N_REFUSED)
    n_listed = sum(len(group.listed) for group in groups)
    more = (
        f" {n_listed:,} of them are listed here, the rare reasons first; the other "
        f"{total - n_listed:,} are in <code>result.json</code>."
        if n_listed < total
        else ""
    )
    intro = f"<p>{count(total, 'file')} {'was' if total == 1 else 'were'} not used.{more}</p>"
    reasons = table(
        "Refused files by reason",
        ("reason", "files"),
        [(text(group.reason), f"{group.n:,}") for group in groups],
        "ln",
    )
    rows = [
        f"<tr><td class='l'>{path(refusal.path)}</td><td class='l'>"
        f"{text(group.reason)}"
        + (f'<span class="rare">{text(refusal.detail)}</span>' if refusal.detail else "")
        + "</td></tr>\n"
        for group in reversed(groups)
        for refusal in group.listed
    ]
    listing = region(
        "Refused files",
        '<table><thead><tr><th scope="col">file</th><th scope="col">why</th></tr></thead>'
        f"<tbody>\n{''.join(rows)}</tbody></table>",
        "tall",
    )
    return section(
        "refused", "What was refused", f"{intro}{reasons}<h3>File by file</h3>{listing}{after}"
    )


def time_and_photos(fit: FitResult) -> str:
    """Where the time went, and how many photos of each class are on each side."""
    rest = fit.seconds - sum(phase.seconds for phase in fit.phases)
    phases = [(text(phase.name), phase.seconds, text(phase.note)) for phase in fit.phases]
    if rest >= 0.05:
        phases.append(("everything else", rest, ""))
    rows = [
        (
            phase,
            duration(seconds) + figures.share_bar(seconds / fit.seconds if fit.seconds else 0.0),
            percent(seconds / fit.seconds) if fit.seconds else NONE,
            note,
        )
        for phase, seconds, note in phases
    ]
    times = table(
        "Phases of the fit",
        ("phase", "time", "share", "what was done"),
        rows,
        "lnnl",
        ("together", duration(fit.seconds), "", ""),
    )
    sides = fit.splits.to_rows()
    columns = tuple(sides[0])
    totals = [sum(row[side] for row in sides) for side in columns[1:]]
    photos = table(
        "Photos by class and side",
        (*columns, "together"),
        [
            (
                name(row["class"]),
                *(f"{row[side]:,}" for side in columns[1:]),
                f"{sum(row[side] for side in columns[1:]):,}",
            )
            for row in sides
        ],
        "l" + "n" * len(columns),
        ("together", *(f"{total:,}" for total in totals), f"{sum(totals):,}"),
    )
    memory = "".join(
        f"<dt>{key}</dt><dd>{text(fit.environment[key])}</dd>"
        for key in sentences.MEMORY_FACTS
        if key in fit.environment
    )
    if memory:
        times += f'<h3>Memory</h3><dl class="rows">{memory}</dl><p>{sentences.MEMORY}</p>'
    body = f"{times}<h3>Photos on each side of the split</h3>{photos}"
    return section("time", "Where the time and the photos went", body)


def repeat(fit: FitResult) -> str:
    """The lines of Python that run this fit again, and what it ran on."""
    sizes = [len(side) for side in (fit.splits.train, fit.splits.validation, fit.splits.test)]
    whole = sum(sizes) or 1
    note = (
        f"<p>The split came out as {sizes[0]:,} photos to train, {sizes[1]:,} "
        f"({percent(sizes[1] / whole)}) to validate and {sizes[2]:,} ({percent(sizes[2] / whole)}) "
        "to test. <code>split.csv</code> beside this page lists each photo with its side and hash; "
        "a photo that is gone or has changed since is then refused by name.</p>"
    )
    # The code's strings went through repr, so nothing but markup is left to escape.
    snippet = region("Python code", f"<pre><code>{html.escape(findings.recipe(fit))}</code></pre>")
    ran_on = "".join(
        f"<dt>{text(key.replace('_', ' '))}</dt><dd>{text(value)}</dd>"
        for key, value in fit.environment.items()
    )
    body = f'{note}{snippet}<h3>What it ran on</h3><dl class="rows">{ran_on}</dl>'
    return section("repeat", "How to repeat this run", body)
