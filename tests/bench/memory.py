"""Memory that sizing's XLA rule estimates, compared with what XLA plans.

    python -m tests.bench.memory --out FILE.json [--only NAME] [--minutes 30] [--processes N]

Covers every network of keras.applications at a small and a common image size, the textbook CNN,
recurrent networks and transformers; batch sizes of 1, 8 and 32; prediction, training, and training
of the head only; two optimizers. Each step is Keras' own, compiled from shapes without weights. Its
memory is what XLA's `memory_analysis` reports: arguments + outputs + temporaries − aliased. It is
read from the buffer assignment that XLA dumps, so that no code has to be generated.

Cases that the file contains with the same versions are not measured again, so an interrupted run
can be resumed. `--only` takes the networks whose name contains a text, `--minutes` stops after that
time, and `--processes` compile in parallel, one per core. `--hub` takes tiny KerasHub backbones
with a head in place of all these, one per family, at a batch size of 8.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from scenelearn import sizing
from scenelearn._backend import keras
from scenelearn._io import atomic_write
from scenelearn._keras_internals import deferred_initialization
from scenelearn.sizing._networks import build_application
from tests.bench._common import bench_parser, write_json
from tests.helpers.hub_backbones import CONFIGURATIONS, PX, build_backbone

STEPS = ("predict", "train sgd_momentum", "head adam", "train adam", "head sgd_momentum")
BATCHES = (8, 1, 32)
_COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}  # of LLVM only: the same plan, faster
SMALL = {"InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}  # others: 64 px


def versions() -> dict[str, str]:
    """Versions that the figures depend on."""
    names = ["keras", "jax", "jaxlib", "numpy"]
    names += ["keras-hub"] if "keras_hub" in sys.modules else []
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "device": "cpu",
        "machine": platform.machine(),
    }


def networks() -> dict[str, Callable[[int], Any]]:
    """Each network's name, and a function that builds it for an image size."""
    applications = {
        name: (lambda px, name=name: build_application(name, (px, px, 3)))
        for name, value in vars(keras().applications).items()
        if callable(value) and name[0].isupper()
    }
    return {
        **applications,
        "textbook CNN": _cnn,
        "LSTM": _lstm,
        "GRU": _gru,
        "encoder": _encoder,
        "ViT": _vit,
        "U-Net": _unet,
        "bidirectional": _bidirectional,
        **{
            f"hub:{name}": (lambda px, name=name: hub_classifier(name, px))
            for name in CONFIGURATIONS
        },
    }


def hub_classifier(family: str, px: int = PX) -> Any:
    """A KerasHub backbone with a head of ten classes."""
    layers = keras().layers
    backbone = build_backbone(family, px)
    x = backbone.output
    x = [*x.values()][-1] if isinstance(x, dict) else x
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    elif len(x.shape) == 3:
        x = layers.GlobalAveragePooling1D()(x)
    return keras().Model(backbone.inputs, layers.Dense(10, activation="softmax")(x))


def _cnn(_: int) -> Any:
    layers = keras().layers
    x = inputs = layers.Input((200, 300, 3))
    for filters in (100, 200, 400):
        x = layers.Conv2D(filters, 3, 2, "same", activation="relu")(x)
    x = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return keras().Model(inputs, x)


def _lstm(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((100,), dtype="int32")
    x = layers.Embedding(5000, 64)(inputs)
    x = layers.LSTM(64)(layers.LSTM(128, return_sequences=True)(x))
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def _gru(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((100, 40))
    x = layers.GRU(128)(inputs)
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def _encoder(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((128,), dtype="int32")
    x = layers.Embedding(5000, 256)(inputs)
    for _ in range(2):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(8, 32)(x, x)]))
        y = layers.Dense(256)(layers.Dense(1024, activation="gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def _vit(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((64, 64, 3))
    x = layers.Reshape((64, 128))(layers.Conv2D(128, 8, 8)(inputs))
    for _ in range(3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 32)(y, y)])
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.Dense(128)(layers.Dense(512, activation="gelu")(y))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def _unet(_: int) -> Any:
    layers = keras().layers

    def double_conv(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    x = inputs = layers.Input((96, 96, 3))
    skips = []
    for filters in (32, 64):
        x = double_conv(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.3)(double_conv(x, 128))
    x = layers.Concatenate()([layers.UpSampling2D()(x), skips.pop()])
    x = layers.Conv2DTranspose(32, 2, 2)(double_conv(x, 64))
    x = layers.Concatenate()([x, skips.pop()])
    return keras().Model(inputs, layers.Conv2D(3, 1)(double_conv(x, 32)))


def _bidirectional(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((60, 40))
    x = layers.Bidirectional(layers.LSTM(64, return_sequences=True))(inputs)
    x = layers.Bidirectional(layers.LSTM(32))(layers.Dropout(0.2)(x))
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def cases(*, hub: bool = False) -> Iterator[dict[str, Any]]:
    """All cases; the first ones are a broad sample."""
    if hub:
        for step in STEPS[:2]:
            for name in CONFIGURATIONS:
                yield {"model": f"hub:{name}", "image_px": PX, "batch_size": 8, "step": step}
        return
    names = [name for name in networks() if not name.startswith("hub:")]
    for common_size in (False, True):
        for batch in BATCHES:
            for step in STEPS:
                for name in names:
                    has_size = name in vars(keras().applications)
                    if common_size and not has_size:
                        continue
                    px = 224 if common_size else SMALL.get(name, 64)
                    yield {"model": name, "image_px": px, "batch_size": batch, "step": step}


def planned_bytes(model: Any, batch_size: int, step: str) -> dict[str, int]:
    """The memory that XLA plans for one of Keras' steps, in bytes."""
    lowered, _ = lower_step(model, batch_size, step)
    return plan_of(lowered.compile(compiler_options=dict(_COMPILER_OPTIONS)))


def lower_step(model: Any, batch_size: int, step: str) -> tuple[Any, tuple[Any, ...]]:
    """One of Keras' steps, lowered but not compiled, and the shapes of its arguments."""
    import jax

    def abstract(variables: Any) -> list[Any]:
        return [
            jax.ShapeDtypeStruct(tuple(variable.shape), variable.dtype) for variable in variables
        ]

    data = jax.ShapeDtypeStruct((batch_size, *model.inputs[0].shape[1:]), model.inputs[0].dtype)
    if step == "predict":
        state = (abstract(model.trainable_variables), abstract(model.non_trainable_variables))
        arguments: tuple[Any, ...] = (state, data)
        return jax.jit(lambda s, x: model.predict_step(s, (x,))).lower(*arguments), arguments
    optimizer = (
        keras().optimizers.Adam() if step.endswith("adam") else keras().optimizers.SGD(momentum=0.9)
    )
    with deferred_initialization():
        model.compile(optimizer=optimizer, loss="categorical_crossentropy")
        optimizer.build(model.trainable_variables)
    target = jax.ShapeDtypeStruct((batch_size, *model.outputs[0].shape[1:]), "float32")
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
        model.metrics_variables,
    )
    arguments = (tuple(abstract(group) for group in groups), (data, target))
    return jax.jit(model.train_step, donate_argnums=0).lower(*arguments), arguments


def plan_of(compiled: Any) -> dict[str, int]:
    """The memory of a compiled step by part, in bytes."""
    analysis = compiled.memory_analysis()
    parts = {
        "argument_bytes": analysis.argument_size_in_bytes,
        "output_bytes": analysis.output_size_in_bytes,
        "temporary_bytes": analysis.temp_size_in_bytes,
        "alias_bytes": analysis.alias_size_in_bytes,
    }
    return _with_total(parts)


def _with_total(parts: dict[str, int]) -> dict[str, int]:
    """Aliased memory is both an argument and an output, and counts once."""
    return {**parts, "total_bytes": sum(parts.values()) - 2 * parts["alias_bytes"]}


def freeze(model: Any) -> None:
    """Let only the last layer with weights train."""
    with_weights = [layer for layer in model.layers if layer.weights]
    for layer in with_weights[:-1]:
        layer.trainable = False


def estimate_case(model: Any, case: dict[str, Any]) -> dict[str, Any]:
    """What sizing estimates for the same step, and the CPU seconds that this took."""
    step, _, optimizer = case["step"].partition(" ")
    start = time.process_time()
    estimate = sizing.estimate(
        model,
        batch_size=case["batch_size"],
        optimizer=optimizer or None,
        trainable={"head": "head", "train": True}.get(step),
        method="xla",
    )
    seconds = time.process_time() - start
    value = estimate.prediction_bytes if step == "predict" else estimate.training_bytes
    return {"estimated_bytes": value, "estimate_s": round(seconds, 4)}


def parse_plan(text: str) -> dict[str, int]:
    """As `plan_of`, from the buffer assignment that XLA dumps before it generates code."""
    sizes = dict.fromkeys(("argument", "output", "temporary", "alias"), 0)
    for match in re.finditer(r"^allocation \d+: size (\d+), (.*)$", text, re.MULTILINE):
        size, what = int(match[1]), match[2]
        is_output = "maybe-live-out" in what or what.startswith("output shape")
        is_argument = what.startswith("parameter")
        sizes["argument"] += size * is_argument
        sizes["output"] += size * is_output
        sizes["alias"] += size * (is_argument and is_output)
        sizes["temporary"] += size * (not is_argument and not is_output and "preallocated" in what)
    parts = {f"{name}_bytes": size for name, size in sizes.items()}
    return _with_total(parts)


class Trial:
    """A case in its own process, which is killed as soon as XLA has planned its memory.

    Generating code takes XLA twice as long as everything before, and does not change the plan.
    """

    def __init__(self, case: dict[str, Any], earlier: dict[str, Any], folder: Path) -> None:
        self.case, self.earlier, self.folder = case, earlier, folder
        self.process = multiprocessing.get_context("fork").Process(target=self._run)
        self.process.start()

    def _run(self) -> None:
        try:
            with deferred_initialization():
                model = networks()[self.case["model"]](self.case["image_px"])
            if self.case["step"].startswith("head"):
                freeze(model)
            self._report(estimate_case(model, self.case))
            if not self.earlier:
                step, _ = lower_step(model, self.case["batch_size"], self.case["step"])
                step.compile(compiler_options=_COMPILER_OPTIONS | {"xla_dump_to": str(self.folder)})
        except Exception as error:  # noqa: BLE001 - one network must not stop the rest
            self._report({"error": repr(error)[:200]})

    def _report(self, what: dict[str, Any]) -> None:
        with atomic_write(self.folder / "result.json") as partial:
            partial.write_text(json.dumps(what), encoding="utf-8")

    def is_done(self) -> bool:
        """Whether the result is there; the process has ended then."""
        if self.process.is_alive():
            if not [*self.folder.glob("*-memory-usage-report.txt")]:  # written after the plan
                return False
            self.process.kill()
        self.process.join()
        return True

    def result(self) -> dict[str, Any]:
        """The case with XLA's plan and the estimate, or with an error."""
        reported = self.folder / "result.json"
        if not reported.exists():
            return {**self.case, "error": f"exit status {self.process.exitcode}"}
        plans = [*self.folder.glob("*-buffer-assignment.txt")]
        plan = parse_plan(plans[0].read_text(encoding="utf-8")) if plans else {}
        return {
            **self.case,
            **self.earlier,
            **plan,
            **json.loads(reported.read_text(encoding="utf-8")),
        }


def main() -> None:
    """Measure what is missing, estimate all cases again, and write both."""
    parser = bench_parser("memory", __doc__)
    parser.add_argument("--only", metavar="NAME", default="", help="part of a network's name")
    parser.add_argument("--minutes", type=float, default=1e9, help="time budget in minutes")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="JSON file to write"
    )
    parser.add_argument("--hub", action="store_true", help="KerasHub's backbones")
    options = parser.parse_args()
    if options.hub:
        import keras_hub  # noqa: F401 - before the fork, as all that takes long
    end = time.monotonic() + 60 * options.minutes
    known: dict[str, dict[str, Any]] = {}
    now = versions()
    if options.out.exists():
        old = json.loads(options.out.read_text(encoding="utf-8"))
        if {**old["versions"], "date": ""} == {**now, "date": ""}:
            known = {_key(case): case for case in old["cases"]}
    chosen = [
        case for case in cases(hub=options.hub) if options.only.lower() in case["model"].lower()
    ]
    # cases to compile come first
    todo = sorted(chosen, key=lambda case: _key(case) in known)
    for done, result in enumerate(_run_all(todo, dict(known), end, options.processes), 1):
        print(_key(result), result.get("error") or f"{_ratio(result):.4f}", flush=True)
        if "error" not in result:
            known[_key(result)] = result
        if done % 25 == 0:
            _write(options.out, now, known)
    _write(options.out, now, known)


def _run_all(
    todo: list[dict[str, Any]], known: dict[str, dict[str, Any]], end: float, processes: int
) -> Iterator[dict[str, Any]]:
    """The results as they come; no unknown case starts after `end`."""
    keras()  # before the fork, so that no process has to import it; nothing is computed here
    waiting = todo[::-1]
    running: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < processes:
                case = waiting.pop()
                old = known.get(_key(case), {})
                if old or time.monotonic() < end:
                    running.append(Trial(case, old, Path(tempfile.mkdtemp(dir=folder))))
            time.sleep(0.02)
            for trial in [trial for trial in running if trial.is_done()]:
                running.remove(trial)
                yield trial.result()
                shutil.rmtree(trial.folder)


def _ratio(case: dict[str, Any]) -> float:
    return case["estimated_bytes"] / case["total_bytes"]


def _key(case: dict[str, Any]) -> str:
    return f"{case['model']}/{case['image_px']}/{case['batch_size']}/{case['step']}"


def _write(path: Path, now: dict[str, str], known: dict[str, dict[str, Any]]) -> None:
    value = {
        "command": "nox -s memory" + " -- --hub" * any("hub:" in key for key in known),
        "versions": {**now, "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat()},
        "cases": [known[key] for key in sorted(known)],
    }
    write_json(path, value)


if __name__ == "__main__":
    main()
