"""The command: render, train, write the weights and the history."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scenelearn._io import atomic_write, cache_folder
from scenelearn.finetune._device import environment
from tests.bench.pretrain._store import ImageStore
from tests.bench.pretrain._train import PretrainConfig, train


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    folder = Path(options.work) if options.work else cache_folder() / "pretrain"
    store = ImageStore(
        folder=folder, seed=options.seed, n_classes=options.classes, per_class=options.per_class,
        px=108,
    )  # fmt: skip
    config = PretrainConfig(epochs=options.epochs, minutes=options.minutes, seed=options.seed)

    def say(line: str) -> None:
        print(line, flush=True)

    store.render(say)
    checkpoint = folder / "run.checkpoint"
    network, results = train(store, config, checkpoint, say)
    write_weights(network, Path(options.out))
    results = {
        "command": "python -m tests.bench.pretrain",
        "parameters": network.count_params(),
        "weights_bytes": Path(options.out).stat().st_size,
        **results,
        "environment": environment(),
    }
    with atomic_write(options.history) as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    checkpoint.unlink(missing_ok=True)


def write_weights(network: Any, file: Path) -> None:
    """Write weights as Keras does, but kernels in half precision."""
    with tempfile.TemporaryDirectory() as there, atomic_write(file) as partial:
        full = Path(there, "full.weights.h5")
        network.save_weights(full)
        with h5py.File(full) as source, h5py.File(partial, "w", libver="latest") as target:

            def copy(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    value = item[()]
                    kind = np.float16 if value.ndim > 1 else value.dtype
                    copied: Any = target.create_dataset(name, data=value.astype(kind))
                else:
                    copied = target.require_group(name)
                for key, attribute in item.attrs.items():
                    copied.attrs[key] = attribute

            source.visititems(copy)
            for key, attribute in source.attrs.items():
                target.attrs[key] = attribute


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pretrain")
    parser.add_argument("--out", required=True, help="the weights file to write")
    parser.add_argument("--history", default="docs/results/pretrain.json", help="[%(default)s]")
    parser.add_argument("--work", help="folder of images and checkpoint [in scenelearn's cache]")
    parser.add_argument("--classes", type=int, default=600, help="a multiple of 20 [%(default)d]")
    parser.add_argument("--per-class", type=int, default=150, help="images [%(default)d]")
    parser.add_argument("--epochs", type=int, default=24, help="[%(default)d]")
    parser.add_argument("--minutes", type=float, default=0.0, help="end sooner [do not]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)d]")
    return parser


if __name__ == "__main__":
    main()
