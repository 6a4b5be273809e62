"""What trains, and on what: the whole network on photos, or its upper part on kept maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from scenelearn._devices import process
from scenelearn.augment import policy as policy_of
from scenelearn.finetune import _network
from scenelearn.finetune._features import Sides
from scenelearn.finetune._maps import Maps, as_pixels, mapped
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._vary import Variation, varied


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What trains, and on what.

    Attributes:
        model: from raw pixels to logits; or from the maps of the layers that do not train.
        sides: the photos, those that validate as the model takes them.
        variation: how training photos are varied and mixed.
        maps: where those maps are kept; None if the model is the whole network.
    """

    model: Any
    sides: Sides
    variation: Variation
    maps: Maps | None = None

    def batches(self, epoch: int, steps: range) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The batches of some steps of an epoch, as the model takes them: see `_vary.varied`."""
        train, variation = self.sides.train, self.variation
        if self.maps is None:
            return varied(train, variation, epoch=epoch, steps=steps)
        return mapped(train, self.maps, variation, epoch=epoch, steps=steps)

    @property
    def n_new_views(self) -> int:
        """How many views of the training photos have maps still to be computed and kept."""
        return 0 if self.maps is None else self.maps.n_new_views(self.sides.train.indices)


def whole_learner(to_logits: Any, sides: Sides, settings: FitSettings) -> Learner:
    """The whole network, from photos.

    Args:
        to_logits: from raw pixels to logits.
        sides: the photos.
        settings: of the fit.
    """
    variation = Variation(
        policy=policy_of(settings.augmentation),
        recipe=settings.recipe,
        n_classes=to_logits.output_shape[-1],
    )
    return Learner(model=to_logits, sides=sides, variation=variation)


def learner_of(features: Any, to_logits: Any, sides: Sides, settings: FitSettings) -> Learner:
    """What trains by the settings: the layers are frozen, or not, and it is to be compiled.

    Where each photo has so few views that they may come again, and much does not train, that is the
    part of the network above. Whether there is room for maps changes nothing in it, so that a fit
    that goes on does so in the same way. Photos that are mixed have no maps of their own, and
    several processes do without.

    Args:
        features: from `backbones.build`.
        to_logits: the same with its head.
        sides: the photos.
        settings: of the fit.
    """
    learner = whole_learner(to_logits, sides, settings)
    if settings.weights is None:
        return learner
    recipe, n_views = settings.recipe, learner.variation.n_views
    _network.choose_trained(features, settings.image_px, recipe.trained)
    if not n_views or recipe.mixup or recipe.cutmix or process()[1] > 1:
        return learner
    parts = _network.parted(features, to_logits)
    if parts is None:
        return learner
    below, above = parts
    n_views = min(n_views, settings.n_runs * settings.most_epochs + 1)  # steps are timed on view 0
    validation = sides.validation
    maps = Maps(
        below,
        n_views=n_views,
        n_photos=len(validation.labels),
        n_rows=n_views * sides.train.n_photos + validation.n_photos,
        batch_size=settings.batch_size,
    )
    seen = as_pixels(maps, validation.pixels)
    sides = replace(sides, validation=replace(validation, pixels=seen))
    return replace(learner, model=above, sides=sides, maps=maps)
