"""Opening a saved classifier."""

from __future__ import annotations

import os
from pathlib import Path

from scenelearn.backbones import fast_on_cpu
from scenelearn.classify import _bundle
from scenelearn.classify._classifier import Classifier
from scenelearn.classify._sight import sizes_of
from scenelearn.classify._trust import trust_of


def load(path: str | os.PathLike[str]) -> Classifier:
    """Open a saved classifier.

    Args:
        path: a file that `save` wrote.

    Returns:
        The classifier, ready to predict.

    Raises:
        PathMissingError: if there is no such file.
        BundleError: if it is not a whole bundle of scenelearn. No code in it is run.
    """
    model, about, arrays = _bundle.read(Path(path))
    try:
        sizes = sizes_of(model)
        trust = trust_of(arrays, about["gallery"], sizes) if arrays else None
    except ValueError as error:
        raise _bundle.broken(Path(path), str(error)) from None
    return Classifier(
        model=fast_on_cpu(model),
        class_names=tuple(about["class_names"]),
        image_px=int(about["image_px"]),
        facts=dict(about["facts"]),
        trust=trust,
    )
