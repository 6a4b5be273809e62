"""Accuracy, time and memory of other libraries on the same photos, weights and cores.

    python -m tests.bench.peers --photos FOLDER --backbone FILE.keras --environments FOLDER
        [--peers fastai AutoGluon …] [--minutes 4] [--per-class 40] [--out docs/results/peers.json]

All start from the weights of EfficientNet-Lite0 in FILE.keras, at 160 px. Each peer runs in its own
environment, `FOLDER/NAME/bin/python`, by the call that its documentation shows, one after another.
AutoGluon and scenelearn get a time limit. The others count epochs, few enough for some minutes on
two cores. The file is written after each peer, and peers that it contains are not repeated. Each
run has:

    max_feature_difference  largest difference between the features of 16 photos and those of Keras,
                            as a fraction of the largest feature
    seconds                 from the first photo read to the last test prediction
    process_seconds         the whole process, imports included
    processor_seconds       the same of all cores together
    load                    mean load average of the machine
    peak_bytes              largest proportional set size (PSS) of all its processes together
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

TIMM_NAME = "tf_efficientnet_lite0"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is given.

    Attributes:
        photos: the folder of the photos, one subfolder per class.
        folder: `train/CLASS/…`, `validation/CLASS/…` and `test/CLASS/…` with links to these photos,
            `weights.npz` and `reference.npz`; a peer may write here.
        backbone: the Keras network.
        minutes: the time budget.
        seed: seed of the split and of the training.
        px: height and width of the input image.
    """

    photos: str
    folder: Path
    backbone: str
    minutes: float
    seed: int
    px: int

    def files(self, split: str) -> list[Path]:
        """The photos of a split, sorted."""
        return sorted(self.folder.joinpath(split).glob("*/*"))

    def classes(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted(path.name for path in self.folder.joinpath("train").iterdir())

    def layers(self) -> list[list[Any]]:
        """The arrays of each layer that has weights, in the order of the network."""
        arrays = np.load(self.folder / "weights.npz")
        layers: dict[str, list[Any]] = {}
        for key in sorted(arrays):
            layers.setdefault(key.partition("_")[0], []).append(arrays[key])
        return list(layers.values())

    def difference(self, features_of: Callable[[Any], Any]) -> float:
        """The largest difference from the features of Keras; pixels are -127/128 to 1.

        Ends the peer if its features are others.
        """
        reference = np.load(self.folder / "reference.npz")
        features = np.asarray(features_of((reference["images"].astype("float32") - 127) / 128))
        error = np.abs(features - reference["features"]).max()
        difference = float(error / np.abs(reference["features"]).max())
        if difference > 1e-4:
            raise SystemExit(f"The weights were not converted faithfully: {difference:.2g}.")
        return difference


Result = dict[str, Any]  # "labels": the predicted class of each test photo; what else it reports


def scenelearn(job: Job, *, epochs: int | None = None) -> Result:
    """`sl.fit` with its defaults and the time budget."""
    import scenelearn as sl

    start = time.perf_counter()
    splits = sl.split(sl.scan(job.photos), seed=job.seed)
    fit = sl.fit(
        splits, backbone=job.backbone, image_px=job.px, minutes=job.minutes, epochs=epochs,
        seed=job.seed,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    correct = fit.test_probabilities.argmax(axis=1) == splits.photos.labels[fit.test_indices]
    return {"correct": int(correct.sum()), "epochs": len(fit.history) - 1, "seconds": seconds}


def linear_probe(job: Job) -> Result:
    """`sl.fit(epochs=0)`."""
    return scenelearn(job, epochs=0)


def keras_guide(job: Job) -> Result:
    """Keras' guide "Transfer learning and fine-tuning", on TensorFlow."""
    import keras

    keras.utils.set_random_seed(job.seed)
    base = keras.saving.load_model(job.backbone)
    start = time.perf_counter()
    train, validation, test = _datasets(job)
    base.trainable = False
    inputs = keras.Input((job.px, job.px, 3))
    z = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    z = keras.layers.GlobalAveragePooling2D()(base(z, training=False))
    model = keras.Model(inputs, keras.layers.Dense(6)(keras.layers.Dropout(0.2)(z)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    epochs = EPOCHS["Keras' guide"]
    for trainable, rate, n in zip((False, True), (1e-3, 1e-5), epochs, strict=True):
        base.trainable = trainable
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.fit(train, epochs=n, validation_data=validation, verbose=2)
    labels = model.predict(test, verbose=0).argmax(axis=1)
    return {"labels": labels, "epochs": list(epochs), "seconds": time.perf_counter() - start}


def keras_hub(job: Job) -> Result:
    """`ImageClassifier` with a backbone and a preprocessor, then `fit`, on TensorFlow."""
    import keras
    import keras_hub
    from keras_hub.src.utils.timm.convert_efficientnet import convert_backbone_config

    keras.utils.set_random_seed(job.seed)
    config = convert_backbone_config({"architecture": "efficientnet_lite0"})
    config |= {"stem_conv_padding": "same", "include_stem_padding": False}
    config |= {"batch_norm_epsilon": 1e-3, "input_shape": (job.px, job.px, 3)}
    backbone = keras_hub.models.EfficientNetBackbone(**config)
    layers = [layer for layer in backbone.layers if layer.weights]
    for layer, arrays in zip(layers, job.layers(), strict=True):
        layer.set_weights(arrays)
    converter = keras_hub.layers.EfficientNetImageConverter(
        image_size=(job.px, job.px), scale=1 / 128, offset=-127 / 128
    )
    for layer in backbone.layers:  # Keras and TensorFlow pad strided convolutions on one side
        if layer.name.endswith("dwconv_pad"):
            convolution = backbone.get_layer(layer.name.removesuffix("_pad"))
            if convolution.strides[0] == 2:
                (before, after), _ = layer.padding
                layer.padding = ((before - 1, after),) * 2
    preprocessor = keras_hub.models.EfficientNetImageClassifierPreprocessor(converter)
    difference = job.difference(lambda x: backbone.predict(x, verbose=0).mean(axis=(1, 2)))
    start = time.perf_counter()
    train, validation, test = _datasets(job)
    classifier = keras_hub.models.EfficientNetImageClassifier(backbone, 6, preprocessor)
    classifier.compile(jit_compile=False)  # XLA is slow on depthwise convolutions on a CPU
    (epochs,) = EPOCHS["KerasHub"]
    classifier.fit(train, epochs=epochs, validation_data=validation, verbose=2)
    labels = classifier.predict(test, verbose=0).argmax(axis=1)
    seconds = time.perf_counter() - start
    return {"labels": labels, "epochs": epochs, "seconds": seconds} | {
        "max_feature_difference": difference
    }


def _datasets(job: Job) -> list[Any]:
    """The splits as Keras reads them; training photos are shuffled in each epoch."""
    import keras

    train, *others = (
        keras.utils.image_dataset_from_directory(
            job.folder / split, batch_size=None, image_size=(job.px, job.px), shuffle=False
        ).cache()
        for split in SPLITS
    )
    datasets = [train.shuffle(len(train)), *others]
    return [dataset.batch(32).prefetch(10) for dataset in datasets]


def fastai(job: Job) -> Result:
    """`vision_learner(…).fine_tune(…)` with `aug_transforms()`."""
    from fastai.vision import all as fv

    fv.set_seed(job.seed)
    overlay, difference = _timm_checkpoint(job)
    start = time.perf_counter()
    loaders = fv.ImageDataLoaders.from_folder(
        job.folder, train="train", valid="validation", item_tfms=fv.Resize(job.px),
        batch_tfms=fv.aug_transforms(),
    )  # fmt: skip
    learner = fv.vision_learner(
        loaders, TIMM_NAME, metrics=fv.accuracy, pretrained_cfg_overlay=overlay
    )
    (epochs,) = EPOCHS["fastai"]
    learner.fine_tune(epochs)
    probabilities, _ = learner.get_preds(dl=loaders.test_dl(job.files("test")))
    labels = probabilities.argmax(dim=1).numpy()
    seconds = time.perf_counter() - start
    return {"labels": labels, "epochs": [1, epochs], "seconds": seconds} | {
        "max_feature_difference": difference
    }


def autogluon(job: Job) -> Result:
    """`MultiModalPredictor.fit(time_limit=…)`."""
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor

    overlay, difference = _timm_checkpoint(job)
    checkpoint = Path(overlay["file"]).parent
    config = {"architecture": TIMM_NAME, "num_features": 1280, "pretrained_cfg": overlay}
    (checkpoint / "config.json").write_text(json.dumps(config))
    start = time.perf_counter()
    (epochs,) = EPOCHS["AutoGluon"]
    train, validation, test = (
        pd.DataFrame(
            {
                "image": [str(path) for path in job.files(split)],
                "label": [path.parent.name for path in job.files(split)],
            }
        )
        for split in SPLITS
    )
    predictor = MultiModalPredictor(label="label", path=str(job.folder / "autogluon"))
    predictor.fit(
        train,
        tuning_data=validation,
        time_limit=60 * job.minutes,
        seed=job.seed,
        hyperparameters={
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": str(checkpoint),
            "model.timm_image.image_size": job.px,
            "optim.max_epochs": epochs,
        },
    )
    names = predictor.predict(test.drop(columns="label"))
    seconds = time.perf_counter() - start
    labels = np.array([job.classes().index(name) for name in names])
    return {"labels": labels, "epochs": epochs, "seconds": seconds} | {
        "max_feature_difference": difference
    }


def timm_features(job: Job) -> Result:
    """Features of timm, `LogisticRegression` of scikit-learn; C chosen on validation photos."""
    import timm
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from torchvision.datasets import ImageFolder

    overlay, difference = _timm_checkpoint(job)
    start = time.perf_counter()
    model = timm.create_model(
        TIMM_NAME, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    ).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    features, labels = {}, {}
    with torch.inference_mode():
        for split in SPLITS:
            photos = ImageFolder(job.folder / split, transform)
            loader = torch.utils.data.DataLoader(photos, batch_size=64, num_workers=2)
            features[split] = np.concatenate([model(images).numpy() for images, _ in loader])
            labels[split] = photos.targets

    def fitted(c: float) -> Any:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
        return classifier.fit(features["train"], labels["train"])

    classifiers = [fitted(c) for c in (1e-4, 1e-3, 1e-2, 1e-1)]
    validation = features["validation"], labels["validation"]
    best = max(classifiers, key=lambda classifier: classifier.score(*validation))
    predicted = best.predict(features["test"])
    seconds = time.perf_counter() - start
    return {"labels": predicted, "epochs": 0, "seconds": seconds} | {
        "max_feature_difference": difference
    }


def _timm_checkpoint(job: Job) -> tuple[dict[str, Any], float]:
    """Write the weights as timm reads them.

    Returns:
        What differs in timm's configuration, among it the file, and the difference of features.
    """
    import timm
    import torch

    model = timm.create_model(TIMM_NAME, num_classes=0).eval()
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        for layer, arrays in zip(layers, map(_torch_arrays, job.layers()), strict=True):
            names = ("weight", "bias", "running_mean", "running_var")[: len(arrays)]
            for name, array in zip(names, arrays, strict=True):
                getattr(layer, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
        difference = job.difference(
            lambda x: model(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
        )
    folder = job.folder / "timm"
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    overlay = {
        "file": str(folder / "pytorch_model.bin"), "num_classes": 0, "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3, "input_size": (3, job.px, job.px),
    }  # fmt: skip
    return overlay, difference


def _torch_arrays(arrays: list[Any]) -> list[Any]:
    """The arrays of a Keras layer in the order of axes of Torch."""
    kernel = arrays[0]
    if kernel.ndim != 4:
        return arrays
    return [kernel.transpose(2, 3, 0, 1) if kernel.shape[3] == 1 else kernel.transpose(3, 2, 0, 1)]


@dataclass(frozen=True, slots=True)
class Peer:
    """A recipe: its function, its environment, its distributions, and what to know about it."""

    run: Callable[[Job], Result]
    environment: str  # "": that of scenelearn
    distributions: tuple[str, ...]
    notes: str


# Fewer than in the guides, which take longer.
EPOCHS = {"Keras' guide": (4, 1), "KerasHub": (1,), "fastai": (1,), "AutoGluon": (1,)}
KERAS, TORCH = ("keras", "tensorflow-cpu"), ("timm", "torch")
PEERS = {
    "scenelearn, linear probe only": Peer(
        linear_probe, "", ("scenelearn", "keras", "jax"), "sl.fit(epochs=0): no fine-tuning"
    ),
    "scenelearn": Peer(
        scenelearn, "", ("scenelearn", "keras", "jax"), "sl.fit; run by its authors"
    ),
    "Keras' guide": Peer(
        keras_guide, "keras-hub", KERAS,
        "4 epochs frozen, 1 of all layers; the guide has 20 and 10. Keras 3.15 does not keep the "
        "guide's training=False in fit, so the statistics of BatchNormalization change",
    ),
    "KerasHub": Peer(
        keras_hub, "keras-hub", ("keras-hub", *KERAS),
        "ImageClassifier with its default optimizer, 1 epoch, no augmentation as in its guide; "
        "XLA off, which is faster on a CPU",
    ),
    "fastai": Peer(
        fastai, "fastai", ("fastai", *TORCH),
        "vision_learner, fine_tune(1) with aug_transforms; no lr_find",
    ),
    "AutoGluon": Peer(
        autogluon, "autogluon", ("autogluon.multimodal", *TORCH),
        "MultiModalPredictor with its defaults except for the network and 1 epoch instead of 20: "
        "with 20, the time limit ends while the learning rate still rises",
    ),
    "timm + scikit-learn": Peer(
        timm_features, "timm", ("scikit-learn", *TORCH),
        "logistic regression on frozen features, center crop as in timm; no fine-tuning",
    ),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        return _work(options)
    from scenelearn.metrics import wilson
    from tests.bench._common import commit, new_runs

    network = Path(options.backbone).stem
    table = {"command": "python -m tests.bench.peers", "backbone": network}
    cases = [{"name": name} for name in options.peers]
    with tempfile.TemporaryDirectory() as folder:
        n_test = _prepare(options, Path(folder))
        for run in new_runs(options.out, table, cases, show=("name", "test", "seconds")):
            run.update(seed=options.seed, minutes=options.minutes)
            run.update(_run(options, run["name"], folder))
            run["test"] = wilson(run.pop("correct"), n_test).to_json()
            run.update(image_px=options.image_px, cores=os.cpu_count(), commit=commit())
            run["notes"] = PEERS[run["name"]].notes
    return None


def _prepare(options: argparse.Namespace, folder: Path) -> int:
    """Write what the peers read; returns the number of test photos."""
    import keras

    import scenelearn as sl
    from tests.bench._common import take_per_class

    splits = sl.split(sl.scan(options.photos), seed=options.seed)
    if options.per_class:
        splits = take_per_class(splits, options.per_class, options.seed)
    photos = splits.photos
    for split in SPLITS:
        for i in getattr(splits, split):
            path = photos.file(int(i))
            link = folder / split / photos.class_names[photos.labels[i]] / f"{i:06}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    network = keras.saving.load_model(options.backbone)
    layers = [layer.get_weights() for layer in network.layers if layer.weights]
    arrays = {f"{i:04}_{k}": a for i, layer in enumerate(layers) for k, a in enumerate(layer)}
    np.savez(folder / "weights.npz", **arrays)
    size = (options.image_px, options.image_px)
    some = splits.test[:: math.ceil(len(splits.test) / 16)]
    loaded = [keras.utils.load_img(photos.file(int(i)), target_size=size) for i in some]
    images = np.stack([keras.utils.img_to_array(image) for image in loaded])
    features = network.predict(images, verbose=0).mean(axis=(1, 2))
    np.savez(folder / "reference.npz", images=images.astype("uint8"), features=features)
    return len(splits.test)


def _run(options: argparse.Namespace, name: str, folder: str) -> dict[str, Any]:
    """Run a peer in its environment, watching its memory."""
    peer = PEERS[name]
    python = sys.executable
    if peer.environment:
        python = str(Path(options.environments, peer.environment, "bin", "python").absolute())
    command = [python, str(Path(__file__).absolute()), "--worker", name, "--folder", folder]
    for option in ("photos", "backbone", "minutes", "seed", "image_px"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow" if peer.environment else "jax",
        "SCENELEARN_CACHE": str(Path(folder, "cache", name)),  # empty
        "HF_HUB_OFFLINE": "1",
    }
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    start, used, peak, loads = time.monotonic(), _processor_seconds(), 0, []
    with Path(folder, "output.txt").open("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, start_new_session=True)
        while process.poll() is None:
            peak = max(peak, _group_bytes(process.pid))
            loads.append(os.getloadavg()[0])
            time.sleep(1)
        seconds = time.monotonic() - start
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{name} failed.\n{text}")
    result: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return result | {
        "process_seconds": round(seconds, 1),
        "processor_seconds": round(_processor_seconds() - used, 1),
        "load": round(sum(loads) / len(loads), 2),
        "peak_bytes": peak,
        "date": date,
    }


def _processor_seconds() -> float:
    """Processor time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _group_bytes(group: int) -> int:
    """The proportional set size of all processes of a group."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group:
                lines = (path / "smaps_rollup").read_text().splitlines()
                total += 1024 * next(int(x.split()[1]) for x in lines if x.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it has ended
    return total


def _work(options: argparse.Namespace) -> None:
    """Run a peer in this process; the last line printed is its result."""
    job = Job(
        options.photos, Path(options.folder), options.backbone, options.minutes, options.seed,
        options.image_px,
    )  # fmt: skip
    peer = PEERS[options.worker]
    result = peer.run(job)
    if "labels" in result:
        truth = [job.classes().index(path.parent.name) for path in job.files("test")]
        result["correct"] = int((np.asarray(result.pop("labels")) == truth).sum())
    result["seconds"] = round(result["seconds"], 1)
    result["versions"] = {name: importlib.metadata.version(name) for name in peer.distributions}
    print("\n" + json.dumps(result), flush=True)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=summary)
    parser.add_argument("--photos", metavar="FOLDER", required=True, help="one subfolder per class")
    parser.add_argument("--backbone", metavar="FILE", required=True, help="EfficientNet-Lite0")
    parser.add_argument("--environments", metavar="FOLDER", help="of the environments of the peers")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--per-class", type=int, help="use fewer training photos, to try it")
    parser.add_argument("--out", metavar="FILE", default="docs/results/peers.json")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
