"""What is wrong with photos before anything learns from them."""

from __future__ import annotations

import html
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._display import printable
from scenelearn._io import cache_folder
from scenelearn._threads import map_in_threads
from scenelearn.data._alike import GRAY_PX, alike
from scenelearn.data._decode import STRICT, of_photo, to_gray
from scenelearn.data._groups import joined, links
from scenelearn.data._labels import Suspect, suspects
from scenelearn.data._photos import Photos, Refused

TINY_PX = 32
"""Below this width or height a photo is called tiny: no backbone takes less."""

IMBALANCE = 10
"""From this ratio of the largest class to the smallest on, classes are called unbalanced."""

_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """What an audit found; every list holds positions in `photos`.

    Attributes:
        photos: the photos that were looked at.
        groups: (n,) int64, one number for all photos that show the same picture, the position of
            the first of them. `split` keeps each group on one side.
        copies: groups of photos that are the same file to the byte, ascending.
        alike: groups that show the same picture in different files: re-encoded, resized,
            mirrored, turned by right angles or a few degrees, cropped by some percent.
        two_labels: groups whose photos lie in different classes.
        across_sides: groups whose photos lie on different sides, by the folders' own names.
        blank: photos of one shade alone.
        tiny: photos narrower or lower than `TINY_PX`.
        animated: files of several pictures or pages, of which the first is used.
        suspicious: photos whose label looks wrong, with the class that they look like, the
            plainest first; empty where the audit was given no features.
        refused: files that the scan refused, and photos that could not be decoded now.
    """

    photos: Photos
    groups: npt.NDArray[np.int64]
    copies: tuple[tuple[int, ...], ...]
    alike: tuple[tuple[int, ...], ...]
    two_labels: tuple[tuple[int, ...], ...]
    across_sides: tuple[tuple[int, ...], ...]
    blank: tuple[int, ...]
    tiny: tuple[int, ...]
    animated: tuple[int, ...]
    suspicious: tuple[Suspect, ...]
    refused: tuple[Refused, ...]

    @property
    def imbalance(self) -> float:
        """The largest class's photos divided by the smallest's; 1 where all are as large."""
        counts = self.photos.counts().values()
        return max(counts, default=1) / max(min(counts, default=1), 1)

    @property
    def quarantine(self) -> tuple[str, ...]:
        """Paths of photos that nothing should be learned from or judged by, for `split`.

        Blank photos; all photos of a picture that lies under two classes, since nobody knows which
        is right; of a picture on two given sides all but those that test (or else validate). Wrong
        labels are only suspected: look at them, and add those that you find wrong.
        """
        photos, apart = self.photos, {*self.blank}
        for group in self.two_labels:
            apart.update(group)
        for group in self.across_sides:
            sides = {photos.sides[index] for index in group}
            kept = next(side for side in ("test", "validation", "train", "") if side in sides)
            apart.update(index for index in group if photos.sides[index] != kept)
        return tuple(photos.paths[index] for index in sorted(apart))

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row for each finding and photo: finding, group, path, class, side.

        A suspicious photo's row also names the class that it looks like.
        """
        rows = []
        for kind in ("copies", "alike", "two_labels", "across_sides"):
            for group in getattr(self, kind):
                rows += [self._row(kind, index) for index in group]
        for kind in ("blank", "tiny", "animated"):
            rows += [self._row(kind, index) for index in getattr(self, kind)]
        names = self.photos.class_names
        for photo, label, _ in self.suspicious:
            rows.append(self._row("suspicious", photo) | {"looks_like": names[label]})
        return rows

    def _row(self, finding: str, index: int) -> dict[str, Any]:
        photos = self.photos
        return {
            "finding": finding,
            "group": int(self.groups[index]),
            "path": photos.paths[index],
            "class": photos.class_names[photos.labels[index]],
            "side": photos.sides[index],
        }

    def to_json(self) -> dict[str, Any]:
        """Counts, imbalance, the rows of `to_rows` and what was refused."""
        return {
            "n_photos": len(self.photos),
            "counts": self.photos.counts(),
            "imbalance": self.imbalance,
            "findings": self.to_rows(),
            "quarantine": list(self.quarantine),
            "refused": [one.to_json() for one in self.refused],
        }

    def __str__(self) -> str:
        lines = [str(self.photos)]
        for text, found in self._lists():
            if found:
                lines.append(f"{len(found):,} {text}:")
                for group in found[:5]:
                    paths = [printable(self.photos.paths[index]) for index in group]
                    lines.append("  " + " = ".join(paths[:4]) + (" = …" if paths[4:] else ""))
                if found[5:]:
                    lines.append(f"  and {len(found) - 5:,} more")
        if self.suspicious:
            lines.append(f"{len(self.suspicious):,} labels that look wrong:")
            for photo, label, _ in self.suspicious[:5]:
                path = printable(self.photos.paths[photo])
                lines.append(f"  {path} looks like {printable(self.photos.class_names[label])}")
            if self.suspicious[5:]:
                lines.append(f"  and {len(self.suspicious) - 5:,} more")
        if self.refused:
            lines.append(f"{len(self.refused):,} refused:")
            lines += [f"  {one}" for one in self.refused[:5]]
            if self.refused[5:]:
                lines.append(f"  and {len(self.refused) - 5:,} more")
        if self.imbalance >= IMBALANCE:
            lines.append(f"the largest class has {self.imbalance:.0f} times the smallest's photos")
        if len(lines) == 1:
            lines.append("nothing amiss")
        return "\n".join(lines)

    def _lists(self) -> list[tuple[str, list[tuple[int, ...]]]]:
        return [
            ("groups of identical files", list(self.copies)),
            ("groups of photos that show the same picture", list(self.alike)),
            ("pictures under two classes", list(self.two_labels)),
            ("pictures on two sides of the given split", list(self.across_sides)),
            ("blank photos", [(index,) for index in self.blank]),
            (f"photos below {TINY_PX} px", [(index,) for index in self.tiny]),
            ("files of several pictures", [(index,) for index in self.animated]),
        ]

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def audit(
    photos: Photos,
    *,
    features: npt.NDArray[np.floating] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look for copies, near copies, contradictory labels, leaks, blank and tiny photos.

    Each photo is decoded once, to a gray square of 32 × 32, which a temporary file in the cache
    folder holds. Each is compared with those that come near it only: the time grows as n · log n,
    the memory as n (under two kilobytes a photo).
    Photos that are gone or broken by now are named in `refused`, and the rest goes on.

    Args:
        photos: from `scan`.
        features: (n, n_features) of the photos, from `scenelearn.finetune.features`, to look for
            wrong labels as well; rows with a NaN are passed over.
        progress: called with (photos decoded, photos in all).

    Returns:
        What was found. Hand its `groups` and its `quarantine` to `split`.

    Raises:
        ArgumentError: if `features` does not hold one row a photo, or not one of them is finite.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sl.audit(sl.scan(sl.sample_scenes(folder, per_class=2)))
        >>> found.blank, found.copies
        ((), ())
    """
    n = len(photos)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        grays = np.memmap(file, np.uint8, "w+", shape=(n, GRAY_PX, GRAY_PX))
        return _looked_at(photos, grays, features, progress)


def _looked_at(
    photos: Photos,
    grays: npt.NDArray[np.uint8],
    features: npt.NDArray[np.floating] | None,
    progress: Callable[[int, int], None] | None,
) -> Audit:
    n = len(photos)
    sizes = np.full(n, TINY_PX)
    spread = np.full(n, 255)
    animated = np.zeros(n, bool)
    failed: dict[int, Refused] = {}

    def one(index: int) -> None:
        found = of_photo(photos, index, lambda content: to_gray(content, GRAY_PX))
        if isinstance(found, Refused):
            failed[index] = found
        else:
            grays[index], sizes[index], animated[index] = found
            spread[index] = int(found.gray.max()) - int(found.gray.min())

    with STRICT:
        for done, _ in enumerate(map_in_threads(one, range(n)), start=1):
            if progress and (done % _CHUNK == 0 or done == n):
                progress(done, n)
    by_hash = defaultdict(list)
    for index, photo_hash in enumerate(photos.hashes):
        by_hash[photo_hash].append(index)
    copies = tuple(tuple(same) for same in by_hash.values() if len(same) > 1)
    firsts = np.array([same[0] for same in by_hash.values()], np.int64)
    near = alike(grays, firsts)
    groups = joined(n, links(photos.hashes) + near)
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[int(group)].append(index)
    together = [tuple(group) for group in members.values() if len(group) > 1]
    return Audit(
        photos=photos,
        groups=groups,
        copies=copies,
        alike=tuple(g for g in together if len({photos.hashes[i] for i in g}) > 1),
        two_labels=tuple(g for g in together if len({int(photos.labels[i]) for i in g}) > 1),
        across_sides=tuple(g for g in together if len({photos.sides[i] for i in g}) > 1),
        blank=tuple(int(i) for i in np.flatnonzero(spread <= 2)),
        tiny=tuple(int(i) for i in np.flatnonzero(sizes < TINY_PX)),
        animated=tuple(int(i) for i in np.flatnonzero(animated)),
        suspicious=() if features is None else suspects(features, photos.labels, groups),
        refused=(*photos.refused, *(failed[index] for index in sorted(failed))),
    )
