"""Activation functions as the operations that Keras' JAX backend emits, with their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

from scenelearn.errors import UnknownLayerError
from scenelearn.sizing._xla._trace import Trace


def activate(trace: Trace, name: str | None, x: int) -> int:
    """Apply an activation function by its Keras name."""
    if name not in ACTIVATIONS:
        raise UnknownLayerError(
            f"method='xla' has no rule for the activation {name!r} of a described layer. Pass a "
            "keras.Model, whose layers are traced on the JAX backend, or method='textbook'."
        )
    return ACTIVATIONS[name](trace, x)


def _silu(trace: Trace, x: int) -> int:
    return trace.multiply(x, trace.logistic(x))


def _gelu(trace: Trace, x: int) -> int:
    # 0.5 x erfc(-x / sqrt 2); XLA expands erfc into a polynomial and an exponential of -z^2
    z = trace.scale(trace.negate(x), math.sqrt(0.5))
    return trace.multiply(trace.scale(x, 0.5), expand_erfc(trace, z))


def expand_erfc(trace: Trace, z: int) -> int:
    """Emit erfc as XLA expands it: a polynomial and an exponential of -z^2."""
    square = trace.elementwise("negate", trace.elementwise("multiply", z, z))
    power = trace.elementwise("exp", square)
    quotient = trace.elementwise("divide", trace.full(1, trace.shape(z)), z)
    out = trace.elementwise("select", power, quotient, z)

    def back(g: int) -> list[tuple[int, int]]:
        slope = trace.elementwise(
            "multiply", power, trace.full(-2 / math.sqrt(math.pi), trace.shape(z))
        )
        return [(z, trace.elementwise("multiply", g, slope))]

    return trace.record(out, (z,), back)


def _gelu_tanh(trace: Trace, x: int) -> int:
    cube = trace.multiply(trace.multiply(x, x), x)
    inner = trace.scale(trace.add(x, trace.scale(cube, 0.044715)), math.sqrt(2 / math.pi))
    return trace.multiply(x, trace.scale(trace.shift(trace.tanh(inner), 1.0), 0.5))


def _softplus(trace: Trace, x: int) -> int:
    # log(e^x + e^0), with a select for NaN
    out = trace.elementwise("log1p", trace.elementwise("exp", x))
    is_nan = trace.elementwise("compare", x, x, attribute="!=", itemsize=1)
    out = trace.elementwise("select", is_nan, x, out)

    def back(g: int) -> list[tuple[int, int]]:
        return [
            (
                x,
                trace.elementwise(
                    "multiply", g, trace.elementwise("exp", trace.elementwise("subtract", x, out))
                ),
            )
        ]

    return trace.record(out, (x,), back)


def _elu(trace: Trace, x: int) -> int:
    zero = trace.full(0, trace.shape(x))
    above = trace.elementwise("compare", x, zero, attribute=">", itemsize=1)
    safe = trace.elementwise("select", above, zero, x)
    power = trace.elementwise("expm1", safe)
    out = trace.elementwise("select", above, x, power)

    def back(g: int) -> list[tuple[int, int]]:
        left = trace.elementwise("select", above, g, zero)
        right = trace.elementwise(
            "multiply",
            trace.elementwise("select", above, zero, g),
            trace.elementwise("add", power, trace.full(1, trace.shape(x))),
        )
        return [(x, trace.elementwise("add", left, right))]

    return trace.record(out, (x,), back)


def softmax(trace: Trace, x: int, axis: int = -1) -> int:
    """Emit e^(x - max) divided by its sum."""
    shape = trace.shape(x)
    axis %= len(shape)
    others = tuple(at for at in range(len(shape)) if at != axis)
    small = tuple(shape[at] for at in others)
    highest = trace.emit("reduce", small, (x,), (axis, "max"))
    moved = trace.elementwise("subtract", x, trace.emit("broadcast", shape, (highest,), others))
    moved = trace.record(moved, (x,), lambda g: ((x, g),))
    power = trace.exp(moved)
    total = trace.sum(power, (axis,))
    return trace.divide(power, trace.broadcast(total, shape, others))


ACTIVATIONS: dict[str | None, Callable[[Trace, int], int]] = {
    None: lambda _, x: x,
    "linear": lambda _, x: x,
    "relu": lambda trace, x: trace.gate(x, 0.0, None),
    "relu6": lambda trace, x: trace.gate(x, 0.0, 6.0),
    "leaky_relu": lambda trace, x: trace.gate(x, None, None, leak=0.2),
    "sigmoid": Trace.logistic,
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "tanh": Trace.tanh,
    "elu": _elu,
    "softplus": _softplus,
    "softmax": softmax,
    "exponential": Trace.exp,
    "hard_sigmoid": lambda trace, x: trace.scale(trace.gate(trace.shift(x, 3.0), 0.0, 6.0), 1 / 6),
    "hard_silu": lambda trace, x: trace.multiply(x, ACTIVATIONS["hard_sigmoid"](trace, x)),
    "hard_swish": lambda trace, x: trace.multiply(x, ACTIVATIONS["hard_sigmoid"](trace, x)),
}
