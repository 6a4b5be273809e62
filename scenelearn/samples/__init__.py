"""Sample scenes: six drawn classes that stand in for photos wherever none are at hand."""

from scenelearn.samples._write import CLASS_NAMES, sample_scenes

__all__ = ["CLASS_NAMES", "sample_scenes"]
