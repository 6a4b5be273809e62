"""Arguments of the command line: any text for every argument and option."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
from pathlib import Path

from scenelearn import cli
from scenelearn.cli._options import OPTIONS
from tests.bench.fuzz._bundles import small_bundle
from tests.bench.fuzz._cases import Case, odd_number, odd_text
from tests.helpers.photo_files import put_all

_UNTYPED = re.compile(
    r"Traceback|This is a bug|^scenelearn: [A-Za-z_.]*(Error|Exception|Interrupt)\b"
)
_LAYERS = (
    "Conv2D", "Dense", "Flatten", "MaxPooling2D", "LSTM", "Bidirectional", "Layer", "Input",
    "Embedding", "BatchNormalization", "Reshape", "DepthwiseConv2D", "ReLU", "abs",
)  # fmt: skip
_FLAGS = ("--no-audit", "--plan", "--resume", "--csv", "--json")
_COMMANDS = {
    "predict": ("bundle", "photo", "photo?", "--coverage", "--broken", "--csv"),
    "explain": ("bundle", "photo", "--label", "--out"),
    "evaluate": ("bundle", "folder", "--manifest", "--coverage"),
    "compare": ("bundle", "bundle", "folder", "--manifest"),
    "export": ("bundle", "--out", "--check", "--quantize", "--manifest"),
    "fit": ("folder", "--plan!", "--manifest", "--quarantine", "--no-audit", "--backbone!",
            "--weights!", "--image-px!", "--minutes", "--epochs", "--batch-size", "--learning-rate",
            "--augmentation", "--recipe", "--recipe", "--precision", "--devices", "--validation",
            "--test", "--broken", "--resume", "--seed", "--out!"),
    "report": ("run", "run", "--out"),
    "audit": ("folder", "--manifest", "--image-px", "--out"),
    "sample": ("new folder", "--per-class!", "--seed"),
    "size": ("network", "network?", "--image-px", "--input-shape", "--batch-size", "--optimizer",
             "--trainable", "--memory"),
}  # fmt: skip
_WEIGHTS = {"size": 10, "predict": 3, "report": 3, "explain": 1, "evaluate": 1, "compare": 1,
            "export": 1, "fit": 1, "audit": 1, "sample": 1}  # fmt: skip
_MAX_SAMPLES = 3  # per class


def arguments(folder: Path) -> Case:
    """Run one command in this process: it exits with 0, 1 or 2, and says why in one line."""
    photos = [f"photos/{name}/{k}.png" for name in ("sea", "street") for k in range(4)]
    put_all(folder, photos)
    small_bundle(folder / "scenes.keras", 0)
    (folder / "list.csv").write_text("path,label\nsea/0.png,sea\nstreet/0.png,street\n")
    (folder / "result.json").write_text(json.dumps(_result()))
    (folder / "empty").mkdir()
    files = [
        str(folder / name)
        for name in ("scenes.keras", "list.csv", "result.json", "photos", "empty", photos[0], "no")
    ]
    os.environ |= {"SCENELEARN_CACHE": str(folder / "cache"), "HOME": str(folder / "empty")}

    def case(random: random.Random) -> str:
        command = random.choices(list(_COMMANDS), [_WEIGHTS[name] for name in _COMMANDS])[0]
        words = [command] if random.random() < 0.99 else [odd_text(random)]
        rate = random.choice((0.1, 0.3, 0.6))
        for name in _COMMANDS[command]:
            is_needed = not name.startswith("--") or name.endswith("!")
            if is_needed or random.random() < rate:
                words += _words(name.strip("!?"), files, random, rate / 2)
        if random.random() < 0.2:
            words.append("--json")
        with contextlib.chdir(folder):  # for what is written where no --out is given
            return run(words)

    return case


def run(words: list[str]) -> str:
    """Run a command; check its exit code and its streams."""
    # A `tty` would get progress bars; these are files.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    printed, said = (f.buffer.getvalue().decode("utf-8") for f in (out, err))
    try:
        check_output(words, code, printed, said)
    except AssertionError as error:
        raise AssertionError(f"{words}: {error}") from None
    return f"exit {code}"


def check_output(words: list[str], code: int, printed: str, said: str) -> None:
    """Check the exit code and the streams of a command.

    Raises:
        AssertionError: if they are not as documented.
    """
    assert code in (0, 1, 2), f"exit {code}"
    assert not _UNTYPED.search(said), said[-500:]
    last = said.rstrip("\n").rpartition("\n")[2]
    if code:
        assert not printed, printed
        usage = last.startswith("scenelearn") and ": error: " in last
        ours = last.startswith("scenelearn: ") and (" Help: " in last)
        assert usage or ours, f"no message: {said[-300:]!r}"
        assert all(c.isprintable() for c in last), last
    else:
        assert printed
        if "--json" in words and "-h" not in words:
            json.loads(printed)


def _words(name: str, files: list[str], random: random.Random, odd: float) -> list[str]:
    """One argument, or an option with its value; `odd` is how often it is anything at all."""
    if name in _FLAGS:
        return [name]
    value = _value(name, files, random)
    if name.startswith("--"):
        kind = OPTIONS[name].get("type")
        if random.random() < odd:
            value = odd_number(random) if kind or random.random() < 0.3 else odd_text(random)
        if name == "--per-class" and value.isdecimal():
            value = str(min(int(value), _MAX_SAMPLES))
        return [name, value] if random.random() < 0.5 else [f"{name}={value}"]
    if random.random() < odd:
        value = random.choice(
            (odd_text(random), "x" * 300, "a\0b", "~", "~no-user/x", "", value + "/x")
        )
    return [value]


def _value(name: str, files: list[str], random: random.Random) -> str:
    """A value that is often valid."""
    bundle, table, result, photos, empty, photo, missing = files
    scale = 10.0 ** random.randint(-4, 3)
    usual = {
        "bundle": (bundle, bundle, bundle, bundle, photo, missing, empty),
        "photo": (photo, photo, photos, photos + "/**/*.png", table, missing, empty, "[", "**"),
        "folder": (photos, photos, photos, table, empty, photo, missing, bundle),
        "run": (result, result, empty, table, photos, missing),
        "new folder": (missing, photo, empty + "/new"),
        "network": (
            _network(random),
            _network(random),
            "scenelearn_tiny",
            "mobilenet_0.25",
            bundle,
        ),
        "--manifest": (table, photo, empty, missing),
        "--quarantine": (result, table, empty, missing),
        "--backbone": ("scenelearn_tiny",) * 9 + ("scenelearn-tiny", "no network"),
        "--weights": ("none", "scenelearn", "none", photo, missing),
        "--check": (photo, photos, missing),
        "--quantize": (photos, missing),
        "--out": (missing + "-out", photo, empty + "/a/b", missing + ".png", missing + ".onnx"),
        "--label": ("class 0", "sea"),
        "--recipe": (f"{random.choice(_RECIPE)}={odd_number(random)}", odd_text(random)),
        "--augmentation": ("none", "light", "standard", "STRONG"),
        "--broken": ("skip", "raise"),
        "--precision": ("mixed_bfloat16", "mixed_float16"),
        "--devices": ("all",),
        "--trainable": ("all", "head"),
        "--optimizer": ("adam", "SGD", "lion", "no"),
        "--memory": ("8 GiB", "8GB", "1e3", "0", "-1", f"{scale:g} MB", odd_number(random)),
        "--input-shape": ("32,32,3", "200,300", "64", "0,0,0", "²,1,1", "1,,1", odd_number(random)),
        "--image-px": ("32", "33", "31", "64", "0", "-1"),
    }.get(name)
    return random.choice(usual) if usual else f"{scale * random.randint(-1, 9):g}"


_RECIPE = ("soup", "mixup_alpha", "cutmix_alpha", "unfreeze", "ema_momentum", "tta", "no_such",
           "interpolate_weights", "train_batchnorm", "fixed_views", "weight_decay")  # fmt: skip


def _network(random: random.Random) -> str:
    """Layers as text, some of them impossible."""
    calls = []
    for _ in range(random.randint(1, 4)):
        values = [
            random.choice(
                (str(random.choice((1, 2, 3, 8, 32, 100))), repr((2, 3)), odd_number(random))
            )
            for _ in range(random.randint(0, 3))
        ]
        extra = random.choice(("", "", "padding='same'", "strides=2", "units=10", "x=1", "*[]"))
        calls.append(f"{random.choice(_LAYERS)}({', '.join(filter(None, [*values, extra]))})")
    text = ", ".join(calls)
    return (
        text
        if random.random() < 0.9
        else text + random.choice(("(", ")" * 3, "(" * 150, "\0", "["))
    )


def _result() -> dict[str, object]:
    """A small result.json."""
    test = [{"path": f"{k}.png", "hash": f"{k:032x}"} for k in range(4)]
    rows = [
        {"path": f"{k}.png", "label": "ab"[k % 2], "probabilities": [0.5, 0.5]} for k in range(4)
    ]
    return {
        "splits": {"class_names": ["a", "b"], "test": test}, "test": rows, "settings": {"seed": 0},
        "environment": {"keras": "3"}, "kept": "linear probe", "seconds": 1.0, "phases": [],
    }  # fmt: skip
