"""`rank`: which unlabeled photos to label next."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_integer, check_path
from scenelearn._display import first_lines, html_text, printable
from scenelearn._pandas import to_pandas
from scenelearn._progress import Progress, show_progress
from scenelearn.classify._classifier import Classifier
from scenelearn.data import Photos
from scenelearn.data._manifest import ManifestRow, read_manifest, write_manifest
from scenelearn.errors import ArgumentError, NoPhotosError, PathMissingError

_MAX_LINES = 20  # of the text for a ranking


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ranking:
    """Photos to label next, the most useful first.

    Attributes:
        folder: the folder or archive of the photos, absolute.
        paths: n paths relative to it, with forward slashes.
        labels: the n predicted classes.
        margins: (n,) float32, the probability of the most probable class minus that of the second.
        n_photos: how many unlabeled photos there were to choose from.
    """

    folder: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    margins: npt.NDArray[np.float32]
    n_photos: int

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"<Ranking: {len(self):,} of {self.n_photos:,} photos>"

    def __str__(self) -> str:
        photos = [
            f"{printable(path)}: perhaps {printable(label)} (margin {margin:.3f})"
            for path, label, margin in zip(self.paths, self.labels, self.margins, strict=True)
        ]
        title = f"{len(self):,} of {self.n_photos:,} photos to label next:"
        return "\n  ".join([title, *first_lines(photos, _MAX_LINES)])

    def _repr_html_(self) -> str:
        return html_text(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row per photo: path, label (the predicted class) and margin."""
        return [
            {"path": path, "label": label, "margin": float(margin)}
            for path, label, margin in zip(self.paths, self.labels, self.margins, strict=True)
        ]

    def to_pandas(self) -> Any:
        """The rows of `to_rows` as a ``pandas.DataFrame``.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> dict[str, Any]:
        """Folder, number of unlabeled photos, and the rows of `to_rows`."""
        return {"folder": str(self.folder), "n_photos": self.n_photos, "photos": self.to_rows()}

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Save a manifest whose labels are empty, to be filled in.

        ``sl.scan(ranking.folder, file)`` reads it. Rows that are still empty count as unlabeled.

        Args:
            file: the file to write or replace; its name ends in ``.csv``.

        Returns:
            The path.

        Raises:
            ArgumentError: if `file` is no path or a folder, or its folder is not writable; or it
                holds labels, which would be lost.
            ManifestError: if the name does not end in ``.csv``, or the file is no manifest.
            DiskSpaceError: if the disk is full.
            DiskError: if the system cannot write the file.
        """
        target = check_no_labels(file)
        return write_manifest(target, (ManifestRow(path=path, label="") for path in self.paths))


def check_no_labels(file: str | os.PathLike[str]) -> Path:
    """Check that `Ranking.save` would replace no labels; returns the path.

    Raises:
        ArgumentError: if `file` is no path, or holds labels.
        ManifestError: if it exists and is no manifest.
    """
    path = check_path("file", file, advice="Pass e.g. 'to_label.csv'.")
    if path.is_file() and path.suffix.lower() == ".csv":
        n_labels = sum(bool(row.label) for row in read_manifest(path))
        if n_labels:
            raise ArgumentError(
                "`file` must not hold labels, which would be lost. Received: "
                f"{str(path)!r}, with {n_labels:,} labels. Pass another name, or remove it."
            )
    return path


def rank(
    unlabeled: Photos | str | os.PathLike[str],
    classifier: Classifier,
    n: int = 100,
    *,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Ranking:
    """Rank the photos to label next: those that the classifier is unsure of, and no two alike.

    Photos are sampled by weighted k-means++: with m the margin between a photo's two highest
    probabilities, and d² the squared distance of its features to the nearest photo sampled before,
    the probability of the next photo is proportional to (1 − m) · d². The features are compressed
    to 64 numbers by PCA of the training photos, and scaled to length 1. The seed is fixed: the same
    photos are ranked alike.

    Photos that cannot be decoded are left out, with a logged warning for each.

    Args:
        unlabeled: a folder of photos, with its subfolders; or the result of `scan`, whose
            `unlabeled` photos are ranked.
        classifier: trained on the photos that have labels.
        n: how many photos to choose, at least 1. If there are fewer, all are ranked.
        progress: called with (what, photos done, total); it replaces the progress bar.
        verbose: True for a progress bar, False for none, "auto" for one on a terminal and in a
            notebook.

    Returns:
        The photos, the most useful first. `Ranking.save` writes the manifest to fill in.

    Raises:
        ArgumentError: if `unlabeled` is neither `Photos` nor a path, `classifier` is none or has no
            calibration, `n` is below 1, or `verbose` is something else.
        PathMissingError: if `unlabeled` is not an existing folder.
        NoPhotosError: if there is no unlabeled photo that can be decoded.
        ForkError: if the classifier was loaded before this process was forked.

    References:
        Margin: T. Scheffer, C. Decomain, S. Wrobel (2001), Active hidden Markov models for
        information extraction. IDA. k-means++: D. Arthur, S. Vassilvitskii (2007), k-means++: the
        advantages of careful seeding. SODA.
    """
    check_integer("n", n, low=1, advice="The default is 100.")
    if not isinstance(classifier, Classifier) or classifier.calibration is None:
        raise ArgumentError(
            "`classifier` must be a Classifier with a calibration, as `fit` returns. Received: "
            f"{classifier!r:.80}. Open a saved one with sl.load(path)."
        )
    folder, photos = _unlabeled_photos(unlabeled)
    names: list[str] = []
    margins, labels, embeddings = [], [], []
    with show_progress(progress, verbose) as report:
        for batch, outputs in classifier._predict_batches(photos, broken="skip", report=report):
            names += batch
            margins.append(top_two_margin(outputs.probabilities))
            labels.append(outputs.probabilities.argmax(axis=1))
            embeddings.append(
                classifier.calibration.neighbor_index.embed(outputs.features).astype(np.float16)
            )
    if not names:
        raise _no_photos_error(folder, "of them can be decoded")
    margin, label = np.concatenate(margins), np.concatenate(labels)
    chosen = sample_diverse(np.concatenate(embeddings), 1 - margin, n)
    return Ranking(
        folder=folder,
        paths=tuple(Path(names[k]).relative_to(folder).as_posix() for k in chosen),
        labels=tuple(classifier.class_names[label[k]] for k in chosen),
        margins=margin[chosen],
        n_photos=len(names),
    )


def top_two_margin(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """The probability of each row's most probable class minus that of the second."""
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return np.asarray(first - second)


def sample_diverse(
    embeddings: npt.NDArray[np.floating], weights: npt.NDArray[np.floating], n: int
) -> npt.NDArray[np.int64]:
    """Sample rows by weighted k-means++, with a fixed seed.

    The probability of the next row is proportional to its weight times the squared distance to the
    nearest row sampled before; that of the first row to its weight. Rows of probability 0 come
    last, by weight.

    Args:
        embeddings: (n_rows, n_components).
        weights: (n_rows,), at least 0.
        n: how many rows to sample; all, if there are fewer.

    Returns:
        The rows, in the order in which they were sampled, each once.

    Example:
        >>> sample_diverse(np.array([[0.0], [0.0], [2.0]]), np.array([0.8, 0.9, 0]), 3).tolist()
        [1, 0, 2]
    """
    random = np.random.default_rng(0)
    rows = embeddings.astype(np.float32)
    scores = weights.astype(np.float64)
    nearest = np.full(len(rows), np.inf)
    chosen: list[int] = []
    while len(chosen) < min(n, len(rows)):
        cumulative = scores.cumsum()
        if not cumulative[-1] > 0:
            rest = np.setdiff1d(np.arange(len(rows)), chosen)
            chosen += rest[np.argsort(-weights[rest], kind="stable")].tolist()
            break
        position = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")
        chosen.append(int(position))
        distance = ((rows - rows[position]) ** 2).sum(axis=1)
        nearest = np.minimum(nearest, distance)
        scores = weights * nearest
    return np.array(chosen[:n], np.int64)


def _unlabeled_photos(unlabeled: Any) -> tuple[Path, Any]:
    """The folder, and what `Classifier.predict` takes for its photos."""
    if isinstance(unlabeled, Photos):
        folder = unlabeled.folder
        n = len(unlabeled.unlabeled)
        if not n:
            raise _no_photos_error(folder, "of them is unlabeled")
        return folder, replace(
            unlabeled,
            paths=unlabeled.unlabeled,
            labels=np.zeros(n, np.int32),
            hashes=(b"",) * n,
            splits=("",) * n,
            groups=(),
        )
    folder = check_path("unlabeled", unlabeled).absolute()
    if not folder.is_dir():
        raise PathMissingError(
            f"`unlabeled` must be an existing folder of photos. Received: {str(folder)!r}. "
            "Check the path."
        )
    return folder, folder


def _no_photos_error(folder: Path, reason: str) -> NoPhotosError:
    return NoPhotosError(
        f"`unlabeled` must contain at least one photo to rank. Received: {str(folder)!r}, none "
        f"{reason}. Pass a folder of photos without labels."
    )
