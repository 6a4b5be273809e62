"""From a folder of photos to a classifier that you can trust.

```python
import scenelearn as sl

photos = sl.scan("photos/")
splits = sl.split(photos, seed=0)
fit = sl.fit(splits, minutes=5)
fit.evaluation.accuracy
fit.save("scenes.keras")
sl.load("scenes.keras").predict("beach.jpg")
sl.report(fit, "report/")
```

Importing scenelearn is quick: each name loads its room, and Keras, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenelearn import (
        augment,
        backbones,
        classify,
        data,
        errors,
        finetune,
        metrics,
        reporting,
        samples,
        sizing,
    )
    from scenelearn.classify import load
    from scenelearn.data import audit, scan, split
    from scenelearn.finetune import fit
    from scenelearn.reporting import report
    from scenelearn.samples import sample_scenes

__all__ = [
    "audit",
    "augment",
    "backbones",
    "classify",
    "data",
    "errors",
    "finetune",
    "fit",
    "load",
    "metrics",
    "report",
    "reporting",
    "sample_scenes",
    "samples",
    "scan",
    "sizing",
    "split",
]

_ROOM_OF = {
    "audit": "data",
    "fit": "finetune",
    "load": "classify",
    "report": "reporting",
    "sample_scenes": "samples",
    "scan": "data",
    "split": "data",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scenelearn")
    if name in _ROOM_OF:
        value = getattr(importlib.import_module(f"scenelearn.{_ROOM_OF[name]}"), name)
        globals()[name] = value  # the next time it is found at once
        return value
    if name in __all__:
        return importlib.import_module(f"scenelearn.{name}")
    raise AttributeError(f"module 'scenelearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
