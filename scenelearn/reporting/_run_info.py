"""Time, memory and split of a fit, and the code that reproduces it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _statements as statements
from scenelearn.reporting._html import (
    NONE,
    duration,
    escape,
    name,
    percent,
    region,
    section,
    table,
)

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult


def cost(fit: FitResult) -> str:
    """Time per phase, memory, and the number of photos per class and split."""
    rest = fit.seconds - sum(phase.seconds for phase in fit.phases)
    phases = [(escape(phase.name), phase.seconds, escape(phase.note)) for phase in fit.phases]
    if rest >= 0.05:
        phases.append(("other", rest, ""))
    rows = [
        (
            phase,
            duration(seconds) + figures.fraction_bar(seconds / fit.seconds if fit.seconds else 0.0),
            percent(seconds / fit.seconds) if fit.seconds else NONE,
            note,
        )
        for phase, seconds, note in phases
    ]
    times = table(
        "Phases of the fit",
        ("phase", "time", "percentage", "details"),
        rows,
        "lnnl",
        ("total", duration(fit.seconds), "", ""),
    )
    memory = "".join(
        f"<dt>{key}</dt><dd>{escape(fit.environment[key])}</dd>"
        for key in statements.MEMORY_KEYS
        if key in fit.environment
    )
    if memory:
        times += f'<h3>Memory</h3><dl class="rows">{memory}</dl><p>{statements.MEMORY_NOTE}</p>'
    body = f"{times}<h3>Photos per class and split</h3>{_split_table(fit)}"
    return section("cost", "Time, memory and photos", body)


def _split_table(fit: FitResult) -> str:
    rows = fit.splits.class_counts()
    label, *splits = rows[0]
    totals = [sum(row[split] for row in rows) for split in splits]
    return table(
        "Photos per class and split",
        ("class", *splits, "total"),
        [
            (
                name(row[label]),
                *(f"{row[split]:,}" for split in splits),
                f"{sum(row[split] for split in splits):,}",
            )
            for row in rows
        ],
        "l" + "n" * (len(splits) + 1),
        ("total", *(f"{total:,}" for total in totals), f"{sum(totals):,}"),
    )


def reproduction(fit: FitResult) -> str:
    """Python code that runs this fit again, and its environment."""
    sizes = [len(split) for split in (fit.splits.train, fit.splits.validation, fit.splits.test)]
    total = sum(sizes) or 1
    note = (
        f"<p>The split has {sizes[0]:,} training photos, {sizes[1]:,} validation photos "
        f"({percent(sizes[1] / total)}) and {sizes[2]:,} test photos "
        f"({percent(sizes[2] / total)}). <code>split.csv</code>, next to this page, lists each "
        "photo with its split and hash. Photos that are missing or have changed since are "
        "rejected.</p>"
    )
    # Strings in the code are written by repr, so only markup is left to escape.
    code = html.escape(analysis.reproduction_code(fit))
    snippet = region("Python code", f"<pre><code>{code}</code></pre>")
    environment = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(value)}</dd>"
        for key, value in fit.environment.items()
    )
    body = f'{note}{snippet}<h3>Environment</h3><dl class="rows">{environment}</dl>'
    return section("reproduction", "Reproduce this fit", body)
