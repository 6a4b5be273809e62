"""Predictions: one per photo, and a list of them that becomes a table."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from scenelearn._display import first_lines, html_text, printable
from scenelearn._json import dataclass_json
from scenelearn._pandas import to_pandas
from scenelearn.classify._calibration import Calibration
from scenelearn.classify._inference import Outputs
from scenelearn.classify._ood import OOD_P_VALUE

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the start of a formula
_EQUAL_COSTS = 1e-9  # of the highest cost: expected costs that differ by no more are equal
_MAX_LINES = 20  # of the text for a list of predictions


class Probabilities(dict[str, float]):
    """Probabilities by class name. As an array, they are in the order of the classes.

    Example:
        >>> p = Probabilities(sea=0.75, street=0.25)
        >>> p["sea"], np.asarray(p).tolist()
        (0.75, [0.75, 0.25])
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(list(self.values()), dtype=dtype or np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Prediction:
    """The prediction for one photo.

    Attributes:
        source: the photo's path; for arrays, images and bytes, their kind and position.
        label: the name of the most probable class; with costs, of the class with the lowest
            expected cost.
        probability: of that class, in [0, 1], calibrated: of the predictions with probability 0.8,
            about 80% are correct.
        probabilities: of every class, by name; they sum to 1.
        prediction_set: the classes that the photo may have, most probable first. It contains the
            true class for a fraction `coverage` of photos like the validation photos. With fewer
            than 19 validation photos, 0.95 cannot be guaranteed, and it contains all classes.
        coverage: the coverage of `prediction_set`. None without a calibration; then the set
            contains the most probable class only.
        ood_p_value: the fraction of validation photos at least as unlike the training photos, in
            (0, 1]; None without a calibration.
        is_ood: whether the photo is out of distribution, unlike the training photos: its p-value is
            at most 0.03. Then no class may be correct. With fewer than 33 validation photos, no
            p-value is as low, and it is always False.
        abstains: whether the classifier abstains, because `prediction_set` does not have exactly
            one class or the photo is out of distribution.
        expected_cost: of predicting `label`; None if no costs were given.
    """

    source: str
    label: str
    probability: float
    probabilities: Probabilities
    prediction_set: tuple[str, ...]
    coverage: float | None = None
    ood_p_value: float | None = None
    is_ood: bool = False
    abstains: bool = False
    expected_cost: float | None = None

    def __str__(self) -> str:
        text = f"{printable(self.source)}: {printable(self.label)} ({self.probability:.1%})"
        if self.is_ood:
            return f"{text}, but it is unlike the training photos"
        others = [name for name in self.prediction_set if name != self.label]
        if others:
            return f"{text}, or {', '.join(map(printable, others))}"
        return text

    def __repr__(self) -> str:
        return f"<Prediction: {self}>"

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclass_json(self)


class Predictions(list[Prediction]):
    """A list of predictions that can become a table.

    Example:
        >>> Predictions([Prediction(
        ...     source="beach.jpg", label="sea", probability=0.75, prediction_set=("sea",),
        ...     probabilities=Probabilities(sea=0.75, street=0.25),
        ... )]).to_rows()[0]["label"]
        'sea'
    """

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice, /) -> Predictions: ...

    def __getitem__(self, index: Any, /) -> Any:
        chosen = super().__getitem__(index)
        return Predictions(chosen) if isinstance(index, slice) else chosen

    def __repr__(self) -> str:
        if len(self) == 1:
            return f"[{self[0]!r}]"
        n_abstaining = sum(prediction.abstains for prediction in self)
        return f"<Predictions: {len(self):,} photos, {n_abstaining:,} abstentions>"

    def __str__(self) -> str:
        return "\n".join(first_lines(self, _MAX_LINES))

    def _repr_html_(self) -> str:
        return html_text(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row per photo: its fields, and "probability_CLASS" for each class.

        The field `expected_cost` is left out if no costs were given.
        """
        rows = []
        for prediction in self:
            row = prediction.to_json()
            del row["probabilities"]
            if row["expected_cost"] is None:
                del row["expected_cost"]
            of_classes = prediction.probabilities.items()
            rows.append(row | {f"probability_{name}": p for name, p in of_classes})
        return rows

    def to_pandas(self) -> Any:
        """The rows of `to_rows` as a ``pandas.DataFrame``.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> list[dict[str, Any]]:
        """The fields of each prediction as plain values."""
        return [prediction.to_json() for prediction in self]

    def to_csv(self) -> str:
        r"""The predictions as a CSV table that is safe to open in a spreadsheet.

        Columns: source, label, probability, prediction_set (joined by ``|``), ood_p_value, is_ood,
        abstains, expected_cost if costs were given, and the probability of each class under its
        name. Control characters in names are escaped. A name that a spreadsheet would take for a
        formula is prefixed with an apostrophe, which makes it text.

        Returns:
            The header and one line per photo, without a final line break; "" for no predictions.

        References:
            OWASP, CSV injection. https://owasp.org/www-community/attacks/CSV_Injection
        """
        if not self:
            return ""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fixed = [
            "source", "label", "probability", "prediction_set", "ood_p_value", "is_ood", "abstains",
        ]  # fmt: skip
        fixed += ["expected_cost"] if self[0].expected_cost is not None else []
        writer.writerow([*fixed, *map(_csv_cell, self[0].probabilities)])
        for prediction in self:
            p_value = prediction.ood_p_value
            writer.writerow(
                [
                    _csv_cell(prediction.source),
                    _csv_cell(prediction.label),
                    f"{prediction.probability:.6f}",
                    _csv_cell("|".join(prediction.prediction_set)),
                    "" if p_value is None else f"{p_value:.4f}",
                    str(prediction.is_ood).lower(),
                    str(prediction.abstains).lower(),
                    *([] if prediction.expected_cost is None else [prediction.expected_cost]),
                    *(f"{p:.6f}" for p in prediction.probabilities.values()),
                ]
            )
        return text.getvalue().removesuffix("\n")


def _csv_cell(value: str) -> str:
    r"""A name as a CSV cell that spreadsheets display and do not evaluate.

    Example:
        >>> _csv_cell("=1+1"), _csv_cell("a\nb"), _csv_cell("sea.jpg")
        ("'=1+1", 'a\\nb', 'sea.jpg')
    """
    shown = printable(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def build_predictions(
    sources: list[str],
    outputs: Outputs,
    class_names: tuple[str, ...],
    calibration: Calibration | None,
    coverage: float | None,
    *,
    costs: npt.NDArray[np.float64] | None = None,
) -> list[Prediction]:
    """Turn the outputs of the inference model into predictions.

    Args:
        sources: n descriptions.
        outputs: for n photos.
        class_names: the names of the columns.
        calibration: for prediction sets and p-values; None if the classifier has none.
        coverage: of the prediction sets; None without a calibration.
        costs: (n_classes, n_classes) of true and predicted classes, from `cost_matrix`; None to
            predict the most probable class.

    Returns:
        One prediction per photo.

    Raises:
        ArgumentError: if `coverage` is not between 0 and 1.
    """
    table = outputs.probabilities
    sets = np.zeros(table.shape, bool)
    sets[np.arange(len(table)), table.argmax(axis=1)] = True
    p_values: list[float | None] = [None] * len(sources)
    if calibration is not None and coverage is not None:
        sets = calibration.prediction_sets(table, coverage)
        p_values = calibration.ood_p_values(outputs).tolist()
    expected = None if costs is None else table.astype(np.float64) @ costs
    margin = 0.0 if costs is None else _EQUAL_COSTS * costs.max()
    predictions = []
    for n, (source, row, members, p_value) in enumerate(
        zip(sources, table, sets, p_values, strict=True)
    ):
        order = np.argsort(-row, kind="stable")
        chosen = int(order[0])
        if expected is not None:  # of classes with equal costs, the most probable one
            ordered = expected[n, order]
            chosen = int(order[(ordered <= ordered.min() + margin).argmax()])
        is_ood = p_value is not None and p_value <= OOD_P_VALUE
        prediction_set = tuple(class_names[k] for k in order if members[k])
        predictions.append(
            Prediction(
                source=source,
                label=class_names[chosen],
                probability=float(row[chosen]),
                probabilities=Probabilities(zip(class_names, map(float, row), strict=True)),
                prediction_set=prediction_set,
                coverage=None if calibration is None else coverage,
                ood_p_value=p_value,
                is_ood=is_ood,
                abstains=is_ood or len(prediction_set) != 1,
                expected_cost=None if expected is None else float(expected[n, chosen]),
            )
        )
    return predictions
