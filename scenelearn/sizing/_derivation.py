"""The calculation on paper, written out from the numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ._bytes import megabytes

if TYPE_CHECKING:
    from ._result import Estimate, Row


def derivation(estimate: Estimate) -> str:
    """The steps, as Markdown with LaTeX between dollar signs."""
    size = estimate.parameter_bytes // max(1, estimate.n_parameters)
    parts = [
        f"## {estimate.name}: a batch of {estimate.batch_size}, {size} bytes a number",
        "### Each layer",
    ]
    parts += [_layer(row) for row in estimate.rows]
    parts += [_parameters(estimate, size), _prediction(estimate), _training(estimate)]
    return "\n\n".join(parts) + "\n"


def _layer(row: Row) -> str:
    shape = " × ".join(map(str, row.output_shape))
    read = " and ".join(" × ".join(map(str, one)) for one in row.input_shapes)
    lines = [f"**{row.name}** ({row.kind}): {read} becomes {shape}."]
    if row.n_parameters:
        lines.append(_formula(row))
    lines.append(
        rf"Its output: $${_product(row.output_shape)} = {_tex(math.prod(row.output_shape))}"
        rf"\text{{ numbers}} = {_tex(row.activation_bytes)}\text{{ bytes}}$$"
    )
    return "\n\n".join(lines)


def _formula(row: Row) -> str:
    channels, out = row.input_shapes[0][-1], row.output_shape[-1]
    total = _tex(row.n_parameters)
    if row.kind.startswith("Conv") and "Transpose" not in row.kind:
        for bias in (1, 0):
            taps = row.n_parameters / out - bias
            if taps > 0 and taps == int(taps) and int(taps) % channels == 0:
                window = int(taps) // channels
                plus = " + 1" if bias else ""
                return (
                    "Weights and bias of each feature map, times the feature maps: "
                    rf"$$({window} \cdot {channels}{plus}) \cdot {out} = {total}$$"
                )
    if row.kind == "Dense":
        if row.n_parameters == (channels + 1) * out:
            return (
                rf"A weight for each input and a bias: $$({channels} + 1) \cdot {out} = {total}$$"
            )
        return rf"A weight for each input: $${channels} \cdot {out} = {total}$$"
    return f"Parameters: $${total}$$"


def _parameters(estimate: Estimate, size: int) -> str:
    own = [row.n_parameters for row in estimate.rows if row.n_parameters]
    return (
        "### Parameters\n\n"
        f"$${' + '.join(map(_tex, own)) or '0'} = {_tex(estimate.n_parameters)}$$\n\n"
        rf"$${_tex(estimate.n_parameters)} \cdot {size}\text{{ bytes}} = "
        rf"{_tex(estimate.parameter_bytes)}\text{{ bytes}}$$ or "
        f"{megabytes(estimate.parameter_bytes)}. They are there once, however large the batch."
    )


def _prediction(estimate: Estimate) -> str:
    maps = estimate.prediction_bytes - estimate.parameter_bytes
    kept = estimate.prediction_bytes_all_kept - estimate.parameter_bytes
    how = (
        "A map goes as soon as the last layer that reads it is done, so the most is needed where "
        f"neighboring maps are largest together, at **{estimate.prediction_peak_at}**:"
        if estimate.rule == "textbook"
        else "What XLA plans for it, beside the parameters:"
    )
    return (
        f"### One prediction\n\n{how} "
        rf"$${_tex(maps)} + {_tex(estimate.parameter_bytes)} = {_tex(estimate.prediction_bytes)}"
        rf"\text{{ bytes}}$$ or {megabytes(estimate.prediction_bytes)}."
        "\n\nIf every map is kept: "
        rf"$${_tex(kept)} + {_tex(estimate.parameter_bytes)} = "
        rf"{_tex(estimate.prediction_bytes_all_kept)}\text{{ bytes}}$$ or "
        f"{megabytes(estimate.prediction_bytes_all_kept)}."
    )


def _training(estimate: Estimate) -> str:
    parts = estimate.training
    named = (
        ("maps kept for the way back", parts.activations),
        ("the batch", parts.inputs),
        ("parameters", parts.parameters),
        ("gradients", parts.gradients),
        (f"{estimate.optimizer}'s own", parts.optimizer),
        ("other", parts.temporaries),
    )
    listed = "\n".join(
        f"| {name} | {value:,} | {megabytes(value)} |" for name, value in named if value
    )
    return (
        "### One training step\n\n"
        "Everything that was computed on the way forward is kept for the way back. The maps and "
        f"the batch count for all {estimate.batch_size} samples, the rest once.\n\n"
        f"| part | bytes | |\n|---|---:|---:|\n{listed}\n"
        f"| **together** | **{estimate.training_bytes:,}** | "
        f"**{megabytes(estimate.training_bytes)}** |"
    )


def _product(shape: tuple[int, ...]) -> str:
    return r" \cdot ".join(map(str, shape))


def _tex(number: int) -> str:
    return f"{number:,}".replace(",", r"{,}")
