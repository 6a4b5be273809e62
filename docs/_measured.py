"""Numbers and tables of the docs from the files in docs/results, which commands wrote."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtrit

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
        "lora": _lora(),
        **_own_backbone(),
        **_distillation(),
        **_added_class(),
        "imbalance": _imbalance(),
        "imbalance seeds": _n_seeds("imbalance"),
        "int8": _int8(),
        "rank": _rank(),
        "rank seeds": _n_seeds("rank"),
        "shapes": _shapes(),
        "shapes seeds": _n_seeds("shapes"),
        "shapes epochs": str(read("shapes")["runs"][0]["epochs"]),
        "shards": _shards(),
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


def _imbalance() -> str:
    """A Markdown table: balanced accuracy and calibration of classes, with weights and without."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in read("imbalance")["runs"]:
        groups.setdefault((run["ratio"], run["name"]), []).append(run)
    lines = []
    for (ratio, name), runs in groups.items():
        values = [run["balanced_accuracy"]["value"] for run in runs]
        recall = mean(mean(_rare(run, "recall")) for run in runs)
        gaps = [
            f"{100 * mean(mean(_rare(run, f'calibration_{how}')) for run in runs):+.1f}"
            for how in ("balanced", "as_trained")
        ]
        lines.append([f"1:{ratio}", name, _mean_and_range(values), f"{recall:.1%}", *gaps])
    columns = (
        "Rare to frequent",
        "Training",
        "Balanced accuracy (seeds)",
        "Recall of rare classes",
        "Gap, balanced photos",
        "Gap, frequencies of training",
    )
    return _markdown_table(columns, lines)


def _rare(run: dict[str, Any], key: str) -> list[float]:
    """What a run says of each rare class."""
    fewest = min(run["n_train"].values())
    return [run[key][name] for name, n in run["n_train"].items() if n == fewest]


def _int8() -> str:
    """A Markdown table: what LiteRT in int8 costs."""
    lines = []
    for row in read("int8")["rows"]:
        cells = ["–", "–", "–", "no: LiteRT cannot run it"]
        if "error" not in row:
            cells = [
                f"{row['n_bytes'] / 1e6:.1f} MB",
                f"{row['changed_labels']['value']:.1%}",
                _points(row["comparison"]["accuracy_difference"]),
                "yes" if row["is_written"] else "no: too many labels change",
            ]
        lines.append([row["backbone"], f"{row['n_bytes_float32'] / 1e6:.1f} MB", *cells])
    return _markdown_table(
        ("Network", "Float32", "Int8", "Changed labels", "Change in accuracy, points", "Written"),
        lines,
    )


def _n_seeds(name: str) -> str:
    return str(len({run["seed"] for run in read(name)["runs"]}))


def _points(difference: dict[str, float]) -> str:
    value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _mean_and_range(values: Sequence[float]) -> str:
    """A mean in percent, with the range of the values if there are several."""
    if len(values) == 1:
        return f"{values[0]:.1%}"
    return f"{mean(values):.1%} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def _rank() -> str:
    """A Markdown table: accuracy by number of labels and how the photos were chosen."""
    by_labels: dict[str, dict[str, list[float]]] = {}
    for run in read("rank")["runs"]:
        for n, accuracy in run["accuracy"].items():
            by_labels.setdefault(n, {}).setdefault(run["method"], []).append(accuracy)
    return _markdown_table(
        ("Labels", "Random photos", "Smallest margin", "`sl.rank`"),
        [
            [n, *(f"{mean(methods[name]):.1%}" for name in ("random", "margin", "rank"))]
            for n, methods in by_labels.items()
        ],
    )


def _shapes() -> str:
    """A Markdown table: accuracy of photos that are not square, by shape."""
    values: dict[str, list[float]] = {}
    for run in read("shapes")["runs"]:
        values.setdefault(run["shape"], []).append(run["test"]["value"])
    return _markdown_table(
        ("`shape`", "Test accuracy (seeds)"),
        [[f'`"{shape}"`', _mean_and_range(some)] for shape, some in values.items()],
    )


def _shards() -> str:
    """A Markdown table: time and memory of Parquet shards in one process and in several."""
    runs = read("shards")["runs"]
    steps = ("scan", "audit", "features")
    return _markdown_table(
        ("Processes", *(f"`{step}`" for step in steps), "Memory at the start", "Peak memory"),
        [
            [
                str(run["processes"]),
                *(f"{run['steps'][step]['seconds']:.0f} s" for step in steps),
                f"{run['steps']['start']['peak_mib']:,.0f} MiB",
                f"{max(run['steps'][step]['peak_mib'] for step in steps):,.0f} MiB",
            ]
            for run in sorted(runs, key=lambda run: run["processes"])
        ],
    )


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _inner_features() -> str:
    """A Markdown table: accuracy of linear probes without and with inner feature maps."""
    rows = read("inner_features")["rows"]
    last = {row["network"]: row["accuracy"] for row in rows if row["n_inner"] == 0}
    lines = []
    for row in rows:
        if row["n_inner"] == 3:
            name, gain, margin = row["network"], row["gain"], row["gain_margin"]
            points = _points({"value": gain, "low": gain - margin, "high": gain + margin})
            lines.append([name, f"{last[name]:.1%}", f"{row['accuracy']:.1%}", points])
    columns = ("Network", "Last feature maps", "And three inner ones", "Gain in points")
    return _markdown_table(columns, lines)


def _lora() -> str:
    """A Markdown table: a training step with LoRA and without."""
    return _markdown_table(
        ("Trained", "Parameters", "Time per step", "Memory", "Predicted memory"),
        [
            [
                row["form"],
                f"{row['trained_parameters']:,}",
                f"{row['step_ms'] / 1000:.1f} s",
                f"{row['resident_mib']:,} MiB",
                f"{row['predicted_mib']:,} MiB",
            ]
            for row in read("lora")["rows"]
        ],
    )


def _own_backbone() -> dict[str, str]:
    """A Markdown table: test accuracy of a network of one's own."""
    runs = read("own_backbone")["runs"]
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for run in runs:
        settings, recipe = run["settings"], run["settings"]["recipe"]
        train_px = recipe.get("train_px") or settings["image_px"]
        key = (train_px, settings["image_px"], recipe["soup"])
        groups.setdefault(key, []).append(run)
    lines = []
    for key, group in sorted(groups.items()):
        epochs = f"{mean(len(run['settings']['epochs']) for run in group):.0f}"
        accuracy = _mean_and_range([run["test"]["value"] for run in group])
        lines.append([*map(str, key), epochs, str(len(group)), accuracy])
    columns = ("Training px", "Prediction px", "Cycles", "Epochs", "Splits", "Test accuracy")
    return {
        "own backbone": _markdown_table(columns, lines),
        "own backbone minutes": f"{runs[0]['minutes']:g}",
        "own backbone cores": runs[0]["environment"]["cores"],
    }


def _distillation() -> dict[str, str]:
    """A Markdown table: a small network with a teacher and without, on the same splits."""
    runs = read("distillation")["runs"]
    ((minutes_of_all, _),) = {(run["minutes"], run["settings"]["image_px"]) for run in runs}
    taught, plain = (
        {run["seed"]: run for run in runs if bool(run["settings"]["teacher"]) is has_teacher}
        for has_teacher in (True, False)
    )
    lines, gains = [], []
    for seed in sorted(taught.keys() & plain.keys()):
        with_teacher, without = taught[seed], plain[seed]
        minutes = [f"{run['seconds'] / 60:.0f} minutes" for run in (without, with_teacher)]
        of_validation, of_test = (
            100 * (with_teacher[side]["value"] - without[side]["value"])
            for side in ("validation", "test")
        )
        gains.append(of_test)
        lines.append(
            [
                str(seed),
                with_teacher["settings"]["teacher"].rpartition("test accuracy ")[2],
                f"{without['test']['value']:.1%} in {minutes[0]}",
                f"{with_teacher['test']['value']:.1%} in {minutes[1]}",
                f"{of_test:+.1f}",
                f"{of_validation:+.1f}",
            ]
        )
    columns = (
        "Split", "Teacher", "Without a teacher", "With a teacher", "Gain in points",
        "Validation gain",
    )  # fmt: skip
    margin = stdtrit(len(gains) - 1, 0.975) * stdev(gains) / len(gains) ** 0.5
    return {
        "distillation": _markdown_table(columns, lines),
        "distillation gain": (
            f"{mean(gains):+.1f} points ({mean(gains) - margin:+.1f} to "
            f"{mean(gains) + margin:+.1f}; {len(gains)} splits)"
        ),
        "distillation minutes": f"{minutes_of_all:g}",
        "distillation cores": runs[0]["environment"]["cores"],
    }


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
