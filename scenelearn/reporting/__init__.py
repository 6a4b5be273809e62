"""One page that shows what a fit reached, where it fails, and how to repeat it."""

from scenelearn.reporting._page import report

__all__ = ["report"]
