"""The model card: Markdown that accompanies a classifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn._display import printable
from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting import _statements as statements
from scenelearn.reporting._html import count, percent

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult

_MAX_CONFUSIONS = 5
_FEW_PHOTOS = 30
# Markup of HTML and Markdown anywhere in a line; what is markup only at the edge of a word or at
# the start of a line; and what some renderers turn into links.
_MARKUP = re.compile(
    r"""[&<>"'`*\[\]{}#|~$^=\\@]|(?<!\w)_|_(?!\w)|^[-+ ]|^\d(?=\d*[.)]\s)"""
    r"""|:(?=/)|(?<=mailto):|(?<=xmpp):|(?<=www)\.""",
    re.IGNORECASE,
)
_SHOWN_ELSEWHERE = {"backbone", "weights", "test accuracy", "photos"}


def escape_markdown(value: object) -> str:
    """A name from the disk for Markdown: one line, with markup as character references.

    Example:
        >>> escape_markdown("*sea* <b>")
        '&#42;sea&#42; &#60;b&#62;'
    """
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", printable(str(value)))


def model_card(fit: FitResult) -> str:
    """The whole card.

    Args:
        fit: the fit.

    Returns:
        Markdown that ends with a newline.
    """
    sections = (
        ("Intended use", _intended_use(fit)),
        ("Data", _data(fit)),
        ("Evaluation", _evaluation(fit)),
        ("Main errors", _errors(fit)),
        ("Uncertainty", _bullets(statements.uncertainty(fit))),
        ("Limitations", _bullets(_limitations(fit))),
        ("Reproduction", _reproduction(fit)),
    )
    return _head(fit) + "".join(f"\n## {title}\n\n{body.rstrip()}\n" for title, body in sections)


def _head(fit: FitResult) -> str:
    photos, environment = fit.splits.photos, fit.environment
    weights = environment.get("weights", fit.settings.weights or "random")
    rows = [
        ("classes", ", ".join(map(escape_markdown, photos.class_names))),
        ("backbone", escape_markdown(fit.settings.backbone)),
        ("initial weights", escape_markdown(weights)),
        ("input size", f"{fit.settings.image_px} × {fit.settings.image_px} px"),
        ("kept", escape_markdown(statements.kept(fit))),
        *(
            (escape_markdown(key), escape_markdown(environment[key]))
            for key in environment
            if key not in _SHOWN_ELSEWHERE
        ),
    ]
    return (
        f"# Model card: {escape_markdown(photos.folder.name)}\n\n"
        f"{statements.headline(fit, escape_markdown, '**{}**')}\n\n"
        + _table(("property", "value"), rows)
    )


def _intended_use(fit: FitResult) -> str:
    n_classes = len(fit.splits.photos.class_names)
    return (
        f"Classification of photos into {count(n_classes, 'class', 'classes')}, for photos similar "
        "to the training photos, where a person can review the photos on which the classifier "
        "abstains.\n\n"
        "Out of scope: photos of anything else, because the classifier always predicts one of its "
        "classes and detects most, but not all, out-of-distribution photos; decisions about "
        "people; and uses where a single wrong prediction does irreversible harm."
    )


def _data(fit: FitResult) -> str:
    rows = fit.splits.class_counts()
    label, *splits = rows[0]
    cells = [
        (escape_markdown(row[label]), *(f"{row[split]:,}" for split in splits)) for row in rows
    ]
    groups = analysis.group_rejected(fit.rejected, 0)
    reasons = ", ".join(f"{group.n:,} {group.reason}" for group in groups)
    rejected = f"Rejected files: {reasons}." if groups else "No file was rejected."
    return (
        f"The folder {escape_markdown(fit.splits.photos.folder.name)}, split with seed "
        f"{fit.splits.seed}. The fingerprint of the photos is "
        f"{escape_markdown(fit.environment.get('photos', 'unknown'))}; split.csv lists each photo "
        f"with its split and hash. {rejected}\n\n{_table(('class', *splits), cells)}"
    )


def _evaluation(fit: FitResult) -> str:
    evaluation = fit.evaluation
    with_interval = statements.with_interval
    top_2 = [("top-2 accuracy", with_interval(evaluation.top_k_accuracy[1]))] * (
        len(evaluation.top_k_accuracy) > 2
    )
    overall = _table(
        (f"on {count(evaluation.n_photos, 'test photo')}", "value (95% interval)"),
        [
            ("accuracy", with_interval(evaluation.accuracy)),
            ("balanced accuracy", with_interval(evaluation.balanced_accuracy)),
            *top_2,
            ("log loss", f"{evaluation.log_loss:.3f} nats"),
            ("Brier score", f"{evaluation.brier_score:.3f}"),
            (
                "expected calibration error",
                f"{percent(evaluation.calibration_error)} (expected by chance: "
                f"{percent(evaluation.calibration_noise_floor)})",
            ),
        ],
    )
    per_class = _table(
        ("class", "photos", "recall", "precision", "F1"),
        [
            (
                escape_markdown(metrics.label),
                f"{metrics.n_photos:,}",
                *map(with_interval, (metrics.recall, metrics.precision, metrics.f1)),
            )
            for metrics in evaluation.per_class
        ],
    )
    return f"{overall}\n{per_class}\n{statements.calibration(evaluation)}"


def _errors(fit: FitResult) -> str:
    evaluation = fit.evaluation
    support = {metrics.label: metrics.n_photos for metrics in evaluation.per_class}
    confusions = [
        statements.confusion(confusion, support[confusion.label], escape_markdown)
        for confusion in evaluation.most_confused()[:_MAX_CONFUSIONS]
    ] or ["No test photo is misclassified."]
    slices = [
        statements.slice_accuracy(slice_, escape_markdown)
        for slice_ in evaluation.slices
        if slice_.is_worse
    ]
    return _bullets([*confusions, *slices, statements.slices_summary(evaluation)])


def _limitations(fit: FitResult) -> list[str]:
    n_few = sum(metrics.n_photos < _FEW_PHOTOS for metrics in fit.evaluation.per_class)
    few = (
        f"{count(n_few, 'class has', 'classes have')} fewer than {_FEW_PHOTOS} test photos: their "
        "intervals are wide."
    )
    return [
        "The test photos come from the same folder as the training photos. Expect a lower accuracy "
        "on photos from other sources.",
        f"Network, temperature and thresholds were selected on {len(fit.splits.validation):,} "
        "validation photos.",
        *([few] if n_few else []),
        "scenelearn does not know the license of the photos, nor how well they represent the "
        "classes. Add here what you know.",
    ]


def _reproduction(fit: FitResult) -> str:
    code = analysis.reproduction_code(fit)
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}{fence}"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
