"""The process that writes an export, with Keras on TensorFlow, and runs it in its own runtime.

`_export` starts it as ``python -m scenelearn.classify._export_worker FOLDER``. It reads job.json,
scenes.keras and the photos from the folder, writes the export as "export", and that runtime's
probabilities for the photos as probabilities.npy.
"""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import default_settings, keras
from scenelearn._display import printable
from scenelearn.classify._classifier import Classifier
from scenelearn.classify._load import load
from scenelearn.classify._resize_layer import resize_layer

Image = npt.NDArray[np.uint8]


@default_settings()
def main(work: Path) -> None:
    """Run the job of a folder; it imports the modules of the user's own layers."""
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    custom_objects = {
        name: attrgetter(qualified)(importlib.import_module(module))
        for name, (module, qualified) in job["custom_objects"].items()
    }
    classifier = load(work / "scenes.keras", custom_objects=custom_objects)
    images = [np.load(work / f"{k}.npy", allow_pickle=False) for k in range(job["n_images"])]
    path, kind = work / "export", job["kind"]
    if job["precision"] == "int8":
        ranges = np.load(work / "ranges.npy", allow_pickle=False)
        found = _litert(classifier, path, images, ranges)
    else:
        write = {"onnx": _onnx, "litert": _litert, "saved_model": _saved_model}[kind]
        found = write(classifier, path, images)
    probabilities = np.asarray(found, np.float32)
    np.save(work / "probabilities.npy", probabilities, allow_pickle=False)


def _export_model(classifier: Classifier, *, any_size: bool) -> Any:
    """A model from uint8 to probabilities, which resizes images of any size if it takes them."""
    k, resize = keras(), classifier.resize
    size = (resize.height, resize.width)
    image = k.Input((*((None, None) if any_size else size), 3), dtype="uint8", name="image")
    resized = resize_layer(resize)(image) if any_size else image
    model = k.Model(image, classifier.model(resized), name="scenes")
    model(np.zeros((1, *size, 3), np.uint8))  # Keras can only export a model that was called
    return model


def _description(classifier: Classifier, *, any_size: bool) -> dict[str, Any]:
    """The metadata of an export."""
    resize = classifier.resize
    size = "height, width" if any_size else f"{resize.height}, {resize.width}"
    return {
        "class_names": list(classifier.class_names),
        "input": f"(batch, {size}, 3) uint8: red, green, blue in sRGB, 0-255, upright",
        "preparation": "None: the model takes whole photos." if any_size else resize.preparation,
        "image_px": resize.image_px,
        "shape": resize.shape,
        "output": "(batch, n_classes) float32: calibrated probabilities",
        "provenance": classifier.metadata,
    }


def _onnx(classifier: Classifier, path: Path, images: list[Image]) -> list[npt.NDArray[np.float32]]:
    import onnx
    import onnxruntime

    file = str(path.with_suffix(".onnx"))
    model = _export_model(classifier, any_size=True)
    model.export(file, format="onnx", verbose=False)
    exported = onnx.load(file)
    (output,) = exported.graph.output
    for node in exported.graph.node:
        node.output[:] = ["probabilities" if n == output.name else n for n in node.output]
        node.input[:] = ["probabilities" if n == output.name else n for n in node.input]
    output.name = "probabilities"
    for value, names in (
        (exported.graph.input[0], ("batch", "height", "width")),
        (output, ("batch",)),
    ):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            dim.dim_param = name
    description = _description(classifier, any_size=True)
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in description.items()}
    onnx.helper.set_model_props(exported, texts)
    onnx.checker.check_model(exported)
    onnx.save(exported, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [session.run(["probabilities"], {"image": image[None]})[0][0] for image in images]


def _litert(
    classifier: Classifier, path: Path, images: list[Image], ranges: Image | None = None
) -> list[npt.NDArray[np.float32]]:
    """In int8 if there are images (n, height, width, 3) to find the ranges of activations with."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    file = str(path.with_suffix(".tflite"))
    model = _export_model(classifier, any_size=False)
    quantization: dict[str, Any] = {}
    if ranges is not None:
        quantization["optimizations"] = [tf.lite.Optimize.DEFAULT]
        quantization["representative_dataset"] = lambda: ([image[None]] for image in ranges)
    model.export(file, format="litert", verbose=False, **quantization)
    # The files that belong to a LiteRT model are a ZIP archive at its end. The runtime ignores it.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _metadata_files(_description(classifier, any_size=False)).items():
            archive.writestr(name, text)
    interpreter = Interpreter(model_path=file)
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]
    probabilities = []
    for image in images:
        interpreter.set_tensor(input_index, image[None])
        interpreter.invoke()
        probabilities.append(interpreter.get_tensor(output_index)[0])
    return probabilities


def _saved_model(
    classifier: Classifier, path: Path, images: list[Image]
) -> list[npt.NDArray[np.float32]]:
    import tensorflow as tf

    model = _export_model(classifier, any_size=True)
    model.export(str(path), format="tf_saved_model", verbose=False)
    extra = path / "assets.extra"  # TensorFlow's place for files that others add to a model
    extra.mkdir()
    for name, text in _metadata_files(_description(classifier, any_size=True)).items():
        (extra / name).write_text(text, encoding="utf-8")
    served = tf.saved_model.load(str(path))
    return [served.serve(image[None]).numpy()[0] for image in images]


def _metadata_files(description: dict[str, Any]) -> dict[str, str]:
    """The class names, one per line, as other tools expect them; and the description as JSON."""
    lines = [printable(" ".join(name.split())) for name in description["class_names"]]
    return {
        "labels.txt": "\n".join(lines) + "\n",
        "scenelearn.json": json.dumps(description, indent=1) + "\n",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
