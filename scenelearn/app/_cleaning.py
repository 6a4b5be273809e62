"""What the page of `clean` shows, and the decisions that it makes."""

from __future__ import annotations

import itertools
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from scenelearn._display import is_printable, printable
from scenelearn._io import exclusive
from scenelearn.app._corrections import MAX_LABEL
from scenelearn.data import Audit
from scenelearn.data._decisions import (
    KINDS,
    Decision,
    decisions_file,
    read_decisions,
    write_decisions,
)
from scenelearn.data._rejections import RejectionReason
from scenelearn.errors import ArgumentError

FINDINGS = {
    "label_issues": "Label issues",
    "conflicting_labels": "Conflicting labels",
    "leaks": "Leaks between splits",
    "near_duplicates": "Near duplicates",
    "exact_duplicates": "Exact duplicates",
    "blank": "Blank photos",
    "tiny": "Tiny photos",
    "animated": "Several images in one file",
    "decided": "Decided earlier",
}
"""The kinds of findings, in the order in which they are shown."""

_GROUPS = ("conflicting_labels", "leaks", "near_duplicates", "exact_duplicates")


@dataclass(slots=True)
class Item:
    """A photo to decide about.

    Attributes:
        path: relative to the folder.
        label: the name of its class in the folder or manifest.
        hash: of its content.
        audited: the name of its class in the audit, which an earlier decision may have changed.
        findings: the kinds of findings about it.
        suggestion: the name of the class that it looks like; "" for none.
        companions: positions of items and other photos that show the same picture.
    """

    path: str
    label: str
    hash: bytes
    audited: str
    findings: list[str] = field(default_factory=list)
    suggestion: str = ""
    companions: list[int] = field(default_factory=list)


class Cleaning:
    """The photos to decide about, and the decisions so far. Threads may share it.

    Attributes:
        folder: of the photos.
        file: of the decisions.
        photos: every photo that the page can show; those to decide about have findings.
        order: the positions of those, label issues first.
        class_names: the classes to choose from.
    """

    def __init__(self, audit: Audit) -> None:
        self.folder = audit.photos.folder
        self.file = decisions_file(self.folder)
        decisions = read_decisions(self.file)
        names, labels = audit.photos.class_names, audit.photos.labels
        self.photos = [
            Item(path, names[label], content_hash, names[label])
            for path, label, content_hash in zip(
                audit.photos.paths, labels, audit.photos.hashes, strict=True
            )
        ]
        self.order: list[int] = []
        for kind, position, companions in _findings(audit):
            item = self.photos[position]
            if not item.findings:
                self.order.append(position)
            item.findings.append(kind)
            item.companions = item.companions or companions
        for issue in audit.label_issues:
            self.photos[issue.position].suggestion = names[issue.suggested_label]
        for file in audit.rejected:  # which `scan` left out
            if file.reason is RejectionReason.QUARANTINED and file.path in decisions:
                decision = decisions[file.path]
                item = Item(file.path, decision.label, decision.hash, decision.label)
                self.photos.append(item)
        self._position_of = {item.path: k for k, item in enumerate(self.photos)}
        self._history: list[tuple[str, Decision | None]] = []
        for path, decision in decisions.items():
            k = self._position_of.get(path, -1)
            item = self.photos[k]
            is_known = k >= 0 and item.label in (decision.label, decision.new_label)
            if not is_known or decision.hash != item.hash:  # `scan` ignores it
                continue
            self._history.append((item.path, None))
            item.label = decision.label  # `scan` has relabeled it
            if not item.findings:
                item.findings.append("decided")
                self.order.append(k)
        self.class_names = tuple(sorted({*names, *(item.label for item in self.photos)}))
        self._lock = threading.Lock()

    def decisions(self) -> dict[int, Decision]:
        """The decisions that apply, by the position of the photo."""
        found = {
            self._position_of[path]: decision
            for path, decision in read_decisions(self.file).items()
            if path in self._position_of
        }
        return {
            k: d
            for k, d in found.items()
            if (d.hash, d.label) == (self.photos[k].hash, self.photos[k].label)
        }

    def decide(self, position: Any, kind: Any, new_label: Any = "") -> None:
        """Save a decision; an earlier one about the photo is replaced.

        Raises:
            ArgumentError: if there is no such photo or kind, `new_label` is not a printable
                string, or "relabel" has none.
            ManifestError: if another program has made the file of decisions invalid.
            DiskError: if the system cannot write it.
        """
        n = len(self.photos)
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < n:
            raise ArgumentError(f"`position` must be below {n}. Received: {position!r:.80}.")
        if kind not in KINDS:
            raise ArgumentError(f"`kind` must be one of {KINDS}. Received: {kind!r:.80}.")
        if not isinstance(new_label, str):
            raise ArgumentError(f"`new_label` must be a string. Received: {new_label!r:.80}.")
        if new_label not in self.class_names:  # which may have any characters
            new_label = unicodedata.normalize("NFC", " ".join(new_label.split()))
            if not is_printable(new_label) or len(new_label) > MAX_LABEL:
                raise ArgumentError(
                    f"`new_label` must have at most {MAX_LABEL} printable characters. Received: "
                    f"{new_label!r:.80}."
                )
        if (kind == "relabel") != bool(new_label):
            raise ArgumentError(f"Only relabel takes a class. Received: {kind}, {new_label!r:.80}.")
        item = self.photos[position]
        if new_label == item.label:
            kind, new_label = "keep", ""
        with self._lock, exclusive(self.file.parent):
            decisions = read_decisions(self.file)
            before = decisions.pop(item.path, None)
            decisions[item.path] = Decision(
                path=item.path, decision=kind, label=item.label, new_label=new_label, hash=item.hash
            )
            write_decisions(self.file, decisions.values())
            self._history.append((item.path, before))  # only what was saved can be undone

    def undo(self) -> int | None:
        """Undo the last decision, also one of an earlier session.

        Returns:
            The position of its photo; None if there is nothing to undo, or the photo is gone.

        Raises:
            ManifestError: if another program has made the file of decisions invalid.
            DiskError: if the system cannot write it.
        """
        with self._lock, exclusive(self.file.parent):
            if not self._history:
                return None
            path, before = self._history[-1]
            decisions = read_decisions(self.file)
            decisions.pop(path, None)
            if before is not None:
                decisions[path] = before
            write_decisions(self.file, decisions.values())
            self._history.pop()
        return self._position_of.get(path)

    def to_json(self) -> dict[str, Any]:
        """Everything that the page shows, as plain values; names are safe to show."""
        shown = {*self.order, *(k for i in self.order for k in self.photos[i].companions)}
        position = {name: k for k, name in enumerate(self.class_names)}
        return {
            "classes": list(map(printable, self.class_names)),
            "kinds": FINDINGS,
            "order": self.order,
            "photos": {k: self._item_json(self.photos[k], position) for k in sorted(shown)},
            "decisions": {k: self.decision_json(d) for k, d in self.decisions().items()},
        }

    def _item_json(self, item: Item, position: dict[str, int]) -> dict[str, Any]:
        return {
            "path": printable(item.path),
            "label": position[item.label],
            "audited": position[item.audited],
            "findings": item.findings,
            "suggestion": position[item.suggestion] if item.suggestion else None,
            "companions": item.companions,
            "version": item.hash.hex()[:8],
        }

    @staticmethod
    def decision_json(decision: Decision | None) -> dict[str, str] | None:
        """A decision as the page shows it."""
        if decision is None:
            return None
        return {"decision": decision.decision, "label": printable(decision.new_label)}


def _findings(audit: Audit) -> Iterator[tuple[str, int, list[int]]]:
    """Each finding's kind, photo, and the other photos of the same picture.

    Of duplicates, all but the first are findings: it can stay.
    """
    group_of = defaultdict(list)
    for position, group in enumerate(audit.groups.tolist()):
        group_of[group].append(position)

    def others(position: int) -> list[int]:
        group = group_of[int(audit.groups[position])]
        return list(itertools.islice((k for k in group if k != position), 11))

    for issue in audit.label_issues:
        yield "label_issues", issue.position, others(issue.position)
    for kind in _GROUPS:
        n_kept = 1 if kind.endswith("duplicates") else 0
        for group in getattr(audit, kind):
            for position in group[n_kept:]:
                yield kind, position, others(position)
    for kind in ("blank", "tiny", "animated"):
        for position in getattr(audit, kind):
            yield kind, position, others(position)
