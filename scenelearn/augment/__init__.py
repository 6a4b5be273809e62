"""Variation of training photos: drawn as numbers first, then applied.

```python
from scenelearn import augment

draws = augment.draw("standard", seed=0, n=32)  # what happens to each of 32 photos
varied = augment.apply(images, draws)           # on JAX, TensorFlow or Torch
```
"""

from scenelearn.augment._apply import apply
from scenelearn.augment._draw import Draws, draw, exactly
from scenelearn.augment._layer import layer, register
from scenelearn.augment._mix import Pairs, mix, pair
from scenelearn.augment._operations import OPERATIONS, Operation
from scenelearn.augment._policy import POLICIES, Policy, policy, randaugment
from scenelearn.augment._preview import Preview, preview

__all__ = [
    "OPERATIONS",
    "POLICIES",
    "Draws",
    "Operation",
    "Pairs",
    "Policy",
    "Preview",
    "apply",
    "draw",
    "exactly",
    "layer",
    "mix",
    "pair",
    "policy",
    "preview",
    "randaugment",
    "register",
]
