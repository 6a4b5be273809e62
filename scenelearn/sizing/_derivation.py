"""The textbook calculation, written out step by step."""

from __future__ import annotations

import math

from scenelearn._display import printable
from scenelearn.sizing._bytes import format_bytes
from scenelearn.sizing._values import EstimateValues, LayerEstimate


def derivation(estimate: EstimateValues) -> str:
    """Write the calculation as Markdown, with LaTeX between dollar signs."""
    size = estimate.parameter_bytes // max(1, estimate.n_parameters)
    name = printable(estimate.name)
    parts = [
        f"## {name}: batch of {estimate.batch_size}, {size} bytes per parameter",
        "### Layers",
        *(_layer(layer) for layer in estimate.layers),
        _parameters(estimate, size),
        _prediction(estimate),
        _training(estimate),
        *([f"**Note**: {estimate.note}"] if estimate.note else []),
    ]
    return "\n\n".join(parts) + "\n"


def _layer(layer: LayerEstimate) -> str:
    inputs = " and ".join(" × ".join(map(str, shape)) for shape in layer.input_shapes)
    output = " × ".join(map(str, layer.output_shape))
    lines = [f"**{printable(layer.name)}** ({layer.layer_type}): {inputs} → {output}."]
    if layer.n_parameters:
        lines.append(_formula(layer))
    lines.append(
        r"Activations: $$"
        rf"{_product(layer.output_shape)} = {_tex(math.prod(layer.output_shape))}"
        rf"\text{{ values}} = {_tex(layer.activation_bytes)}\text{{ bytes}}$$"
    )
    return "\n\n".join(lines)


def _formula(layer: LayerEstimate) -> str:
    channels, out = layer.input_shapes[0][-1], layer.output_shape[-1]
    total = _tex(layer.n_parameters)
    if layer.layer_type.startswith("Conv") and "Transpose" not in layer.layer_type:
        for bias in (1, 0):
            taps = layer.n_parameters / out - bias
            if taps > 0 and taps == int(taps) and int(taps) % channels == 0:
                window = int(taps) // channels
                plus, what = (" + 1", "weights and bias") if bias else ("", "weights")
                return (
                    f"Parameters, the {what} of each filter times the number of filters: "
                    rf"$$({window} \cdot {channels}{plus}) \cdot {out} = {total}$$"
                )
    if layer.layer_type == "Dense":
        with_bias = layer.n_parameters == (channels + 1) * out
        per_unit = f"({channels} + 1)" if with_bias else str(channels)
        what = "one weight per input and a bias" if with_bias else "one weight per input"
        return (
            f"Parameters, {what} for each unit: "
            rf"$${per_unit} \cdot {out} = {total}$$"
        )
    return f"Parameters: $${total}$$"


def _parameters(estimate: EstimateValues, size: int) -> str:
    counts = [layer.n_parameters for layer in estimate.layers if layer.n_parameters]
    return (
        "### Parameters\n\n"
        f"$${' + '.join(map(_tex, counts)) or '0'} = {_tex(estimate.n_parameters)}$$\n\n"
        rf"$${_tex(estimate.n_parameters)} \cdot {size}\text{{ bytes}} = "
        rf"{_tex(estimate.parameter_bytes)}\text{{ bytes}}$$ or "
        f"{format_bytes(estimate.parameter_bytes)}. They are stored once, whatever the batch size."
    )


def _prediction(estimate: EstimateValues) -> str:
    activations = estimate.prediction_bytes - estimate.parameter_bytes
    kept = estimate.prediction_bytes_without_reuse - estimate.parameter_bytes
    how = (
        "Activations are released after the last layer that reads them. The peak is where "
        "consecutive activations are largest together, at "
        f"**{printable(estimate.prediction_peak_layer)}**:"
        if estimate.method == "textbook"
        else "The memory that XLA plans, plus the parameters:"
    )
    return (
        f"### Prediction\n\n{how} "
        rf"$${_tex(activations)} + {_tex(estimate.parameter_bytes)} = "
        rf"{_tex(estimate.prediction_bytes)}"
        rf"\text{{ bytes}}$$ or {format_bytes(estimate.prediction_bytes)}."
        "\n\nIf all activations are kept: "
        rf"$${_tex(kept)} + {_tex(estimate.parameter_bytes)} = "
        rf"{_tex(estimate.prediction_bytes_without_reuse)}\text{{ bytes}}$$ or "
        f"{format_bytes(estimate.prediction_bytes_without_reuse)}."
    )


def _training(estimate: EstimateValues) -> str:
    parts = estimate.training
    named = (
        ("activations kept for the backward pass", parts.activations),
        ("the batch", parts.inputs),
        ("parameters", parts.parameters),
        ("gradients", parts.gradients),
        (f"optimizer slots ({printable(estimate.optimizer)})", parts.optimizer_slots),
        ("temporaries", parts.temporaries),
    )
    listed = "\n".join(
        f"| {name} | {value:,} | {format_bytes(value)} |" for name, value in named if value
    )
    return (
        "### Training step\n\n"
        "The backward pass needs the activations of the forward pass. Activations and the batch "
        f"are stored for all {estimate.batch_size} samples, the rest once.\n\n"
        f"| part | bytes | rounded |\n|---|---:|---:|\n{listed}\n"
        f"| **total** | **{estimate.training_bytes:,}** | "
        f"**{format_bytes(estimate.training_bytes)}** |"
    )


def _product(shape: tuple[int, ...]) -> str:
    return r" \cdot ".join(map(str, shape))


def _tex(number: int) -> str:
    return f"{number:,}".replace(",", r"{,}")
