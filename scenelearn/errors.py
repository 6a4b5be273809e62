"""The exceptions that scenelearn raises.

Each also inherits from the built-in exception in parentheses, so callers can catch as much or as
little as they need:

```
SceneLearnError
├── ArgumentError           (ValueError)         an argument has a wrong type or value
├── DataError                                    something is wrong with the photos
│   ├── PathMissingError    (FileNotFoundError)  a file or folder does not exist
│   ├── ManifestError       (ValueError)         a manifest is invalid
│   ├── NoPhotosError       (ValueError)         there is no usable photo
│   ├── TooFewClassesError  (ValueError)         there are fewer than two classes
│   ├── TooFewPhotosError   (ValueError)         a class has too few photos to split
│   ├── ClassMismatchError  (ValueError)         photos have other classes than the classifier
│   └── PhotoError          (ValueError)         a photo cannot be decoded
├── DiskError               (OSError)            a file cannot be read or written
│   └── DiskSpaceError                           there is not enough free disk space
├── BackendError            (ImportError)        Keras cannot be imported, or finds no device
├── ForkError               (RuntimeError)       the process was forked after Keras had started
├── DeviceError             (RuntimeError)       devices or processes cannot train together
├── BackboneError                                something is wrong with the pretrained network
│   ├── UnknownBackboneError       (ValueError)  keras.applications has no such network
│   ├── WeightsFileError           (ValueError)  a file of weights or a network is unusable
│   └── WeightsUnavailableError    (OSError)     weights or a preset could not be downloaded
├── BundleError             (ValueError)         a file is not a valid classifier bundle
├── ExportError             (RuntimeError)       an export failed, or its predictions differ
├── MissingExtraError       (ImportError)        an optional package is not installed
└── UnknownLayerError       (ValueError)         sizing does not support a layer
```

Each message names the argument or file, and says what was expected, what was received and what to
do. `help_page` is the page of the documentation that explains the error. On the command line,
`scenelearn` prints the message and the page, and exits with 1, or with 2 for `ArgumentError`.
"""

from __future__ import annotations

from scenelearn._display import printable_lines

__all__ = [
    "ArgumentError",
    "BackboneError",
    "BackendError",
    "BundleError",
    "ClassMismatchError",
    "DataError",
    "DeviceError",
    "DiskError",
    "DiskSpaceError",
    "ExportError",
    "ForkError",
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
    """Base class of all exceptions that scenelearn raises.

    Example:
        >>> NoPhotosError("an empty folder").help_page
        'reference/errors.html#scenelearn.errors.NoPhotosError'
    """

    def __str__(self) -> str:
        """The message, in which names from the disk cannot steer a terminal."""
        return printable_lines(super().__str__())

    @property
    def help_page(self) -> str:
        """The page of the documentation that explains the error, relative to its root."""
        ours = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        return f"reference/errors.html#{__name__}.{ours.__name__}"


class ArgumentError(SceneLearnError, ValueError):
    """An argument has a wrong type or value."""


class DataError(SceneLearnError):
    """Base class of errors about the photos or their folder."""


class PathMissingError(DataError, FileNotFoundError):
    """A file or folder does not exist."""


class ManifestError(DataError, ValueError):
    """A manifest is invalid: the message names the line, and the column or photo."""


class NoPhotosError(DataError, ValueError):
    """There is no usable photo where photos are expected."""


class TooFewClassesError(DataError, ValueError):
    """There are fewer than two classes, so there is nothing to classify."""


class TooFewPhotosError(DataError, ValueError):
    """A class has too few photos for each split to contain one."""


class ClassMismatchError(DataError, ValueError):
    """The photos have other class names than the classifier."""


class PhotoError(DataError, ValueError):
    """A photo cannot be decoded: the message names the photo and the reason."""


class DiskError(SceneLearnError, OSError):
    """The system cannot read or write a file: the message names it. Older files are unchanged."""


class DiskSpaceError(DiskError):
    """There is not enough free disk space. Nothing was written."""


class BackendError(SceneLearnError, ImportError):
    """Keras cannot run: no backend (JAX, TensorFlow, Torch) is installed, or it finds no device."""


class ForkError(SceneLearnError, RuntimeError):
    """The process was forked after Keras had started, and would wait for its threads forever."""


class DeviceError(SceneLearnError, RuntimeError):
    """Devices or processes cannot train together: the message gives the reason."""


class BackboneError(SceneLearnError):
    """Base class of errors about the pretrained network."""


class UnknownBackboneError(BackboneError, ValueError):
    """`keras.applications` has no network of this name."""


class WeightsFileError(BackboneError, ValueError):
    """A weights file is damaged or does not fit the backbone, or a network cannot be loaded."""


class WeightsUnavailableError(BackboneError, OSError):
    """The ImageNet weights, or a preset of KerasHub, could not be downloaded or loaded."""


class BundleError(SceneLearnError, ValueError):
    """A file is damaged, or is not a classifier bundle."""


class ExportError(SceneLearnError, RuntimeError):
    """An export failed, or its predictions differ from the classifier's. Nothing was written."""


class MissingExtraError(SceneLearnError, ImportError):
    """An optional package is not installed: the message says how to install it."""


class UnknownLayerError(SceneLearnError, ValueError):
    """Sizing does not support a layer, and could not trace its call."""
