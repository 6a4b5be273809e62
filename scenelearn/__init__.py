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

`import scenelearn` is fast: a package, and Keras, is loaded when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenelearn import (
        app,
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
    from scenelearn.classify import Classifier, compare, load, rank
    from scenelearn.data import audit, folds, scan, split
    from scenelearn.finetune import cross_validate, fit, plan
    from scenelearn.reporting import report
    from scenelearn.samples import sample_scenes
    from scenelearn.sizing import estimate

__all__ = [
    "Classifier",
    "app",
    "audit",
    "augment",
    "backbones",
    "classify",
    "compare",
    "cross_validate",
    "data",
    "errors",
    "estimate",
    "finetune",
    "fit",
    "folds",
    "load",
    "metrics",
    "plan",
    "rank",
    "report",
    "reporting",
    "sample_scenes",
    "samples",
    "scan",
    "sizing",
    "split",
]

_PACKAGE_OF = {
    "Classifier": "classify",
    "audit": "data",
    "compare": "classify",
    "cross_validate": "finetune",
    "estimate": "sizing",
    "fit": "finetune",
    "folds": "data",
    "load": "classify",
    "plan": "finetune",
    "rank": "classify",
    "report": "reporting",
    "sample_scenes": "samples",
    "scan": "data",
    "split": "data",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scenelearn")
    if name in _PACKAGE_OF:
        value = getattr(importlib.import_module(f"scenelearn.{_PACKAGE_OF[name]}"), name)
        globals()[name] = value  # the next access finds it without this function
        return value
    if name in __all__:
        return importlib.import_module(f"scenelearn.{name}")
    raise AttributeError(f"module 'scenelearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
