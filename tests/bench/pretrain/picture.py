"""Images of the first classes, for the page about the bundled backbone.

python -m tests.bench.pretrain.picture [--out docs/results/pretrain_classes.json]
"""

from __future__ import annotations

import argparse
import base64
import io

import numpy as np
from PIL import Image

from tests.bench._common import add_out, bench_parser, write_json
from tests.bench.pretrain import _kinds

_PX = 72


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    labels = range(12)
    strips = [np.concatenate(_kinds.render_images(0, label, range(4), _PX), 1) for label in labels]
    rows = [np.concatenate(strips[first : first + 3], 1) for first in (0, 3, 6, 9)]
    jpeg = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(jpeg, "jpeg", quality=85)
    table = {
        "command": "python -m tests.bench.pretrain.picture",
        "kinds": [_kinds.kind_of(label) for label in labels],  # three in a row, four images each
        "jpeg_base64": base64.b64encode(jpeg.getvalue()).decode(),
    }
    write_json(options.out, table)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("pretrain.picture", __doc__)
    add_out(parser, "pretrain_classes")
    return parser


if __name__ == "__main__":
    main()
