"""On what a run was made: versions, device, date, photos."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from scenelearn._backend import keras
from scenelearn._devices import n_devices
from scenelearn.data import Photos


def environment() -> dict[str, str]:
    """Versions, backend, device, cores and date of this run, as words."""
    backend = keras().backend.backend()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        **versions(),
        "device": _device(backend) + (f" × {n_devices()}" if n_devices() > 1 else ""),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of the packages that decide what comes out, and the backend's name."""
    backend = keras().backend.backend()
    packages = ["scenelearn", "keras", backend, "numpy", "pillow"]
    return {**{package: _version(package) for package in packages}, "backend": backend}


def fingerprint(photos: Photos) -> str:
    """One short word for the photos' contents and classes, whatever their order and names."""
    names = photos.class_names
    pairs = zip(photos.hashes, photos.labels, strict=True)
    lines = sorted(content.hex() + names[label] for content, label in pairs)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it may go by another name there, as tensorflow-cpu does
        return str(getattr(sys.modules.get(package), "__version__", "not installed as a package"))


def _device(backend: str) -> str:
    if backend == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    devices = keras().distribution.list_devices()
    return devices[0] if devices else "cpu"
