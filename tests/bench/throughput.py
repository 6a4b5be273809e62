"""Photos per second from a folder to batches, compared with common data loaders.

    python -m tests.bench.throughput --photos FOLDER [--out docs/results/throughput.json]

Each loader yields shuffled batches of 32 squares of 160 px, in its own process, starting from the
folder: the first epoch includes everything from listing the files to the last batch. All files are
read once before, so that every loader finds them in the page cache. Needs TensorFlow, Torch and
Grain.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scenelearn.finetune._device import environment
from tests.bench._common import bench_parser, write_json

_PROLOGUE = """
import json, os, sys, time
folder, n_epochs = sys.argv[1], int(sys.argv[2])
seconds, n_photos = [], []
def run(epoch):
    start, n = time.monotonic(), 0
    for images in epoch():
        n += len(images)
    seconds.append(time.monotonic() - start); n_photos.append(n)
"""
_EPILOGUE = """
print(json.dumps({"seconds": seconds, "photos": n_photos}))
"""
_SCENELEARN = """
import numpy as np
import scenelearn as sl
from scenelearn.data import Batches, decode
made = []
def first():
    photos = sl.scan(folder)
    made.append(Batches(pixels=decode(photos, 160), labels=photos.labels,
        indices=np.arange(len(photos)), batch_size=32, workers=1))
    yield from (images for images, _, _ in made[0].shuffled(0))
run(first)
for k in range(1, n_epochs):
    run(lambda: (images for images, _, _ in made[0].shuffled(k)))
"""
_KERAS = """
import keras
made = []
def epoch():
    if not made:
        made.append(keras.utils.image_dataset_from_directory(
            folder, image_size=(160, 160), crop_to_aspect_ratio=True, batch_size=32, seed=0,
            verbose=False, format=FORMAT))
    yield from (images for images, _ in made[0])
for _ in range(n_epochs):
    run(epoch)
"""
_TORCH = """
import numpy as np, torch
from pathlib import Path
from PIL import Image
class Photos(torch.utils.data.Dataset):
    def __init__(self):
        self.files = sorted(Path(folder).rglob("*.jpg"))
    def __len__(self):
        return len(self.files)
    def __getitem__(self, k):
        with Image.open(self.files[k]) as image:
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
            small = image.convert("RGB").resize((160, 160), Image.Resampling.BICUBIC, box)
        return torch.from_numpy(np.array(small))
made = []
def epoch():
    if not made:
        made.append(torch.utils.data.DataLoader(
            Photos(), batch_size=32, shuffle=True, num_workers=os.cpu_count()))
    yield from made[0]
for _ in range(n_epochs):
    run(epoch)
"""
LOADERS = {
    "scenelearn": _SCENELEARN,
    "Keras, tf.data": _KERAS.replace("FORMAT", '"tf"'),
    "Keras, Grain": _KERAS.replace("FORMAT", '"grain"'),
    "Torch DataLoader, Pillow": _TORCH,
}


def measure(name: str, photos: Path, n_epochs: int) -> dict[str, list[float]]:
    """Seconds and photos of each epoch of one loader."""
    code = _PROLOGUE + LOADERS[name] + _EPILOGUE
    with tempfile.TemporaryDirectory(prefix="scenelearn-throughput-") as cache:
        run = subprocess.run(
            [sys.executable, "-c", code, str(photos), str(n_epochs)],
            capture_output=True, text=True, check=False,
            env=os.environ | {"SCENELEARN_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
    if run.returncode:
        raise SystemExit(f"{name}: {run.stderr[-2000:]}")
    result: dict[str, list[float]] = json.loads(run.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure the loaders in turns, several times, and write medians and ratios."""
    parser = bench_parser("throughput", __doc__)
    parser.add_argument("--photos", metavar="FOLDER", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    for file in options.photos.rglob("*"):
        if file.is_file():
            file.read_bytes()
    rates: dict[str, dict[str, list[float]]] = {
        name: {"first": [], "later": []} for name in LOADERS
    }
    for _ in range(options.rounds):
        for name in LOADERS:
            result = measure(name, options.photos, options.epochs)
            speeds = [n / s for n, s in zip(result["photos"], result["seconds"], strict=True)]
            rates[name]["first"].append(speeds[0])
            rates[name]["later"].append(statistics.median(speeds[1:]))
    rows = [
        {"loader": name, **{when: statistics.median(values) for when, values in speeds.items()}}
        for name, speeds in rates.items()
    ]
    ours, *others = rows
    table = {
        "command": "python -m tests.bench.throughput --photos FOLDER",
        "environment": environment(),
        "unit": "photos per second, medians of rounds",
        "rounds": options.rounds,
        "rows": rows,
        "first_ratio_to_fastest_other": ours["first"] / max(row["first"] for row in others),
        "later_ratio_to_fastest_other": ours["later"] / max(row["later"] for row in others),
    }
    print(json.dumps(table))
    if options.out:
        write_json(options.out, table)


if __name__ == "__main__":
    main()
