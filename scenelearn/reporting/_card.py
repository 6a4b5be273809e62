"""The model card: what goes with a classifier when it is handed on, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn._display import printable
from scenelearn.reporting import _findings as findings
from scenelearn.reporting import _sentences as sentences
from scenelearn.reporting._markup import count, percent

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult

_MOST_CONFUSIONS = 5
# Markup of HTML and Markdown anywhere in a line; what is so only at the edge of a word or at the
# beginning of a line; and what some renderers make a link of.
_MARKUP = re.compile(
    r"""[&<>"'`*\[\]{}#|~$^=\\@]|(?<!\w)_|_(?!\w)|^[-+ ]|^\d(?=\d*[.)]\s)"""
    r"""|:(?=/)|(?<=mailto):|(?<=xmpp):|(?<=www)\.""",
    re.IGNORECASE,
)
_TOLD_ELSEWHERE = {"backbone", "weights", "test accuracy", "photos"}


def word(value: object) -> str:
    """A name from the disk, safe amid Markdown: one line, its markup as character references.

    Example:
        >>> word("*sea* <b>")
        '&#42;sea&#42; &#60;b&#62;'
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(str(value)))


def model_card(fit: FitResult) -> str:
    """The whole card.

    Args:
        fit: its result.

    Returns:
        Markdown, with a new line at its end.
    """
    parts = (
        _head(fit),
        ("Intended use", _use(fit)),
        ("Data", _data(fit)),
        ("What it reaches", _figures(fit)),
        ("Where it fails", _failures(fit)),
        ("How far to trust one answer", _bullets(sentences.trust(fit))),
        ("Limits", _bullets(_limits(fit))),
        ("How to repeat it", _repeat(fit)),
    )
    first, *rest = parts
    return first + "".join(f"\n## {title}\n\n{body.rstrip()}\n" for title, body in rest)


def _head(fit: FitResult) -> str:
    photos, facts = fit.splits.photos, fit.environment
    rows = [
        ("classes", ", ".join(map(word, photos.class_names))),
        ("network", word(fit.settings.backbone)),
        ("weights to begin with", word(facts.get("weights", fit.settings.weights or "random"))),
        ("photos seen at", f"{fit.settings.image_px} × {fit.settings.image_px} px"),
        ("kept", word(sentences.kept(fit))),
        *((word(key), word(facts[key])) for key in facts if key not in _TOLD_ELSEWHERE),
    ]
    return (
        f"# Model card: {word(photos.folder.name)}\n\n{sentences.reached(fit, word, '**{}**')}\n\n"
        + _table(("property", "value"), rows)
    )


def _use(fit: FitResult) -> str:
    n_classes = len(fit.splits.photos.class_names)
    return (
        f"To tell which of {count(n_classes, 'class', 'classes')} a photo shows, for photos of the "
        "kind that it was trained on, where a person can look at the answers it abstains from.\n\n"
        "Not for photos of anything else: it must name one of its classes and flags strange photos "
        "only most of the time. Not for decisions about people, or where one wrong answer does "
        "harm that nobody can undo."
    )


def _data(fit: FitResult) -> str:
    sides = fit.splits.to_rows()
    columns = tuple(sides[0])
    rows = [(word(row["class"]), *(f"{row[side]:,}" for side in columns[1:])) for row in sides]
    refused = findings.refused_groups(fit.refused, 0)
    why = ", ".join(f"{group.n:,} {group.reason}" for group in refused)
    left_out = f"Files that were not used: {why}." if refused else "Every file found was used."
    return (
        f"The folder {word(fit.splits.photos.folder.name)}, divided by split with seed "
        f"{fit.splits.seed}. The fingerprint of the photos is"
        f" {word(fit.environment.get('photos', 'not known'))}; split.csv lists each with its "
        f"side and hash. {left_out}\n\n{_table(columns, rows)}"
    )


def _figures(fit: FitResult) -> str:
    judged = fit.evaluation
    measured = sentences.measured
    ranks = [("true class among the first two", measured(judged.top_k[1]))] * (
        len(judged.top_k) > 2
    )
    whole = _table(
        (f"on {count(judged.n_photos, 'test photo')}", "value (95 % interval)"),
        [
            ("accuracy", measured(judged.accuracy)),
            ("mean recall of the classes", measured(judged.balanced_accuracy)),
            *ranks,
            ("log loss", f"{judged.log_loss:.3f} nats"),
            ("Brier score", f"{judged.brier:.3f}"),
            (
                "expected calibration error",
                f"{percent(judged.calibration_error)} (by chance alone "
                f"{percent(judged.calibration_floor)})",
            ),
        ],
    )
    classes = _table(
        ("class", "photos", "recall", "precision", "F1"),
        [
            (
                word(score.name),
                f"{score.n_photos:,}",
                *(measured(one) for one in (score.recall, score.precision, score.f1)),
            )
            for score in judged.per_class
        ],
    )
    return f"{whole}\n{classes}\n{sentences.calibration(judged)}"


def _failures(fit: FitResult) -> str:
    judged = fit.evaluation
    confusions = findings.confusions(judged)[:_MOST_CONFUSIONS]
    slices = [sentences.worse(one, word) for one in judged.slices if one.is_worse]
    told = [sentences.confusion(one, word) for one in confusions] or ["On no test photo."]
    return _bullets([*told, *slices, sentences.groups(judged)])


def _limits(fit: FitResult) -> list[str]:
    n_few = sum(score.n_photos < 30 for score in fit.evaluation.per_class)
    few = (
        f"For {count(n_few, 'class', 'classes')} there are fewer than 30 test photos: the "
        "intervals of their figures are wide."
    )
    return [
        "The test photos come from the same folder as the training photos. On photos from "
        "elsewhere expect less.",
        "The validation photos chose the network, its temperature and its thresholds; they number "
        f"{len(fit.splits.validation):,}.",
        *([few] if n_few else []),
        "scenelearn does not know the license of the photos, nor whether they show all that the "
        "classes are. Add here what you know.",
    ]


def _repeat(fit: FitResult) -> str:
    code = findings.recipe(fit)
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}{fence}"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
