"""Sample scenes: six classes of rendered scenes to try things without photos."""

from scenelearn.samples._scenes import CLASS_NAMES, sample_scenes

__all__ = ["CLASS_NAMES", "sample_scenes"]
