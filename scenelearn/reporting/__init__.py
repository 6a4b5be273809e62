"""One page: what a fit reached, where it fails and how to repeat it; or what an audit found."""

from scenelearn.reporting._page import report

__all__ = ["report"]
