"""`load`: open a saved classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from scenelearn._backend import default_settings
from scenelearn._checks import check_path
from scenelearn.backbones import fast_on_cpu
from scenelearn.classify import _bundle
from scenelearn.classify._calibration import calibration_from_arrays
from scenelearn.classify._classifier import PATH_ADVICE, Classifier
from scenelearn.classify._inference import output_sizes
from scenelearn.data._resize import make_resize
from scenelearn.errors import ArgumentError


@default_settings()
def load(
    path: str | os.PathLike[str], *, custom_objects: Mapping[str, Any] | None = None
) -> Classifier:
    """Load a saved classifier.

    Loading is safe: no code in the file is run. The layers of the network come from the installed
    Keras and KerasHub, or from `custom_objects`.

    Args:
        path: a file written by `Classifier.save` or `FitResult.save`.
        custom_objects: classes of your own that the network consists of, by name, such as
            ``{"Mine": Mine}``.

    Returns:
        The classifier, ready to predict.

    Raises:
        ArgumentError: if `path` is not a path, or `custom_objects` not a mapping of classes.
        PathMissingError: if the file does not exist or cannot be read.
        BundleError: if the file is not a complete scenelearn bundle, or its network has classes
            that are not in `custom_objects`.
        DiskError: if the system cannot read the file.
        MissingExtraError: if the network needs KerasHub, which is not installed.
        BackendError: if Keras cannot start.
        ForkError: if this process was forked after Keras had started.
    """
    file = check_path("path", path, advice=PATH_ADVICE)
    if not isinstance(custom_objects, Mapping | None) or not all(
        isinstance(name, str) and isinstance(value, type)
        for name, value in (custom_objects or {}).items()
    ):
        raise ArgumentError(
            "`custom_objects` must map names to classes. Received: "
            f"custom_objects={custom_objects!r:.200}. Pass e.g. {{'Mine': Mine}}."
        )
    model, entry, arrays = _bundle.read(file, custom_objects)
    try:
        sizes = output_sizes(model)
        paths = entry["neighbor_paths"]
        calibration = calibration_from_arrays(arrays, paths, sizes) if arrays else None
    except ValueError as error:
        raise _bundle.bundle_error(file, str(error)) from None
    return Classifier(
        model=fast_on_cpu(model),
        class_names=tuple(entry["class_names"]),
        image_px=make_resize(entry["image_px"]).image_px,
        shape=entry["shape"],
        metadata=dict(entry["metadata"]),
        calibration=calibration,
    )
