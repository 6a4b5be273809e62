"""The top of the page: the accuracy, the main errors, the uncertainty, and the next steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _statements as statements
from scenelearn.reporting._confusion_matrix import anchor
from scenelearn.reporting._html import figure, name, percent

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import Evaluation

_MAX_ERRORS = 3  # confusions, classes and slices listed here


def summary(fit: FitResult) -> str:
    """The headline, the accuracy on a scale, key facts, and three short lists."""
    evaluation = fit.evaluation
    majority = analysis.majority_class(evaluation)
    baseline = majority.n_photos / evaluation.n_photos
    scale = figure(
        figures.accuracy_scale(evaluation.accuracy, baseline),
        "The band is the 95% confidence interval of the accuracy. The baseline "
        f"is the accuracy of always predicting {name(majority.label)}, the most frequent class of "
        "the test photos.",
    )
    uncertainty = [*statements.uncertainty(fit), statements.confidence(evaluation)]
    lists = (
        ("errors", "Main errors", _errors(evaluation)),
        ("uncertainty", "Uncertainty", uncertainty),
        ("next", "Next steps", statements.next_steps(fit, name)),
    )
    blocks = "".join(
        f'<div class="{kind}"><h2>{title}</h2>{_list(items)}</div>' for kind, title, items in lists
    )
    return (
        f'<p class="lead">{statements.headline(fit, name, "<strong>{}</strong>")}</p>'
        f'{scale}{_facts(fit, baseline)}<div class="blocks">{blocks}</div>'
    )


def _facts(fit: FitResult, baseline: float) -> str:
    evaluation = fit.evaluation
    n_correct = sum(row[k] for k, row in enumerate(evaluation.confusion_matrix))
    facts = [
        ("Misclassified photos", f"{evaluation.n_photos - n_correct:,} of {evaluation.n_photos:,}"),
        ("Balanced accuracy", percent(evaluation.balanced_accuracy.value)),
        ("Validation accuracy", percent(fit.validation.accuracy.value)),
        ("Baseline accuracy", percent(baseline)),
    ]
    tiles = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in facts)
    return f'<dl class="facts">{tiles}</dl>'


def _errors(evaluation: Evaluation) -> list[str]:
    """The main confusions, classes and slices, as HTML."""
    confusions = evaluation.most_confused()
    if not confusions:
        return ["No test photo is misclassified.", statements.slices_summary(evaluation)]
    position = {name_: k for k, name_ in enumerate(evaluation.class_names)}
    links = []
    for confusion in confusions[:_MAX_ERRORS]:
        row, column = position[confusion.label], position[confusion.predicted]
        sentence = statements.confusion(confusion, evaluation.per_class[row].n_photos, name)
        links.append(f'<a href="#{anchor(row, column)}">{sentence}</a>')
    weakest = analysis.weakest_classes(evaluation)[:_MAX_ERRORS]
    worse = [slice_ for slice_ in evaluation.slices if slice_.is_worse][:_MAX_ERRORS]
    return [
        *links,
        *(statements.class_recall(metrics, name) for metrics in weakest),
        *(statements.slice_accuracy(slice_, name) for slice_ in worse),
        statements.slices_summary(evaluation),
    ]


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
