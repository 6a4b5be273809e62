"""Two photos in one, and labels that say how much of each: MixUp and CutMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.augment._apply import check_images
from scenelearn.augment._draw import check_whole
from scenelearn.augment._geometry import compiled
from scenelearn.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Which photos of a batch come together, and how.

    Attributes:
        partner: (n,) int32, position of the other photo.
        share: (n,) float32 in [0, 1], how much of the photo itself stays where both are blended; 1
            where a box is cut instead.
        box: (n, 4) float32, left, top, right, bottom of what comes from the partner, as shares of
            width and height; all 0 where both are blended.
    """

    partner: npt.NDArray[np.int32]
    share: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.partner)


def pair(
    seed: int, n: int, *, epoch: int = 0, step: int = 0, mixup: float = 0.2, cutmix: float = 1.0
) -> Pairs:
    """Draw which photos of a batch come together: a function of (seed, epoch, step).

    The photos stand in a random ring, and the partner is the next one. Where both ways are asked
    for, each photo gets one or the other with equal chances.

    Args:
        seed: of the run, at least 0.
        n: photos, at least 0.
        epoch: at least 0.
        step: number of the batch in the epoch, at least 0.
        mixup: both parameters of the Beta distribution from which MixUp's share is drawn, at most
            100; 0 for no MixUp.
        cutmix: the same for CutMix.

    Returns:
        The pairs, for `mix`. NumPy only: no backend is loaded.

    Raises:
        ArgumentError: if a number is out of range, or neither way is asked for.

    Example:
        >>> len(pair(0, 8))
        8

    References:
        H. Zhang et al. (2018), mixup: beyond empirical risk minimization. ICLR.
        S. Yun et al. (2019), CutMix: regularization strategy to train strong classifiers with
        localizable features. ICCV.
    """
    for name, value in (("seed", seed), ("n", n), ("epoch", epoch), ("step", step)):
        check_whole(name, value)
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not 0 <= alpha <= 100 or mixup == cutmix == 0:
            raise ArgumentError(
                f"`{name}` must be a number from 0 to 100, and one of `mixup` and `cutmix` above "
                f"0. Received: {name}={alpha!r}. 0.2 is usual for MixUp, 1 for CutMix."
            )
    random = np.random.default_rng([seed, epoch, step])
    ring = random.permutation(n)
    partner = np.empty(n, np.int32)
    partner[ring] = np.roll(ring, -1)
    blended = random.random(n) < (0.5 if mixup and cutmix else bool(mixup))
    share = random.beta(mixup or 1.0, mixup or 1.0, n)
    side = np.sqrt(1 - random.beta(cutmix or 1.0, cutmix or 1.0, n))[:, None] / 2
    middle = random.random((n, 2))
    box = np.clip(np.concatenate([middle - side, middle + side], axis=1), 0, 1)
    return Pairs(
        partner=partner,
        share=np.where(blended, share, 1).astype(np.float32),
        box=np.where(blended[:, None], 0, box).astype(np.float32),
    )


def mix(images: Any, labels: Any, pairs: Pairs, *, n_classes: int | None = None) -> tuple[Any, Any]:
    """Bring the photos of a batch together in pairs.

    Args:
        images: (n, height, width, 3), uint8 or floats.
        labels: (n,) whole numbers in [0, n_classes), or (n, n_classes) floats that are soft
            already.
        pairs: from `pair`.
        n_classes: needed for whole numbers.

    Returns:
        The mixed images, of the same shape and dtype; and soft labels, (n, n_classes) float32, each
        row with sum 1 if those given have: for `keras.losses.CategoricalCrossentropy` and
        `keras.metrics.CategoricalAccuracy`. A cut box counts by its pixels.

    Raises:
        ArgumentError: if the shapes do not fit together, a dtype is another, a label is out of
            range, or `n_classes` is missing.
        BackendError: if no backend of Keras is installed.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((2, 4, 4, 3), np.uint8)
        >>> halves = Pairs(
        ...     partner=np.array([1, 0], np.int32), share=np.full(2, 0.75, np.float32),
        ...     box=np.zeros((2, 4), np.float32),
        ... )
        >>> np.asarray(mix(images, np.array([0, 1]), halves, n_classes=2)[1]).tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    ops = keras().ops
    check_images(images, len(pairs))
    known = _soft(labels, len(pairs), n_classes)
    given = (
        ops.convert_to_tensor(a) for a in (images, known, pairs.partner, pairs.share, pairs.box)
    )
    mixed, soft = compiled(_mixed)(*given)
    return mixed, soft


def _mixed(images: Any, known: Any, partner: Any, share: Any, box: Any) -> tuple[Any, Any]:
    ops = keras().ops
    dtype = keras().backend.standardize_dtype(images.dtype)
    h, w = images.shape[1:3]
    y = ops.reshape((ops.arange(h, dtype="float32") + 0.5) / h, (1, -1, 1))
    x = ops.reshape((ops.arange(w, dtype="float32") + 0.5) / w, (1, 1, -1))
    left, top, right, bottom = (box[:, k, None, None] for k in range(4))
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    own = ops.where(inside, 0.0, share[:, None, None])
    one = ops.cast(images, "float32")
    other = ops.take(one, partner, axis=0)
    weight = own[..., None]
    mixed = ops.where(
        weight == 1, one, ops.where(weight == 0, other, other + weight * (one - other))
    )
    if dtype == "uint8":
        mixed = ops.clip(ops.round(mixed), 0, 255)
    part = ops.mean(own, axis=(1, 2))[:, None]
    return ops.cast(mixed, dtype), part * known + (1 - part) * ops.take(known, partner, axis=0)


def _soft(labels: Any, n: int, n_classes: int | None) -> Any:
    """Labels as (n, n_classes) float32."""
    given = keras().ops.convert_to_numpy(labels)
    whole = np.issubdtype(given.dtype, np.integer)
    if given.shape == (n,) and whole:
        least, most = int(min(given, default=0)), int(max(given, default=0))
        if type(n_classes) is not int or least < 0 or most >= n_classes:
            raise ArgumentError(
                "`n_classes` must be a whole number above every label, and no label below 0. "
                f"Received: n_classes={n_classes!r}, labels {least} to {most}. Pass the number of "
                "classes."
            )
        return np.eye(n_classes, dtype=np.float32)[given]
    if given.ndim == 2 and len(given) == n and not whole and n_classes in (None, given.shape[1]):
        return given.astype(np.float32)
    raise ArgumentError(
        f"`labels` must be ({n},) whole numbers, or ({n}, n_classes) floats. Received: shape "
        f"{given.shape}, dtype {given.dtype}. Pass one label an image."
    )
