"""`Photos`: the usable photos of a folder, and every file that was rejected."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array
from scenelearn._display import first_lines, html_text, printable
from scenelearn._pandas import to_pandas
from scenelearn.data._files import read_file
from scenelearn.data._rejections import Rejected
from scenelearn.errors import ArgumentError, NoPhotosError


class Photo(NamedTuple):
    """One photo, as `Photos` returns it.

    Attributes:
        path: the absolute path of the file; inside a ZIP archive, the archive's path and the
            file's path in it.
        label: the name of its class.
        split: "train", "validation" or "test" if the folder or manifest says so, else "".
    """

    path: Path
    label: str
    split: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Photos:
    """The usable photos of a folder as columns, sorted by path.

    A sequence: ``photos[0]`` is a `Photo`, ``photos[10:20]`` and ``photos[[3, 5]]`` are `Photos`,
    and iterating yields each `Photo`.

    Attributes:
        folder: the scanned folder or ``.zip`` file, absolute.
        paths: one path per photo, relative to `folder`, with forward slashes.
        labels: (n,) int32 in [0, n_classes), indices into `class_names`.
        class_names: the classes, sorted.
        hashes: a 16-byte hash of each photo's content.
        splits: the split that the folder or manifest assigns to each photo: "train", "validation",
            "test" or "".
        unlabeled: paths of usable photos without a class, such as those in ``seg_pred``.
        rejected: every other file that was found, with the reason.
        groups: the manifest's "group" column: photos with the same name stay together, those with
            "" are on their own. Empty if no manifest has groups.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     photos = sl.scan(sl.sample_scenes(folder, per_class=4))
        >>> photos
        <Photos: 24 photos, 6 classes>
        >>> photos[0].label, len(photos[10:20])
        ('buildings', 10)
    """

    folder: Path
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    hashes: tuple[bytes, ...]
    splits: tuple[str, ...]
    unlabeled: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Photo]:
        return map(self._photo, range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Photo: ...

    @overload
    def __getitem__(self, index: slice | list[int] | npt.NDArray[Any]) -> Photos: ...

    def __getitem__(self, index: Any) -> Photo | Photos:
        """One photo by its position; several by a slice, positions or a boolean mask.

        A selection keeps `class_names`, so that labels mean the same; it has no `unlabeled` and no
        `rejected` files.

        Raises:
            IndexError: if a position is out of range.
            ArgumentError: if `index` has the wrong type.
        """
        if isinstance(index, numbers.Integral) and not isinstance(index, bool):
            k, n = int(index), len(self)
            if not -n <= k < n:
                raise IndexError(f"position {k} is out of bounds for {n:,} photos")
            return self._photo(k % n)
        positions = np.arange(len(self))
        if isinstance(index, slice):
            return self._select(positions[index])
        chosen = check_array("index", index)
        if isinstance(index, list) and not index:
            chosen = chosen.astype(np.int64)
        if isinstance(index, tuple) or chosen.ndim != 1 or chosen.dtype.kind not in "iub":
            raise ArgumentError(
                "`photos[...]` takes a position, a slice, or a list or 1-D array of positions or "
                f"booleans. Received: {index!r:.80}. To find a photo by its path, use "
                "`photos.paths.index(path)`."
            )
        return self._select(positions[chosen])

    def _photo(self, index: int) -> Photo:
        return Photo(self.file(index), self.class_names[self.labels[index]], self.splits[index])

    def _select(self, indices: npt.NDArray[np.int64]) -> Photos:
        chosen = indices.tolist()
        return replace(
            self,
            paths=tuple(self.paths[k] for k in chosen),
            labels=self.labels[indices],
            hashes=tuple(self.hashes[k] for k in chosen),
            splits=tuple(self.splits[k] for k in chosen),
            groups=tuple(self.groups[k] for k in chosen) if self.groups else (),
            unlabeled=(),
            rejected=(),
        )

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def counts(self) -> dict[str, int]:
        """The number of photos per class."""
        totals = np.bincount(self.labels, minlength=self.n_classes)
        return {name: int(n) for name, n in zip(self.class_names, totals, strict=True)}

    def file(self, index: int) -> Path:
        """The absolute path of a photo; inside a ZIP archive, below the archive's own path."""
        return self.folder / self.paths[index]

    def read(self, index: int) -> bytes:
        """The content of a photo's file.

        Raises:
            OSError: if the file is gone or cannot be read.
        """
        return read_file(self.folder, self.paths[index])

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row per photo: path, label (the name of the class) and split."""
        return [
            {"path": path, "label": self.class_names[label], "split": split}
            for path, label, split in zip(self.paths, self.labels, self.splits, strict=True)
        ]

    def to_pandas(self) -> Any:
        """The rows of `to_rows` as a ``pandas.DataFrame``.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> dict[str, Any]:
        """Folder, counts, the rows of `to_rows`, and the unlabeled and rejected files."""
        return {
            "folder": str(self.folder),
            "counts": self.counts(),
            "photos": self.to_rows(),
            "unlabeled": list(self.unlabeled),
            "rejected": [file.to_json() for file in self.rejected],
        }

    def __repr__(self) -> str:
        parts = [f"{len(self):,} photos", f"{self.n_classes} classes"]
        if self.unlabeled:
            parts.append(f"{len(self.unlabeled):,} unlabeled")
        if self.rejected:
            parts.append(f"{len(self.rejected):,} rejected")
        return f"<Photos: {', '.join(parts)}>"

    @property
    def summary(self) -> str:
        """One line: how many photos, classes, unlabeled and rejected files, by reason."""
        text = f"{len(self):,} photos in {self.n_classes} classes"
        if self.unlabeled:
            text += f", {len(self.unlabeled):,} unlabeled"
        if self.rejected:
            reasons = Counter(file.reason.value for file in self.rejected)
            listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
            text += f", {len(self.rejected):,} rejected ({listed})"
        return text

    def __str__(self) -> str:
        """The summary, the photos per class and the first rejected files."""
        lines = [self.summary]
        lines += [f"{n:9,}  {printable(name)}" for name, n in self.counts().items()]
        if self.rejected:
            lines += ["rejected:", *(f"  {line}" for line in first_lines(self.rejected, 5))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_text(self)


def check_not_empty(photos: Photos) -> None:
    """Check that there is at least one photo.

    Raises:
        NoPhotosError: if there is none.
    """
    if not len(photos):
        raise NoPhotosError(
            f"`photos` must contain at least one photo. Received: an empty selection of the photos "
            f"in {str(photos.folder)!r}. Select other photos."
        )
