"""Keras as the package loads it, and networks that are built at once.

They have no values, or `materialize` gives them random ones by NumPy, without compiling anything.

`import keras` in a test would leave a keras.json in the home folder.
"""

from scenelearn._backend import keras
from scenelearn._keras_internals import deferred_initialization
from scenelearn.backbones._materialize import materialize
from scenelearn.sizing._networks import build_application

__all__ = ["build_application", "deferred_initialization", "keras", "materialize"]
