"""Estimate what a network costs before running it: parameters, multiply-adds, memory.

```python
from scenelearn import sizing

estimate = sizing.estimate(model, batch_size=50, optimizer="adam")
print(estimate)
estimate.max_batch("8 GiB")
sizing.estimate("mobilenet_v2").to_pandas()
```

Layers can also be described without Keras, by Keras' names and arguments:
`sizing.estimate([sizing.Conv2D(100, 3, strides=2, padding="same")], input_shape=(200, 300, 3))`.
"""

from __future__ import annotations

from scenelearn.sizing import _layers
from scenelearn.sizing._arithmetic import (
    conv_output_length,
    conv_parameters,
    conv_transpose_output_length,
    receptive_field,
)
from scenelearn.sizing._bytes import format_bytes, parse_bytes
from scenelearn.sizing._compare import NetworkComparison, compare
from scenelearn.sizing._estimate import METHODS, estimate
from scenelearn.sizing._format import Figure
from scenelearn.sizing._layers import *  # noqa: F403
from scenelearn.sizing._memory import MemoryPoint, TrainingMemory
from scenelearn.sizing._receptive import ReceptiveField
from scenelearn.sizing._recurrent_shapes import Axis, RecurrentShapes, recurrent_shapes
from scenelearn.sizing._result import Estimate
from scenelearn.sizing._values import LayerEstimate

__all__ = [
    "METHODS",
    "Axis",
    "Estimate",
    "Figure",
    "LayerEstimate",
    "MemoryPoint",
    "NetworkComparison",
    "ReceptiveField",
    "RecurrentShapes",
    "TrainingMemory",
    "compare",
    "conv_output_length",
    "conv_parameters",
    "conv_transpose_output_length",
    "estimate",
    "format_bytes",
    "parse_bytes",
    "receptive_field",
    "recurrent_shapes",
]
__all__ += _layers.__all__
__all__.remove("Shape")
__all__.sort(key=lambda name: (not name.isupper(), not name[0].isupper(), name))
