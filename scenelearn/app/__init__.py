"""Pages in a browser on this machine: try a classifier, and clean photos by looking at them."""

from scenelearn.app._cleaner import clean
from scenelearn.app._export import export
from scenelearn.app._page import serve
from scenelearn.app._server import Server

__all__ = ["Server", "clean", "export", "serve"]
