"""The top of the page: what was reached, where it fails, how far to trust it, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _findings as findings
from scenelearn.reporting import _sentences as sentences
from scenelearn.reporting._confusion import anchor
from scenelearn.reporting._markup import figure, name, percent

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import Evaluation

_MOST_NAMED = 3  # confusions, classes and groups that the top of the page names


def answer(fit: FitResult) -> str:
    """What was reached, in one sentence, on one scale and as facts; then three short lists."""
    judged = fit.evaluation
    largest = findings.chance(judged)
    chance = largest.n_photos / judged.n_photos
    scale = figure(
        figures.ruler(judged.accuracy, chance),
        "The band is the 95\N{NO-BREAK SPACE}% interval of the accuracy. The chance level is "
        f"what always answering {name(largest.name)}, the test photos' largest class, would reach.",
    )
    lists = (
        ("fails", "Where it fails", _failures(judged)),
        ("trust", "How far to trust one answer", [*sentences.trust(fit), _sure(judged)]),
        ("next", "What to do next", sentences.next_steps(fit, name)),
    )
    blocks = "".join(
        f'<div class="{kind}"><h2>{title}</h2>{_list(items)}</div>' for kind, title, items in lists
    )
    return (
        f'<p class="lead">{sentences.reached(fit, name, "<strong>{}</strong>")}</p>'
        f'{scale}{_facts(fit, chance)}<div class="blocks">{blocks}</div>'
    )


def _facts(fit: FitResult, chance: float) -> str:
    judged = fit.evaluation
    n_wrong = judged.n_photos - sum(row[k] for k, row in enumerate(judged.confusion))
    facts = [
        ("Mistaken photos", f"{n_wrong:,} of {judged.n_photos:,}"),
        ("Mean recall of the classes", percent(judged.balanced_accuracy.value)),
        ("Validation accuracy", percent(fit.validation.accuracy.value)),
        ("Chance level", percent(chance)),
    ]
    tiles = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in facts)
    return f'<dl class="facts">{tiles}</dl>'


def _failures(judged: Evaluation) -> list[str]:
    """The worst confusions, classes and groups, as HTML."""
    mistaken = findings.confusions(judged)
    if not mistaken:
        return ["On no test photo.", sentences.groups(judged)]
    weak = findings.weak_classes(judged)[:_MOST_NAMED]
    slices = [one for one in judged.slices if one.is_worse][:_MOST_NAMED]
    return [
        *(
            f'<a href="#{anchor(one.row, one.column)}">{sentences.confusion(one, name)}</a>'
            for one in mistaken[:_MOST_NAMED]
        ),
        *(sentences.weak_class(score, name) for score in weak),
        *(sentences.worse(one, name) for one in slices),
        sentences.groups(judged),
    ]


def _sure(judged: Evaluation) -> str:
    sure = percent(findings.mean_confidence(judged))
    return f"Answers are on average {sure} sure, and {percent(judged.accuracy.value)} are right."


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
