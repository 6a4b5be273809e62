"""The process that writes an export: Keras on TensorFlow, and the runtime that will use the file.

Started by `_export` as ``python -m scenelearn.classify._exporter FOLDER``. It reads the folder's
job.json, scenes.keras and photos, writes the export as "made" and what the export's own runtime
makes of the photos as found.npy.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.classify._classifier import Classifier
from scenelearn.classify._load import load
from scenelearn.classify._squaring import squaring

Image = npt.NDArray[np.uint8]


def main(work: Path) -> None:
    """Do the job of a folder."""
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    classifier = load(work / "scenes.keras")
    images = [np.load(work / f"{k}.npy", allow_pickle=False) for k in range(job["n_images"])]
    write = {"onnx": _onnx, "litert": _litert, "saved_model": _saved_model}[job["kind"]]
    found = write(classifier, work / "made", images)
    np.save(work / "found.npy", np.asarray(found, np.float32), allow_pickle=False)


def _model(classifier: Classifier, *, any_size: bool) -> Any:
    """From uint8 to probabilities; with the cutting and resampling of photos, or without."""
    k, px = keras(), classifier.image_px
    side = None if any_size else px
    image = k.Input((side, side, 3), dtype="uint8", name="image")
    seen = squaring(px)(image) if any_size else image
    model = k.Model(image, classifier.model(seen), name="scenes")
    model(np.zeros((1, px, px, 3), np.uint8))  # Keras exports what was called before
    return model


def _about(classifier: Classifier, *, any_size: bool) -> dict[str, Any]:
    """What an export says of itself."""
    px = classifier.image_px
    size = "height, width" if any_size else f"{px}, {px}"
    return {
        "class_names": list(classifier.class_names),
        "input": f"(batch, {size}, 3) uint8: red, green, blue of sRGB, 0-255, upright",
        "output": "(batch, n_classes) float32: calibrated probabilities",
        "provenance": classifier.facts,
    }


def _onnx(classifier: Classifier, made: Path, images: list[Image]) -> list[npt.NDArray[np.float32]]:
    import onnx
    import onnxruntime

    file = str(made.with_suffix(".onnx"))
    model = _model(classifier, any_size=True)
    model.export(file, format="onnx", verbose=False)
    written = onnx.load(file)
    (result,) = written.graph.output
    for node in written.graph.node:
        node.output[:] = ["probabilities" if n == result.name else n for n in node.output]
        node.input[:] = ["probabilities" if n == result.name else n for n in node.input]
    result.name = "probabilities"
    for value, names in (
        (written.graph.input[0], ("batch", "height", "width")),
        (result, ("batch",)),
    ):
        for side, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            side.dim_param = name
    about = _about(classifier, any_size=True)
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in about.items()}
    onnx.helper.set_model_props(written, texts)
    onnx.checker.check_model(written)
    onnx.save(written, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [session.run(["probabilities"], {"image": image[None]})[0][0] for image in images]


def _litert(
    classifier: Classifier, made: Path, images: list[Image]
) -> list[npt.NDArray[np.float32]]:
    from ai_edge_litert.interpreter import Interpreter

    file = str(made.with_suffix(".tflite"))
    model = _model(classifier, any_size=False)
    model.export(file, format="litert", verbose=False)
    # Files that belong to a LiteRT model are a zip archive at its end, which the runtime ignores.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _side_files(_about(classifier, any_size=False)).items():
            archive.writestr(name, text)
    interpreter = Interpreter(model_path=file)
    interpreter.allocate_tensors()
    place, result = (
        of()[0]["index"] for of in (interpreter.get_input_details, interpreter.get_output_details)
    )
    found = []
    for image in images:
        interpreter.set_tensor(place, image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(result)[0])
    return found


def _saved_model(
    classifier: Classifier, made: Path, images: list[Image]
) -> list[npt.NDArray[np.float32]]:
    import tensorflow as tf

    model = _model(classifier, any_size=True)
    model.export(str(made), format="tf_saved_model", verbose=False)
    beside = made / "assets.extra"  # where TensorFlow lets others keep what belongs to a model
    beside.mkdir()
    for name, text in _side_files(_about(classifier, any_size=True)).items():
        (beside / name).write_text(text, encoding="utf-8")
    served = tf.saved_model.load(str(made))
    return [served.serve(image[None]).numpy()[0] for image in images]


def _side_files(about: dict[str, Any]) -> dict[str, str]:
    """The class names one a line, as such tools expect them, and everything as JSON."""
    lines = [" ".join(name.split()) for name in about["class_names"]]
    return {
        "labels.txt": "\n".join(lines) + "\n",
        "scenelearn.json": json.dumps(about, indent=1) + "\n",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
