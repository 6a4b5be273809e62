"""How far the XLA rule is from what XLA plans: `python -m tests.bench.memory --out FILE`.

Every network of keras.applications at a small and a usual image size, the textbook CNN, recurrent
networks and transformers; batches of 1, 8 and 32; prediction, training, and training of the head
alone; two optimizers. Each step is Keras's own, compiled from shapes without any weight, and its
memory is what XLA's `memory_analysis` says: arguments + outputs + temporaries − what is aliased.
It is read from the assignment of buffers that XLA dumps, so that no code has to be made from it.

A case that the file has with the same versions is not measured again, so a run can be cut off and
go on. `--only` takes those whose name holds a text; `--minutes` stops after that time;
`--processes` compile beside each other, one a core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from scenelearn import sizing
from scenelearn._backend import keras
from scenelearn._io import atomic_write
from scenelearn.sizing._unfilled import without_values

STEPS = ("predict", "train sgd_momentum", "head adam", "train adam", "head sgd_momentum")
BATCHES = (8, 1, 32)
_QUICKLY = {"xla_backend_optimization_level": 0}  # of LLVM only: the plan is the same, sooner
SMALL = {"InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}  # others: 64 px


def versions() -> dict[str, str]:
    """What the figures depend on."""
    names = ("keras", "jax", "jaxlib", "numpy")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "device": "cpu",
        "machine": platform.machine(),
    }


def networks() -> dict[str, Callable[[int], Any]]:
    """Each network's name and how it is built for an image size."""
    kinds = {
        name: (lambda px, name=name: sizing.application(name, px))
        for name, value in vars(keras().applications).items()
        if callable(value) and name[0].isupper()
    }
    return {
        **kinds,
        "textbook CNN": _cnn,
        "LSTM": _lstm,
        "GRU": _gru,
        "encoder": _encoder,
        "ViT": _vit,
        "U-Net": _unet,
        "bidirectional": _bidirectional,
    }


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
    for _block in range(2):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(8, 32)(x, x)]))
        y = layers.Dense(256)(layers.Dense(1024, activation="gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def _vit(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((64, 64, 3))
    x = layers.Reshape((64, 128))(layers.Conv2D(128, 8, 8)(inputs))
    for _block in range(3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 32)(y, y)])
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.Dense(128)(layers.Dense(512, activation="gelu")(y))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def _unet(_: int) -> Any:
    layers = keras().layers

    def twice(x: Any, filters: int) -> Any:
        for _half in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    x = inputs = layers.Input((96, 96, 3))
    skips = []
    for filters in (32, 64):
        x = twice(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.3)(twice(x, 128))
    x = layers.Concatenate()([layers.UpSampling2D()(x), skips.pop()])
    x = layers.Conv2DTranspose(32, 2, 2)(twice(x, 64))
    x = layers.Concatenate()([x, skips.pop()])
    return keras().Model(inputs, layers.Conv2D(3, 1)(twice(x, 32)))


def _bidirectional(_: int) -> Any:
    layers = keras().layers
    inputs = layers.Input((60, 40))
    x = layers.Bidirectional(layers.LSTM(64, return_sequences=True))(inputs)
    x = layers.Bidirectional(layers.LSTM(32))(layers.Dropout(0.2)(x))
    return keras().Model(inputs, layers.Dense(10, activation="softmax")(x))


def cases() -> Iterator[dict[str, Any]]:
    """All cases, a broad sample first."""
    names = list(networks())
    for usual in (False, True):
        for batch in BATCHES:
            for step in STEPS:
                for name in names:
                    named = name in vars(keras().applications)
                    if usual and not named:
                        continue
                    px = 224 if usual else SMALL.get(name, 64)
                    yield {"model": name, "image_px": px, "batch": batch, "step": step}


def planned(model: Any, batch: int, step: str) -> dict[str, int]:
    """What XLA plans for one of Keras's steps, in bytes."""
    step_as_lowered, _ = lowered(model, batch, step)
    return plan_of(step_as_lowered.compile(compiler_options=dict(_QUICKLY)))


def lowered(model: Any, batch: int, step: str) -> tuple[Any, tuple[Any, ...]]:
    """One of Keras's steps before it is compiled, and the shapes of its arguments."""
    import jax

    def abstract(variables: Any) -> list[Any]:
        return [jax.ShapeDtypeStruct(tuple(one.shape), one.dtype) for one in variables]

    data = jax.ShapeDtypeStruct((batch, *model.inputs[0].shape[1:]), model.inputs[0].dtype)
    if step == "predict":
        state = (abstract(model.trainable_variables), abstract(model.non_trainable_variables))
        arguments: tuple[Any, ...] = (state, data)
        return jax.jit(lambda s, x: model.predict_step(s, (x,))).lower(*arguments), arguments
    optimizer = (
        keras().optimizers.Adam() if step.endswith("adam") else keras().optimizers.SGD(momentum=0.9)
    )
    with without_values(keras()):
        model.compile(optimizer=optimizer, loss="categorical_crossentropy")
        optimizer.build(model.trainable_variables)
    target = jax.ShapeDtypeStruct((batch, *model.outputs[0].shape[1:]), "float32")
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
        model.metrics_variables,
    )
    arguments = (tuple(abstract(group) for group in groups), (data, target))
    return jax.jit(model.train_step, donate_argnums=0).lower(*arguments), arguments


def plan_of(compiled: Any) -> dict[str, int]:
    """The memory of a compiled step, part by part, in bytes."""
    found = compiled.memory_analysis()
    parts = {
        "argument_bytes": found.argument_size_in_bytes,
        "output_bytes": found.output_size_in_bytes,
        "temporary_bytes": found.temp_size_in_bytes,
        "alias_bytes": found.alias_size_in_bytes,
    }
    return _with_total(parts)


def _with_total(parts: dict[str, int]) -> dict[str, int]:
    """What is aliased is both an argument and an output, and there once."""
    return {**parts, "total_bytes": sum(parts.values()) - 2 * parts["alias_bytes"]}


def freeze(model: Any) -> None:
    """Leave only the last layer with weights to be trained."""
    with_weights = [layer for layer in model.layers if layer.weights]
    for layer in with_weights[:-1]:
        layer.trainable = False


def estimated(model: Any, case: dict[str, Any]) -> dict[str, Any]:
    """What sizing says of the same step, and how many seconds of a processor that took."""
    step, _, optimizer = case["step"].partition(" ")
    start = time.process_time()
    found = sizing.estimate(
        model,
        batch_size=case["batch"],
        optimizer=optimizer or None,
        trainable={"head": "head", "train": True}.get(step),
        rule="xla",
    )
    seconds = time.process_time() - start
    value = found.prediction_bytes if step == "predict" else found.training_bytes
    return {"estimated_bytes": value, "estimate_s": round(seconds, 4)}


def plan_in(text: str) -> dict[str, int]:
    """As `plan_of`, of the assignment of buffers that XLA writes down before it makes code."""
    sizes = dict.fromkeys(("argument", "output", "temporary", "alias"), 0)
    for found in re.finditer(r"^allocation \d+: size (\d+), (.*)$", text, re.MULTILINE):
        size, what = int(found[1]), found[2]
        goes_out = "maybe-live-out" in what or what.startswith("output shape")
        comes_in = what.startswith("parameter")
        sizes["argument"] += size * comes_in
        sizes["output"] += size * goes_out
        sizes["alias"] += size * (comes_in and goes_out)
        sizes["temporary"] += size * (not comes_in and not goes_out and "preallocated" in what)
    parts = {f"{name}_bytes": size for name, size in sizes.items()}
    return _with_total(parts)


class Trial:
    """A case in a process of its own, which is ended as soon as XLA has planned its memory.

    Making code from the plan takes XLA twice as long as all before, and changes nothing in it.
    """

    def __init__(self, case: dict[str, Any], old: dict[str, Any], folder: Path) -> None:
        self.case, self.old, self.folder = case, old, folder
        self.process = multiprocessing.get_context("fork").Process(target=self._run)
        self.process.start()

    def _run(self) -> None:
        try:
            with without_values(keras()):
                model = networks()[self.case["model"]](self.case["image_px"])
            if self.case["step"].startswith("head"):
                freeze(model)
            self._say(estimated(model, self.case))
            if not self.old:
                step, _ = lowered(model, self.case["batch"], self.case["step"])
                step.compile(compiler_options=_QUICKLY | {"xla_dump_to": str(self.folder)})
        except Exception as error:  # noqa: BLE001 - one network must not stop the rest
            self._say({"error": repr(error)[:200]})

    def _say(self, what: dict[str, Any]) -> None:
        with atomic_write(self.folder / "found.json") as partial:
            partial.write_text(json.dumps(what), encoding="utf-8")

    def ended(self) -> bool:
        """Whether all is known; the process is gone then."""
        if self.process.is_alive():
            if not [*self.folder.glob("*-memory-usage-report.txt")]:  # written after the plan
                return False
            self.process.kill()
        self.process.join()
        return True

    def found(self) -> dict[str, Any]:
        """The case with what XLA plans and what sizing says of it, or with an error."""
        said = self.folder / "found.json"
        if not said.exists():
            return {**self.case, "error": f"exit status {self.process.exitcode}"}
        plans = [*self.folder.glob("*-buffer-assignment.txt")]
        plan = plan_in(plans[0].read_text(encoding="utf-8")) if plans else {}
        return {**self.case, **self.old, **plan, **json.loads(said.read_text(encoding="utf-8"))}


def main() -> None:
    """Measure what is missing, estimate all of it anew, and write both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--only", default="")
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = options.parse_args()
    end = time.monotonic() + 60 * given.minutes
    known: dict[str, dict[str, Any]] = {}
    now = versions()
    if given.out.exists():
        old = json.loads(given.out.read_text(encoding="utf-8"))
        if {**old["versions"], "date": ""} == {**now, "date": ""}:
            known = {_key(case): case for case in old["cases"]}
    chosen = [case for case in cases() if given.only.lower() in case["model"].lower()]
    # what is to be compiled comes first
    todo = sorted(chosen, key=lambda case: _key(case) in known)
    for done, found in enumerate(_in_turn(todo, dict(known), end, given.processes), 1):
        print(_key(found), found.get("error") or f"{_ratio(found):.4f}", flush=True)
        if "error" not in found:
            known[_key(found)] = found
        if done % 25 == 0:
            _write(given.out, now, known)
    _write(given.out, now, known)


def _in_turn(
    todo: list[dict[str, Any]], known: dict[str, dict[str, Any]], end: float, processes: int
) -> Iterator[dict[str, Any]]:
    """The measured cases as they end; what is not known is not begun after `end`."""
    keras()  # before the processes part, so that none has to import it; nothing is computed here
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
            for trial in [one for one in running if one.ended()]:
                running.remove(trial)
                yield trial.found()
                shutil.rmtree(trial.folder)


def _ratio(case: dict[str, Any]) -> float:
    return case["estimated_bytes"] / case["total_bytes"]


def _key(case: dict[str, Any]) -> str:
    return f"{case['model']}/{case['image_px']}/{case['batch']}/{case['step']}"


def _write(path: Path, now: dict[str, str], known: dict[str, dict[str, Any]]) -> None:
    value = {
        "command": "nox -s memory",
        "versions": {**now, "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat()},
        "cases": [known[key] for key in sorted(known)],
    }
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
