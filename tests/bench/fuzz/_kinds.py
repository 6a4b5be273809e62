"""All kinds of input, how many cases of each, and how long a case may take."""

from __future__ import annotations

from tests.bench.fuzz._archives import archives
from tests.bench.fuzz._arguments import arguments
from tests.bench.fuzz._bundles import bundles
from tests.bench.fuzz._environments import environments
from tests.bench.fuzz._images import images
from tests.bench.fuzz._manifests import manifests

KINDS = {
    kind.__name__: kind for kind in (images, manifests, archives, bundles, arguments, environments)
}
SHARES = {  # of a million cases
    "images": 250_000, "manifests": 647_400, "archives": 100_000, "bundles": 1_500,
    "arguments": 1_000, "environments": 100,
}  # fmt: skip
MAX_S = {  # per case; some compile a training step, on a machine that may be busy
    "images": 10, "manifests": 10, "archives": 10, "bundles": 60, "arguments": 300,
    "environments": 300,
}  # fmt: skip
