"""Pages for people, in a browser on this machine: try a classifier, and export such a page."""

from scenelearn.app._export import export
from scenelearn.app._page import serve
from scenelearn.app._server import Server

__all__ = ["Server", "export", "serve"]
