"""The calls of Keras layers as JAX programs, traced on shapes: nothing is computed.

A layer of one's own needs no description: the program tells its outputs, its products, and the
arrays inside it. Layers and operations are traced on the JAX backend of Keras only.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from scenelearn import _backend
from scenelearn._keras_internals import deferred_initialization
from scenelearn.errors import UnknownLayerError

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

VIEWS = frozenset(("copy", "copy_p", "expand_dims", "name", "reshape", "squeeze", "stop_gradient"))
"""Primitives of JAX that move no bytes."""

_MOVING = frozenset((
    "concatenate", "conv_general_dilated", "cumsum", "dot_general", "gather", "pad", "rev",
    "scan", "scatter", "scatter-add", "slice", "sort", "transpose", "while",
))  # fmt: skip
"""Primitives that cannot overwrite an operand of the same size."""


class TracedCall:
    """One call of a Keras layer or operation, as programs for the shapes of its inputs.

    Args:
        target: the layer or operation.
        args: the positional arguments of the call.
        kwargs: its other arguments.
        tensors: the symbolic tensors among them, without duplicates.
        variables: the variables that the call may read, in the order of the programs' first inputs.
    """

    def __init__(
        self,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[Any],
        variables: Sequence[Any],
    ) -> None:
        self.target = target
        self.args, self.kwargs = args, kwargs
        self.tensors = tuple(tensors)
        self.variables = tuple(variables)
        self._programs: dict[Any, Any] = {}

    def program(self, shapes: Shapes, *, training: bool = False) -> Any:
        """The call as a program of variables and inputs: its outputs, then what it assigns.

        Assigned are the new values of all variables that are not trainable, in training only.

        Raises:
            UnknownLayerError: if the call fails on these shapes.
        """
        key = shapes, training
        if key not in self._programs:

            def run(*values: Any) -> list[Any]:
                outputs, assigned = self._run(values, training=training)
                return outputs + assigned * training

            self._programs[key] = self._trace(run, shapes)
        return self._programs[key]

    def gradients(self, shapes: Shapes, moving: tuple[int, ...], output: int) -> Any:
        """The gradients of one output as a program of variables, inputs and its own gradient.

        Args:
            shapes: of the inputs.
            moving: the positions of the variables and inputs whose gradients are returned.
            output: the position of the output.
        """
        key = shapes, moving, output
        if key not in self._programs:
            out = self.program(shapes).out_avals[output]

            def run(*values: Any) -> Any:
                return self._pull(values[:-1], moving, output)[1](values[-1])

            self._programs[key] = self._trace(run, shapes, _array(out.shape, out.dtype))
        return self._programs[key]

    def output_shapes(self, shapes: Shapes) -> Shapes:
        """The shapes of the outputs."""
        return tuple(tuple(map(int, aval.shape)) for aval in self.program(shapes).out_avals)

    def n_multiply_adds(self, shapes: Shapes) -> int:
        """The multiply-adds of all products and convolutions inside."""
        return _multiply_adds(self.program(shapes).jaxpr)

    def n_working(self, shapes: Shapes) -> int:
        """The largest number of elements inside at the same time, without inputs and outputs.

        An array lives from the operation that computes it to the last one that reads it, and an
        elementwise operation overwrites an operand that nothing reads later.
        """
        return _working_elements(self.program(shapes).jaxpr)

    def n_kept(self, shapes: Shapes) -> int:
        """The number of elements that a training step keeps inside for the gradients."""
        key = shapes, "kept"
        if key not in self._programs:
            self._programs[key] = self._kept(shapes)
        n: int = self._programs[key]
        return n

    def _kept(self, shapes: Shapes) -> int:
        import jax

        given = self._abstract(shapes)
        moving = tuple(at for at, value in enumerate(given) if _is_float(value))
        n_outputs = len(self.program(shapes).out_avals)

        def run(*values: Any) -> Any:
            kept: list[Any] = []
            outputs = []
            for output in range(n_outputs):
                out, pull = self._pull(values, moving, output)
                outputs.append(out)
                kept += jax.tree.leaves(pull)
            return outputs, kept

        jaxpr = self._trace(run, shapes).jaxpr
        known = {id(var) for var in (*jaxpr.invars, *jaxpr.outvars[:n_outputs])}
        kept = {
            id(var): _elements(var)
            for var in jaxpr.outvars[n_outputs:]
            if id(var) not in known and not hasattr(var, "val")
        }
        return sum(kept.values())

    def _pull(self, values: Sequence[Any], moving: tuple[int, ...], output: int) -> Any:
        import jax

        def part(*moved: Any) -> Any:
            every = list(values)
            for at, value in zip(moving, moved, strict=True):
                every[at] = value
            return self._run(every, training=True)[0][output]

        return jax.vjp(part, *(values[at] for at in moving))

    def _run(self, values: Sequence[Any], *, training: bool) -> tuple[list[Any], list[Any]]:
        keras = _backend.keras()
        n = len(self.variables)
        tensors = dict(zip(map(id, self.tensors), values[n:], strict=True))
        target = self.target
        args, kwargs = keras.tree.map_structure(
            lambda value: tensors.get(id(value), value), (self.args, dict(self.kwargs))
        )
        if isinstance(target, keras.layers.Layer):
            kwargs["training"] = training  # models override what the call recorded, too
        else:
            target = _with_sizes(target, values[n:])
        with (
            deferred_initialization(),
            keras.StatelessScope(list(zip(self.variables, values[:n], strict=True))) as scope,
        ):
            outputs = target(*args, **kwargs)
            assigned = [
                keras.ops.convert_to_tensor(scope.get_current_value(variable))
                for variable in self.variables
                if not variable.trainable
            ]
        return [value for value in keras.tree.flatten(outputs) if value is not None], assigned

    def _abstract(self, shapes: Shapes) -> list[Any]:
        inputs = zip(shapes, self.tensors, strict=True)
        return [
            *(_array(variable.shape, variable.dtype) for variable in self.variables),
            *(_array(shape, tensor.dtype) for shape, tensor in inputs),
        ]

    def _trace(self, run: Any, shapes: Shapes, *more: Any) -> Any:
        import jax

        try:
            return jax.make_jaxpr(run)(*self._abstract(shapes), *more)
        except Exception as error:
            raise UnknownLayerError(
                f'The layer "{self.target.name}" ({type(self.target).__name__}) has no description '
                f"in sizing, and its call could not be traced on inputs of {shapes}: "
                f"{_plain(error)}. Write it with Keras layers and keras.ops, or describe the "
                "network as a list of sizing layers."
            ) from error


def _plain(error: Exception) -> str:
    """What an error says, without the arguments and the terminal codes that Keras adds."""
    lines = (line for line in str(error).split("\n") if line and not line.startswith("Exception "))
    return re.sub(r"\x1b\[\d*m", "", next(lines, type(error).__name__)).rstrip(".")


def _with_sizes(operation: Any, inputs: Sequence[Any]) -> Any:
    """The operation with sizes in place of those that Keras did not know."""
    filled = copy.copy(operation)
    size = -1 if type(operation).__name__ == "Reshape" else inputs[0].shape[0]
    for name, value in vars(operation).items():
        sizes = value if isinstance(value, tuple | list) else ()
        if any(n is None for n in sizes) and all(isinstance(n, int | None) for n in sizes):
            setattr(filled, name, tuple(size if n is None else n for n in sizes))
    return filled


def inner_program(eqn: Any) -> Any:
    """The program that a primitive calls once: of `jit` and custom gradients; None if none."""
    if eqn.primitive.name in {"scan", "while", "cond"}:
        return None
    for value in eqn.params.values():
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            return value if hasattr(value, "consts") else None
    return None


def _programs_inside(eqn: Any) -> Iterator[tuple[Any, int]]:
    """The programs that a primitive runs, and how often; of several branches, each one."""
    times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner, times


def _multiply_adds(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        out = math.prod(eqn.outvars[0].aval.shape)
        if name == "dot_general":
            shape = eqn.invars[0].aval.shape
            (summed, _), _ = eqn.params["dimension_numbers"]
            total += out * math.prod(shape[axis] for axis in summed)
        elif name == "conv_general_dilated":
            kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
            taps = math.prod(kernel) // kernel[spec[0]]
            total += out * taps // math.prod(eqn.params["lhs_dilation"])
        else:
            total += sum(_multiply_adds(inner) * n for inner, n in _programs_inside(eqn))
    return total


def _working_elements(jaxpr: Any) -> int:
    last = {id(var): at for at, eqn in enumerate(jaxpr.eqns) for var in eqn.invars}
    results = {id(var) for var in jaxpr.outvars}
    for eqn in reversed(jaxpr.eqns):
        if _is_view(eqn) and id(eqn.outvars[0]) in results:
            results.add(id(eqn.invars[0]))
    held: dict[int, int] = {}  # the elements of the arrays that are alive
    live = peak = 0
    for at, eqn in enumerate(jaxpr.eqns):
        name = eqn.primitive.name
        ending = {id(var) for var in eqn.invars if last[id(var)] == at and id(var) in held}
        inside = max((_working_elements(inner) for inner, _ in _programs_inside(eqn)), default=0)
        for var in eqn.outvars:
            size = 0 if id(var) in results else _elements(var)
            if _is_view(eqn) or name == "broadcast_in_dim":
                size = held[id(eqn.invars[0])] if id(eqn.invars[0]) in ending else 0
            same = [index for index in ending if held[index] == size]
            if same and name not in _MOVING:
                live -= held.pop(same[0])
                ending.remove(same[0])
            held[id(var)] = size
            live += size
        peak = max(peak, live + inside)
        live -= sum(held.pop(index) for index in ending)
    return peak


def _is_view(eqn: Any) -> bool:
    if eqn.primitive.name != "broadcast_in_dim":
        return eqn.primitive.name in VIEWS
    return bool(_elements(eqn.outvars[0]) == _elements(eqn.invars[0]))


def _elements(var: Any) -> int:
    """The number of elements of an array; of narrower types, as many as have the same bytes."""
    itemsize = int(getattr(var.aval.dtype, "itemsize", 4))
    n: int = math.prod(var.aval.shape) * min(itemsize, 4) // 4
    return n


def _array(shape: Any, dtype: Any) -> Any:
    """An array's shape and type, for JAX to trace."""
    import jax

    return jax.ShapeDtypeStruct(tuple(shape), dtype)  # type: ignore[no-untyped-call]


def _is_float(value: Any) -> bool:
    return "float" in str(value.dtype)
