"""The finer points of fine-tuning, each with a default that has proved itself."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scenelearn.errors import ArgumentError

TRAINED = ("coarse", "coarsest", "all", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned, beside its learning rate and the variation of its photos.

    Attributes:
        trained: which layers train. "coarse": those from where all maps are at least 16 times
            smaller than the image; edges and textures carry over as they are, and their gradients
            would take most of the time. "coarsest": those from where they are at least 32 times
            smaller, if there are any. "all"; or "head": none but the last. Random weights train
            all.
        layer_decay: the rate of the first layer that trains, as a share of the last one's, in
            (0, 1]; between them it grows geometrically.
        relative_rates: whether each channel of a kernel below the head has a share of the rate by
            its size: 100 times the root mean square of its weights, divided by the root of their
            number; at least 0.01, at most 1. So a network needs no rate of its own because it is
            wide, or because its BatchNormalization is folded into its kernels. With stored weights
            only.
        label_smoothing: share of each label that is spread over all classes, in [0, 1).
        mixup: both parameters of the Beta distribution for MixUp; 0 for none.
        cutmix: the same for CutMix; with both, each photo gets one or the other.
        average: decay of the running average of the weights that is judged and kept in place of
            the weights, in [0, 1); 0 for none.
        interpolate: whether one of the networks between the solved head's and the fine-tuned one is
            kept: three quarters of the way, half-way or the first itself by the photos a class,
            unless validation photos tell another to be better by more than chance. With stored
            weights only.
        views: how many views each training photo has, which are drawn once and seen in turn; 0 for
            a new one at each epoch. Where views come again, and with `augmentation` "none", the
            maps of the layers that do not train are kept, in scenelearn's cache while the fit goes
            on, instead of computed at each step. Not with MixUp or CutMix, not by several
            processes, and not of networks that hand on several maps at once (NASNet).
        soup: how often fine-tuning starts from the solved head, each time with other views of the
            photos in another order. The mean of the weights that these runs end with takes the
            place of the last ones: a "model soup", which answers as fast as one of them. They share
            the time, or have as many `epochs` each as are asked for. With stored weights only, and
            not with `batch_statistics`.
        mirrored: whether the classifier answers by the mean of what a photo and its mirror image
            have, from its calibration on, wherever it is used: for twice the time of each answer.
        weight_decay: of AdamW, at least 0.
        batch_statistics: whether BatchNormalization normalizes by the batch and moves its stored
            statistics, as in training from scratch. With stored weights only; random ones do.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> Recipe(mixup=0.2, label_smoothing=0.1).to_json()["mixup"]
        0.2

    References:
        Rates by the size of the weights: N. Shazeer, M. Stern (2018), Adafactor: adaptive learning
        rates with sublinear memory cost. ICML. And by the number of inputs: G. Yang et al. (2021),
        Tensor programs V: tuning large neural networks via zero-shot hyperparameter transfer.
        NeurIPS.
        Layer-wise rates: J. Howard, S. Ruder (2018), Universal language model fine-tuning for text
        classification. ACL.
        Label smoothing: C. Szegedy et al. (2016), Rethinking the Inception architecture. CVPR.
        Averaging: B. Polyak, A. Juditsky (1992), Acceleration of stochastic approximation by
        averaging. SIAM J. Control Optim. 30.
        Soups: M. Wortsman et al. (2022), Model soups: averaging weights of multiple fine-tuned
        models improves accuracy without increasing inference time. ICML.
        Interpolation: M. Wortsman et al. (2022), Robust fine-tuning of zero-shot models. CVPR.
        Weight decay: I. Loshchilov, F. Hutter (2019), Decoupled weight decay. ICLR.
    """

    trained: str = "coarse"
    layer_decay: float = 1.0
    relative_rates: bool = True
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    average: float = 0.0
    interpolate: bool = True
    views: int = 0
    soup: int = 1
    mirrored: bool = False
    weight_decay: float = 0.01
    batch_statistics: bool = False

    def __post_init__(self) -> None:
        if self.trained not in TRAINED:
            raise ArgumentError(
                f"`trained` must be one of {', '.join(map(repr, TRAINED))}. "
                f"Received: trained={self.trained!r}. 'coarse' is usual."
            )
        for name in ("relative_rates", "interpolate", "mirrored", "batch_statistics"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(
                    f"`{name}` must be True or False. Received: {name}={getattr(self, name)!r}."
                )
        _between("layer_decay", self.layer_decay, 1e-6, 1.0, "1 gives all layers the same rate.")
        _between("label_smoothing", self.label_smoothing, 0.0, 0.999, "0.1 is usual.")
        _between("average", self.average, 0.0, 0.99999, "0.99 is usual.")
        _between("mixup", self.mixup, 0.0, 100.0, "0.2 is usual.")
        _between("cutmix", self.cutmix, 0.0, 100.0, "1 is usual.")
        whole("views", self.views, 0, "0 varies a photo anew at each epoch.")
        whole("soup", self.soup, 1, "1 starts once; 4 is usual for a soup.")
        _between("weight_decay", self.weight_decay, 0.0, 10.0, "0.01 is usual.")

    def to_json(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


def _between(name: str, value: object, low: float, high: float, advice: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        raise ArgumentError(
            f"`{name}` must be a number from {low:g} to {high:g}. Received: {name}={value!r}. "
            + advice
        )


def whole(name: str, value: object, lowest: int, advice: str) -> None:
    """See that a setting is a whole number of at least `lowest`.

    Raises:
        ArgumentError: if it is not; the message ends with the advice.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ArgumentError(
            f"`{name}` must be a whole number of at least {lowest}. Received: {name}={value!r}. "
            + advice
        )
