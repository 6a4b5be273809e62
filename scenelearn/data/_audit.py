"""`audit`: find duplicates, leaks, conflicting and doubtful labels, and odd photos."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._display import first_lines, html_text, printable
from scenelearn._distributed import gather, gather_rows, share
from scenelearn._io import temporary_array
from scenelearn._pandas import to_pandas
from scenelearn._progress import Progress, show_progress
from scenelearn._threads import map_in_threads
from scenelearn.data._decisions import reviewed_photos
from scenelearn.data._decode import STRICT, decode_photo, to_thumbnail
from scenelearn.data._groups import connected_components, pairs_with_equal_keys
from scenelearn.data._label_issues import LabelIssue, check_features, find_label_issues
from scenelearn.data._near_duplicates import THUMBNAIL_PX, find_near_duplicates, to_gray
from scenelearn.data._photos import Photos
from scenelearn.data._rejections import Rejected, rejected_from_json
from scenelearn.data._scan import as_photos

TINY_PX = 32
"""Photos narrower or lower than this are called tiny: no backbone takes smaller images."""

IMBALANCE = 10
"""From this ratio of the largest class to the smallest, classes are called imbalanced."""

_BLANK_RANGE = 2  # gray levels
_REPORT_EVERY = 1024  # photos

_GROUP_FINDINGS = {
    "exact_duplicates": "groups of identical files",
    "near_duplicates": "groups of files that show the same picture",
    "conflicting_labels": "pictures with conflicting labels",
    "leaks": "pictures in more than one assigned split",
}
_PHOTO_FINDINGS = {
    "blank": "blank photos",
    "tiny": f"photos smaller than {TINY_PX} px",
    "animated": "files with several images or pages",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Audit:
    """The findings of `audit`. Photos are given by their positions in `photos`.

    Attributes:
        photos: the photos that were audited.
        groups: (n,) int64, the same number for all photos that show the same picture: the position
            of the first of them. `split` keeps each group in one split.
        exact_duplicates: groups of identical files, ascending.
        near_duplicates: groups of different files that show the same picture: re-encoded, resized,
            mirrored, rotated by right angles or a few degrees, cropped by a few percent. Photos of
            a fixed camera that differ in a detail, and drawings in other colors, do not.
        conflicting_labels: groups whose photos have different labels.
        leaks: groups whose photos are in different splits, as the folders or manifest assign them.
        blank: photos of a single shade.
        tiny: photos less than 32 pixels wide or high.
        animated: files with several images or pages, of which the first is used.
        label_issues: photos whose label is probably wrong, the most certain first; empty if `audit`
            was given no features.
        reviewed: photos that a person has kept or relabeled with `scenelearn clean`.
        rejected: files that the scan rejected, and photos that could not be decoded now.
    """

    photos: Photos
    groups: npt.NDArray[np.int64]
    exact_duplicates: tuple[tuple[int, ...], ...]
    near_duplicates: tuple[tuple[int, ...], ...]
    conflicting_labels: tuple[tuple[int, ...], ...]
    leaks: tuple[tuple[int, ...], ...]
    blank: tuple[int, ...]
    tiny: tuple[int, ...]
    animated: tuple[int, ...]
    label_issues: tuple[LabelIssue, ...]
    rejected: tuple[Rejected, ...]
    reviewed: tuple[int, ...] = ()

    @property
    def imbalance(self) -> float:
        """The number of photos in the largest class divided by that in the smallest."""
        counts = self.photos.counts().values()
        return max(counts, default=1) / max(min(counts, default=1), 1)

    @property
    def quarantine(self) -> tuple[str, ...]:
        """Paths of photos that should be neither trained on nor tested on, for `split`.

        Blank photos; all photos of a picture with conflicting labels, since the right label is
        unknown; but no `reviewed` photo. And, of a picture in several assigned splits, all photos
        but those in test (or else in validation). Label issues are not included, since they are
        only suspected: review them, and add the paths of the wrong ones.
        """
        photos, excluded = self.photos, {*self.blank}
        for group in self.conflicting_labels:
            excluded.update(group)
        excluded.difference_update(self.reviewed)
        for group in self.leaks:
            present = {photos.splits[index] for index in group}
            kept = next(name for name in ("test", "validation", "train", "") if name in present)
            excluded.update(index for index in group if photos.splits[index] != kept)
        return tuple(photos.paths[index] for index in sorted(excluded))

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row per finding and photo: finding, group, path, label, split, suggested_label.

        `suggested_label` is None unless the finding is a label issue.
        """
        photos = self.photos
        findings: list[tuple[str, int, str | None]] = [
            (kind, index, None)
            for kind in _GROUP_FINDINGS
            for group in getattr(self, kind)
            for index in group
        ]
        findings += [
            (kind, index, None) for kind in _PHOTO_FINDINGS for index in getattr(self, kind)
        ]
        findings += [
            ("label_issues", issue.position, photos.class_names[issue.suggested_label])
            for issue in self.label_issues
        ]
        return [
            {
                "finding": kind,
                "group": int(self.groups[index]),
                "path": photos.paths[index],
                "label": photos.class_names[photos.labels[index]],
                "split": photos.splits[index],
                "suggested_label": suggested,
            }
            for kind, index, suggested in findings
        ]

    def to_pandas(self) -> Any:
        """The rows of `to_rows` as a ``pandas.DataFrame``.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> dict[str, Any]:
        """Counts, imbalance, the rows of `to_rows`, the quarantine and the rejected files."""
        return {
            "n_photos": len(self.photos),
            "counts": self.photos.counts(),
            "imbalance": self.imbalance,
            "findings": self.to_rows(),
            "quarantine": list(self.quarantine),
            "rejected": [file.to_json() for file in self.rejected],
        }

    def __repr__(self) -> str:
        kinds = (*_GROUP_FINDINGS, *_PHOTO_FINDINGS, "label_issues", "rejected")
        counts = {kind: len(getattr(self, kind)) for kind in kinds}
        listed = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in counts.items() if n)
        return f"<Audit: {len(self.photos):,} photos, {listed or 'no findings'}>"

    def __str__(self) -> str:
        lines = [self.photos.summary]

        def add(title: str, entries: list[str]) -> None:
            if entries:
                lines.append(f"{len(entries):,} {title}:")
                lines.extend(f"  {line}" for line in first_lines(entries, 5))

        def path(index: int) -> str:
            return printable(self.photos.paths[index])

        for kind, title in _GROUP_FINDINGS.items():
            groups = getattr(self, kind)
            add(title, [" = ".join(map(path, g[:4])) + " = …" * bool(g[4:]) for g in groups])
        for kind, title in _PHOTO_FINDINGS.items():
            add(title, [path(index) for index in getattr(self, kind)])
        names = self.photos.class_names
        issues = [
            f"{path(issue.position)} looks like {printable(names[issue.suggested_label])}"
            for issue in self.label_issues
        ]
        add("label issues", issues)
        add("rejected files", [str(file) for file in self.rejected])
        if self.imbalance >= IMBALANCE:
            lines.append(f"the largest class has {self.imbalance:.0f} times the smallest's photos")
        n_quarantine = len(self.quarantine)
        if n_quarantine:
            lines.append(
                f"{n_quarantine:,} of {len(self.photos):,} photos are suggested for quarantine: "
                "blank, with conflicting labels, or in several splits. To keep some, decide with "
                "`scenelearn clean`, or leave their paths out of `quarantine` when you call `split`"
            )
        if len(lines) == 1:
            lines.append("no problems found")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_text(self)


def audit(
    photos: Photos | str | os.PathLike[str],
    *,
    features: npt.NDArray[np.floating] | None = None,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Audit:
    """Find duplicates, near-duplicates, conflicting labels, leaks, and blank or tiny photos.

    Each photo is decoded once, to a 32×32 thumbnail, which a temporary file in the cache folder
    holds. Each is compared only with its nearest neighbors: time grows as n · log n, memory
    as n (less than two kilobytes per photo). Photos that are missing or broken by now are listed in
    `Audit.rejected`; the others are audited.

    Args:
        photos: from `scan`; or a folder, ZIP file or manifest, which is then scanned.
        features: (n, n_features) of the photos, from `scenelearn.finetune.extract_features`, to
            find label issues as well: photos for which another class is at least five times as
            probable as their own, by a linear probe that was trained on other photos. Rows that
            contain NaN are ignored.
        progress: called with ("auditing photos", photos done, photos in total) now and then, with
            ("comparing photos", pairs done, pairs in total), and with ("finding label issues",
            steps done, steps in total).
        verbose: "auto" for a progress bar on a terminal and in a notebook, True for one
            everywhere, False for none.

    Returns:
        The findings. Pass their `groups` and `quarantine` to `split`.

    Raises:
        ArgumentError: if `photos` is of another type, `features` does not have one row per photo or
            has no row of finite numbers, or the cache folder is not writable.
        DiskSpaceError: if the disk of the cache folder is full.
        DataError: if `photos` is empty, or a path that cannot be scanned; see `scan`.
        ManifestError: if the file of decisions next to the photos is invalid.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sl.audit(sl.scan(sl.sample_scenes(folder, per_class=2)))
        <Audit: 12 photos, no findings>
    """
    with show_progress(progress, verbose) as report:
        photos = as_photos(photos, report)
        if features is not None:
            features = check_features(features, len(photos))
        with temporary_array((len(photos), THUMBNAIL_PX, THUMBNAIL_PX, 3)) as thumbnails:
            return _audit(photos, thumbnails, features, report)


def _audit(
    photos: Photos,
    thumbnails: npt.NDArray[np.uint8],
    features: npt.NDArray[np.float32] | None,
    report: Progress,
) -> Audit:
    n, reviewed = len(photos), reviewed_photos(photos)
    own = share(n)  # of several processes each decodes some photos

    def load(index: int) -> tuple[int, int, bool, Rejected | None]:
        result = decode_photo(photos, index, lambda content: to_thumbnail(content, THUMBNAIL_PX))
        if isinstance(result, Rejected):
            return TINY_PX, 255, False, result
        thumbnails[index], size, is_animated = result
        gray = to_gray(result.pixels)
        return size, int(gray.max()) - int(gray.min()), is_animated, None

    rows: list[Any] = []
    with STRICT:
        for row in map_in_threads(load, range(n)[own]):
            rows.append(row)
            if len(rows) % _REPORT_EVERY == 0 or len(rows) == own.stop - own.start:
                report("auditing photos", len(rows), own.stop - own.start)
    gather_rows(thumbnails)
    rows = gather([[*row[:3], row[3] and row[3].to_json()] for row in rows])
    sizes, gray_range, animated = (np.array([row[k] for row in rows]) for k in range(3))
    failed = [rejected_from_json(row[3]) for row in rows if row[3]]
    by_hash = defaultdict(list)
    for index, content_hash in enumerate(photos.hashes):
        by_hash[content_hash].append(index)
    first_of_hash = np.array([indices[0] for indices in by_hash.values()], np.int64)
    progress = partial(report, "comparing photos")
    near_duplicates = find_near_duplicates(thumbnails, first_of_hash, progress)
    groups = connected_components(n, pairs_with_equal_keys(photos.hashes) + near_duplicates)
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[int(group)].append(index)
    same_picture = [tuple(group) for group in members.values() if len(group) > 1]

    def with_different(column: Any) -> tuple[tuple[int, ...], ...]:
        return tuple(g for g in same_picture if len({column[index] for index in g}) > 1)

    label_issues: tuple[LabelIssue, ...] = ()
    if features is not None:
        progress = partial(report, "finding label issues")
        label_issues = find_label_issues(features, photos.labels, groups, progress)
    return Audit(
        photos=photos,
        groups=groups,
        exact_duplicates=tuple(tuple(same) for same in by_hash.values() if len(same) > 1),
        near_duplicates=with_different(photos.hashes),
        conflicting_labels=with_different(photos.labels.tolist()),
        leaks=with_different(photos.splits),
        blank=tuple(np.flatnonzero(gray_range <= _BLANK_RANGE).tolist()),
        tiny=tuple(np.flatnonzero(sizes < TINY_PX).tolist()),
        animated=tuple(np.flatnonzero(animated).tolist()),
        label_issues=label_issues,
        rejected=(*photos.rejected, *failed),
        reviewed=reviewed,
    )
