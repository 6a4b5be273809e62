"""Every error that scenelearn raises on purpose.

The tree, so that a caller can catch as much or as little as needed:

```
SceneLearnError
├── ArgumentError           (ValueError)         an argument is out of range or of the wrong kind
├── DataError                                    the photos
│   ├── PathMissingError    (FileNotFoundError)  a file or folder that does not exist
│   ├── ManifestError       (ValueError)         a list of photos that cannot be followed
│   ├── NoPhotosError       (ValueError)         a folder without one usable photo
│   ├── TooFewClassesError  (ValueError)         fewer than two classes
│   ├── TooFewPhotosError   (ValueError)         a class with too few photos to split
│   ├── ClassMismatchError  (ValueError)         photos whose classes are not the classifier's
│   └── PhotoError          (ValueError)         one photo that cannot be read
├── DiskSpaceError          (OSError)            not enough free space for what would be written
├── BackendError            (ImportError)        no installed Keras backend
├── DeviceError             (RuntimeError)       devices or processes that cannot work together
├── BackboneError                                the network
│   ├── UnknownBackboneError       (ValueError)  a name that keras.applications does not have
│   ├── WeightsFileError           (ValueError)  a weights file that does not fit the backbone
│   └── WeightsUnavailableError    (OSError)     ImageNet weights that could not be downloaded
├── BundleError             (ValueError)         a file that is not a whole scenelearn bundle
├── ExportError             (RuntimeError)       an export that cannot be made, or does not agree
├── MissingExtraError       (ImportError)        an optional package that is not installed
└── UnknownLayerError       (ValueError)         a layer that cannot be sized
```

Each message names the file or argument, says what was expected and what was received, and
what to do about it. `help_page` says where the documentation has more on it. `scenelearn` on the
command line prints both and exits with 1 (2 for `ArgumentError`: the command was used wrongly).
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "BackboneError",
    "BackendError",
    "BundleError",
    "ClassMismatchError",
    "DataError",
    "DeviceError",
    "DiskSpaceError",
    "ExportError",
    "ManifestError",
    "MissingExtraError",
    "NoPhotosError",
    "PathMissingError",
    "PhotoError",
    "SceneLearnError",
    "TooFewClassesError",
    "TooFewPhotosError",
    "UnknownBackboneError",
    "UnknownLayerError",
    "WeightsFileError",
    "WeightsUnavailableError",
]


class SceneLearnError(Exception):
    """The root of all errors that scenelearn raises on purpose.

    Example:
        >>> NoPhotosError("an empty folder").help_page
        'reference/errors.html#scenelearn.errors.NoPhotosError'
    """

    @property
    def help_page(self) -> str:
        """Where the documentation names the error's causes and remedies, seen from its start."""
        ours = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        return f"reference/errors.html#{__name__}.{ours.__name__}"


class ArgumentError(SceneLearnError, ValueError):
    """An argument is out of range or of the wrong kind."""


class DataError(SceneLearnError):
    """Something is wrong with the photos or their folder."""


class PathMissingError(DataError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class ManifestError(DataError, ValueError):
    """A manifest lacks a column, names a photo twice, or cannot be read. The message says where."""


class NoPhotosError(DataError, ValueError):
    """No usable photo was found where photos were expected."""


class TooFewClassesError(DataError, ValueError):
    """Fewer than two classes: there is nothing to tell apart."""


class TooFewPhotosError(DataError, ValueError):
    """A class has too few photos for each side of a split to get one."""


class ClassMismatchError(DataError, ValueError):
    """The photos' class names are not those that the classifier knows."""


class PhotoError(DataError, ValueError):
    """One photo cannot be read. The message names it and says why."""


class DiskSpaceError(SceneLearnError, OSError):
    """What would be written does not fit on the disk. Nothing was written."""


class BackendError(SceneLearnError, ImportError):
    """None of Keras' backends (JAX, TensorFlow, Torch) is installed."""


class DeviceError(SceneLearnError, RuntimeError):
    """These devices or processes cannot work together on a fit. The message says why."""


class BackboneError(SceneLearnError):
    """Something is wrong with the pretrained network."""


class UnknownBackboneError(BackboneError, ValueError):
    """The backbone's name is not one of `keras.applications`."""


class WeightsFileError(BackboneError, ValueError):
    """The weights file does not fit the backbone, or is damaged."""


class WeightsUnavailableError(BackboneError, OSError):
    """The ImageNet weights could not be downloaded."""


class BundleError(SceneLearnError, ValueError):
    """The file is not a whole scenelearn bundle."""


class ExportError(SceneLearnError, RuntimeError):
    """The classifier cannot be exported, or the export does not agree. Nothing was written."""


class MissingExtraError(SceneLearnError, ImportError):
    """What was asked for needs a package that comes with an extra of scenelearn's."""


class UnknownLayerError(SceneLearnError, ValueError):
    """A layer has no description to size it by, and its call could not be followed."""
