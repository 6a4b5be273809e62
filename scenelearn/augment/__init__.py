"""Augmentation of training photos: parameters are sampled first, then applied.

```python
from scenelearn import augment

parameters = augment.sample("standard", seed=0, n=32)  # one set of parameters for each photo
augmented = augment.apply(images, parameters)          # on JAX, TensorFlow or Torch
```
"""

from scenelearn.augment._apply import apply
from scenelearn.augment._layer import layer, register
from scenelearn.augment._mix import MixParameters, apply_mix, sample_mix
from scenelearn.augment._operations import OPERATIONS, Operation
from scenelearn.augment._policy import POLICIES, Policy, policy, randaugment
from scenelearn.augment._preview import Preview, preview
from scenelearn.augment._sample import Parameters, fixed, sample

__all__ = [
    "OPERATIONS",
    "POLICIES",
    "MixParameters",
    "Operation",
    "Parameters",
    "Policy",
    "Preview",
    "apply",
    "apply_mix",
    "fixed",
    "layer",
    "policy",
    "preview",
    "randaugment",
    "register",
    "sample",
    "sample_mix",
]
