"""Reports as self-contained web pages: of a fit, of an audit, or comparing several fits."""

from scenelearn.reporting._report import report

__all__ = ["report"]
