"""`export`: a folder that runs as it is on a host for Gradio apps."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scenelearn._checks import check_path
from scenelearn._display import printable
from scenelearn._io import atomic_write_folder
from scenelearn.classify import load
from scenelearn.errors import ArgumentError

_BUNDLE = "scenes.keras"
_FILES = {"app.py", "requirements.txt", "README.md", _BUNDLE}
_CARD = Path("report", "model-card.md")  # where `scenelearn fit` writes it, next to the bundle
_APP = f'''\
"""Try the classifier: drop, paste or take a photo."""

import scenelearn as sl

sl.app.serve(sl.load("{_BUNDLE}")).wait()
'''


def export(bundle: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Write a folder that runs as it is on a host for Gradio apps, such as Hugging Face Spaces.

    ``app.py`` serves the page of `serve`, without corrections; ``requirements.txt`` names this
    version of scenelearn; ``README.md`` is the model card of ``report/model-card.md`` next to the
    bundle, if that exists, with the header that hosts read; and the bundle.

    Args:
        bundle: the file of a classifier, which is loaded to check it.
        folder: the folder to write; it must not exist, or be an earlier export, which is replaced.

    Returns:
        The folder.

    Raises:
        ArgumentError: if `folder` is a file, holds something else, or cannot be written.
        PathMissingError: if `bundle` does not exist.
        BundleError: if `bundle` is not a complete classifier.
        MissingExtraError: if its network needs KerasHub, which is not installed.
        BackendError: if Keras cannot start.
        ForkError: if this process was forked after Keras had started.
        DiskSpaceError: if the disk is full.
        DiskError: if the system cannot read or write a file.
    """
    target = check_path("folder", folder, advice="Pass e.g. 'app/'.").absolute()
    if target.exists() and not _is_export(target):
        raise ArgumentError(
            "`folder` must be a new folder, or one that was exported before. Received: "
            f"{str(target)!r}, which holds something else. Pass another name."
        )
    source = check_path("bundle", bundle, advice="Pass e.g. 'scenes.keras'.")
    classifier = load(source)
    try:
        card = (source.parent / _CARD).read_text(encoding="utf-8")
        body = re.sub(r"\A---\n.*?\n---\n\s*", "", card, flags=re.DOTALL)
    except (OSError, ValueError):
        body = f"# Photo classifier\n\n```text\n{classifier}\n```\n"
    files = {
        "app.py": _APP,
        "requirements.txt": f"scenelearn[app]=={version('scenelearn')}\n",
        "README.md": _header(classifier.class_names) + body,
    }
    with atomic_write_folder(target) as temporary:
        for name, text in files.items():
            (temporary / name).write_text(text, encoding="utf-8")
        shutil.copyfile(source, temporary / _BUNDLE)
    return target


def _is_export(folder: Path) -> bool:
    """Whether a folder is empty, or has the app file of an export, and no file of the user's."""
    try:
        names = {file.name for file in folder.iterdir()}
        return not names or (
            names <= _FILES and (folder / "app.py").read_text(encoding="utf-8") == _APP
        )
    except (OSError, ValueError):
        return False


def _header(class_names: tuple[str, ...]) -> str:
    """The YAML header that hosts read; every value is quoted."""
    fields: dict[str, object] = {
        "title": "Photo classifier",
        "short_description": f"Photos of {len(class_names)} classes, with calibrated uncertainty",
        "sdk": "gradio",
        "app_file": "app.py",
        "colorFrom": "blue",
        "colorTo": "green",
        "tags": ["image-classification", "scenelearn", *map(printable, class_names)],
    }
    with suppress(PackageNotFoundError):  # the host then takes its own
        fields["sdk_version"] = version("gradio")
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
    return "\n".join(["---", *lines, "---", "", ""])
