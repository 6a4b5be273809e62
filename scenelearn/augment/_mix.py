"""MixUp and CutMix: two photos in one image, and soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._checks import check_integer, check_number
from scenelearn.augment._apply import check_images
from scenelearn.augment._geometry import compile_on_jax
from scenelearn.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MixParameters:
    """How the photos of a batch are mixed.

    Attributes:
        partner: (n,) int32, the position of the photo that each photo is mixed with.
        lam: (n,) float32 in [0, 1], the weight of the photo itself in a MixUp blend; 1 for CutMix.
        box: (n, 4) float32, left, top, right and bottom of the CutMix box that comes from the
            partner, as fractions of width and height; all 0 for MixUp.
    """

    partner: npt.NDArray[np.int32]
    lam: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.partner)

    def __repr__(self) -> str:
        n_cutmix = int((self.box != 0).any(axis=1).sum())
        return f"<MixParameters: {len(self):,} photos, {n_cutmix:,} with a CutMix box>"


def sample_mix(
    seed: int,
    n: int,
    *,
    epoch: int = 0,
    step: int = 0,
    mixup_alpha: float = 0.2,
    cutmix_alpha: float = 1.0,
) -> MixParameters:
    """Sample how to mix the photos of a batch, as a function of (seed, epoch, step).

    The photos form a random ring, and each is mixed with the next one. If both MixUp and CutMix are
    on, each photo gets one or the other with equal probability.

    Args:
        seed: random seed, at least 0.
        n: number of photos, at least 0.
        epoch: at least 0.
        step: the number of the batch in the epoch, at least 0.
        mixup_alpha: both parameters of the Beta distribution of MixUp's `lam`, at most 100; 0 for
            no MixUp.
        cutmix_alpha: the same for CutMix.

    Returns:
        The parameters for `apply_mix`. Uses NumPy only: no backend is loaded.

    Raises:
        ArgumentError: if a number is out of range, or both alphas are 0.

    Example:
        >>> sample_mix(0, 8, cutmix_alpha=0)
        <MixParameters: 8 photos, 0 with a CutMix box>

    References:
        H. Zhang et al. (2018), mixup: beyond empirical risk minimization. ICLR.
        S. Yun et al. (2019), CutMix: regularization strategy to train strong classifiers with
        localizable features. ICCV.
    """
    for name, value in (("seed", seed), ("n", n), ("epoch", epoch), ("step", step)):
        check_integer(name, value, low=0)
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        check_number(
            name, alpha, low=0, high=100, advice="0.2 is usual for MixUp, 1 for CutMix, 0 is off."
        )
    if mixup_alpha == cutmix_alpha == 0:
        raise ArgumentError(
            "`mixup_alpha` must be above 0 unless `cutmix_alpha` is. Received: mixup_alpha=0, "
            "cutmix_alpha=0. Pass e.g. mixup_alpha=0.2."
        )
    random = np.random.default_rng([seed, epoch, step])
    ring = random.permutation(n)
    partner = np.empty(n, np.int32)
    partner[ring] = np.roll(ring, -1)
    is_mixup = random.random(n) < (0.5 if mixup_alpha and cutmix_alpha else bool(mixup_alpha))
    lam = random.beta(mixup_alpha or 1.0, mixup_alpha or 1.0, n)
    half_side = np.sqrt(1 - random.beta(cutmix_alpha or 1.0, cutmix_alpha or 1.0, n))[:, None] / 2
    center = random.random((n, 2))
    box = np.clip(np.concatenate([center - half_side, center + half_side], axis=1), 0, 1)
    return MixParameters(
        partner=partner,
        lam=np.where(is_mixup, lam, 1).astype(np.float32),
        box=np.where(is_mixup[:, None], 0, box).astype(np.float32),
    )


def apply_mix(
    images: Any, labels: Any, parameters: MixParameters, *, n_classes: int | None = None
) -> tuple[Any, Any]:
    """Mix the photos of a batch with each other.

    Args:
        images: (n, height, width, 3), uint8 or floats.
        labels: (n,) integers in [0, n_classes), or (n, n_classes) floats that are soft labels.
        parameters: from `sample_mix`.
        n_classes: number of classes, required with integer labels.

    Returns:
        The mixed images, of the same shape and dtype, and soft labels, (n, n_classes) float32: the
        weighted mean of both photos' labels. Use them with `keras.losses.CategoricalCrossentropy`
        and `keras.metrics.CategoricalAccuracy`. A CutMix box has the weight of its pixels.

    Raises:
        ArgumentError: if the shapes do not match, a dtype is not supported, a label is out of
            range, or `n_classes` is missing.
        BackendError: if no Keras backend is installed.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((2, 4, 4, 3), np.uint8)
        >>> parameters = MixParameters(
        ...     partner=np.array([1, 0], np.int32), lam=np.full(2, 0.75, np.float32),
        ...     box=np.zeros((2, 4), np.float32),
        ... )
        >>> np.asarray(apply_mix(images, np.array([0, 1]), parameters, n_classes=2)[1]).tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    check_images(images, len(parameters))
    targets = _soft_labels(labels, len(parameters), n_classes)
    tensors = (images, targets, parameters.partner, parameters.lam, parameters.box)
    mixed, soft = compile_on_jax(_mix)(*map(keras().ops.convert_to_tensor, tensors))
    return mixed, soft


def _mix(images: Any, targets: Any, partner: Any, lam: Any, box: Any) -> tuple[Any, Any]:
    ops = keras().ops
    dtype = keras().backend.standardize_dtype(images.dtype)
    h, w = images.shape[1:3]
    y = ops.reshape((ops.arange(h, dtype="float32") + 0.5) / h, (1, -1, 1))
    x = ops.reshape((ops.arange(w, dtype="float32") + 0.5) / w, (1, 1, -1))
    left, top, right, bottom = (box[:, k, None, None] for k in range(4))
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    own_weight = ops.where(inside, 0.0, lam[:, None, None])
    own = ops.cast(images, "float32")
    other = ops.take(own, partner, axis=0)
    weight = own_weight[..., None]
    mixed = ops.where(
        weight == 1, own, ops.where(weight == 0, other, other + weight * (own - other))
    )
    if dtype == "uint8":
        mixed = ops.clip(ops.round(mixed), 0, 255)
    fraction = ops.mean(own_weight, axis=(1, 2))[:, None]
    soft = fraction * targets + (1 - fraction) * ops.take(targets, partner, axis=0)
    return ops.cast(mixed, dtype), soft


def _soft_labels(labels: Any, n: int, n_classes: int | None) -> Any:
    """Labels as (n, n_classes) float32."""
    array = keras().ops.convert_to_numpy(labels)
    is_integer = np.issubdtype(array.dtype, np.integer)
    if array.shape == (n,) and is_integer:
        low, high = int(min(array, default=0)), int(max(array, default=0))
        is_number = isinstance(n_classes, int | np.integer) and not isinstance(n_classes, bool)
        if n_classes is None or not is_number or low < 0 or high >= n_classes:
            raise ArgumentError(
                "`n_classes` must be an integer above every label, and labels at least 0. "
                f"Received: n_classes={n_classes!r}, labels from {low} to {high}. Pass the number "
                "of classes."
            )
        return np.eye(n_classes, dtype=np.float32)[array]
    is_soft = array.ndim == 2 and len(array) == n and not is_integer
    if is_soft and n_classes in (None, array.shape[1]):
        return array.astype(np.float32)
    raise ArgumentError(
        f"`labels` must be ({n},) integers, or ({n}, n_classes) floats. Received: shape "
        f"{array.shape}, dtype {array.dtype}. Pass one label per image."
    )
