"""Numbers and tables of the docs from the files in docs/results, which commands wrote."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scenelearn import backbones

RESULTS = Path(__file__).resolve().parent / "results"


def numbers() -> dict[str, str]:
    """The numbers in the texts of pages, by the name of their placeholder."""
    intel, peers = read("intel"), {run["name"]: run for run in read("peers")["runs"]}
    probe = [run for run in intel["runs"] if run["minutes"] is None]
    minutes = max(run["minutes"] or 0 for run in intel["runs"])
    longest = [run for run in intel["runs"] if run["minutes"] == minutes]
    ours = peers["scenelearn"]
    others = ("timm + scikit-learn", "Keras' guide", "fastai")
    values = [run["test"]["value"] for run in longest]
    return {
        "networks": str(len(backbones.names())),
        "photos": f"{intel['photos']['n']:,}",
        "cores": probe[0]["environment"]["cores"],
        "first seconds": _seconds(probe),
        "first accuracy": _accuracy(probe),
        "minutes": f"{minutes:g}",
        "accuracy": _accuracy(longest),
        "accuracy range": f"{min(values):.1%} to {max(values):.1%}",
        "seeds": str(len(longest)),
        "peers accuracy": _accuracy([ours]),
        "peers minutes": f"{ours['seconds'] / 60:.1f}",
        "other libraries": ", ".join(
            f"{name} {_accuracy([peers[name]])} in {peers[name]['seconds'] / 60:.1f}"
            for name in others
        ),
        "inner features": _inner_features(),
        **_added_class(),
        **_trials(),
    }


def _added_class() -> dict[str, str]:
    """A linear probe after a class was added, with cached features and without."""
    before, cached, empty = read("added_class")["rows"]
    return {
        "added class seconds": f"{cached['seconds']:.0f}",
        "added class seconds without cache": f"{empty['seconds']:.0f}",
        "added class photos": f"{cached['n_photos']:,}",
        "added class new": f"{cached['n_photos'] - before['n_photos']:,}",
    }


def _inner_features() -> str:
    """Rows of a Markdown table: accuracy of linear probes without and with inner feature maps."""
    rows = read("inner_features")["rows"]
    last = {row["network"]: row["accuracy"] for row in rows if row["n_inner"] == 0}
    lines = []
    for row in rows:
        if row["n_inner"] == 3:
            name, gain, margin = row["network"], 100 * row["gain"], 100 * row["gain_margin"]
            lines.append(
                f"| {name} | {last[name]:.1%} | {row['accuracy']:.1%} "
                f"| {gain:+.1f} ({gain - margin:+.1f} to {gain + margin:+.1f}) |"
            )
    return "\n".join(lines)


def _trials() -> dict[str, str]:
    """How often it was tried to break something, and how often that worked."""
    stops, faults, fuzz = read("interruptions")["kills"], read("faults"), read("fuzz")
    counts = {
        "kills": stops["total"],
        "kills failed": stops["total"] - stops["identical"],
        "disk calls": faults["calls"],
        "possible faults": faults["possible_faults"],
        "faults": faults["faults"],
        "failed faults": faults["failures"],
        "cases": fuzz["cases"],
        "failed cases": fuzz["failures"],
    }
    stages = ", ".join(dict.fromkeys(f"`{run['stage']}`" for run in faults["runs"]))
    return {"stages": stages} | {name: f"{n:,}" for name, n in counts.items()}


def read(name: str) -> dict[str, Any]:
    """The contents of a file of results."""
    contents: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return contents


def _accuracy(runs: list[dict[str, Any]]) -> str:
    return f"{mean(run['test']['value'] for run in runs):.1%}"


def _seconds(runs: list[dict[str, Any]]) -> str:
    return f"{mean(run['seconds'] for run in runs):.0f}"


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """A plain HTML table; cells are escaped."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def tables() -> dict[str, tuple[str, int, str]]:
    """For each file with a list of measurements: its command, the number of rows, and a CSV."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        contents = read(path.stem)
        rows = next((contents[key] for key in ("runs", "rows", "sizes") if key in contents), None)
        if rows and all(isinstance(row, dict) for row in rows):
            flat = [_flatten(row) for row in rows]
            columns = list(dict.fromkeys(column for row in flat for column in row))
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(flat)
            command = contents.get("command") or rows[0].get("command", "")
            found[path.stem] = (str(command), len(rows), buffer.getvalue())
    return found


def _flatten(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Scalars by their dotted names; lists, such as curves, are only in the JSON."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            flat[prefix + name] = value
    return flat
