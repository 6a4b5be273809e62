"""What LiteRT in int8 costs: labels that change, accuracy and size, for several networks.

    python -m tests.bench.int8 --photos FOLDER --weights FILE [FILE ...]
        [--seed 0] [--out docs/results/int8.json]

For each network, a linear probe on its frozen features is exported in float32 and in int8, as by
`Classifier.export`, and measured on the validation photos. Exports that it would not write, since
too many labels change, are measured, too. If LiteRT cannot run one, its row has the error. Five
minutes, once the features are cached.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import scenelearn as sl
from scenelearn.classify import _export
from scenelearn.errors import ExportError
from scenelearn.finetune._device import environment
from tests.bench._common import add_out, bench_parser, write_json


def main() -> None:
    """Measure each network, print it, and write them all."""
    parser = bench_parser("int8", __doc__)
    parser.add_argument("--photos", metavar="FOLDER", required=True)
    parser.add_argument("--weights", metavar="FILE", nargs="+", required=True)
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    add_out(parser, "int8")
    options = parser.parse_args()
    limit, _export.MAX_CHANGED = _export.MAX_CHANGED, 1.0
    photos = sl.scan(options.photos)
    splits = sl.split(photos, seed=options.seed, groups=sl.audit(photos).groups)
    rows: list[dict[str, Any]] = []
    for weights in options.weights:
        own = weights.endswith(".keras")
        network = {"backbone": weights} if own else {"weights": weights}
        classifier = sl.fit(splits, **network, epochs=0).classifier
        row = {"backbone": classifier.metadata["backbone"], "image_px": classifier.image_px}
        rows.append(row)
        with tempfile.TemporaryDirectory() as folder:
            plain = classifier.export(Path(folder, "plain.tflite"))
            row["n_bytes_float32"] = plain.path.stat().st_size
            try:
                exported = classifier.export(Path(folder, "int8.tflite"), quantize=splits)
            except ExportError as error:  # such as a layer that LiteRT cannot run in int8
                row |= {"is_written": False, "error": str(error)}
            else:
                assert exported.comparison is not None
                row |= {
                    "n_photos": exported.n_photos,
                    "changed_labels": exported.changed_labels.to_json(),
                    "is_written": exported.changed_labels <= limit,
                    "max_difference": exported.max_difference,
                    "comparison": exported.comparison.to_json(),
                    "n_bytes": exported.path.stat().st_size,
                }
        print(json.dumps(rows[-1]), flush=True)
    table = {
        "command": "python -m tests.bench.int8",
        "environment": environment(),
        "photos": {"n": len(photos), "classes": list(photos.class_names)},
        "seed": options.seed,
        "max_changed": limit,
        "rows": rows,
    }
    write_json(options.out, table)


if __name__ == "__main__":
    main()
