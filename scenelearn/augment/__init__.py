"""Variation of training photos: drawn as numbers first, then applied."""

from scenelearn.augment._apply import apply
from scenelearn.augment._policy import Draws, Policy, draw

__all__ = ["Draws", "Policy", "apply", "draw"]
