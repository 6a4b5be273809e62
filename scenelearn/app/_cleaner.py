"""`clean`: a page on which a person decides about the findings of an audit."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import threading
import webbrowser
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from scenelearn._checks import check_bool
from scenelearn.app._cleaning import Cleaning
from scenelearn.app._server import Server, check_port
from scenelearn.data import Audit
from scenelearn.data._decisions import write_decisions
from scenelearn.data._decode import to_preview
from scenelearn.data._files import read_file
from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.errors import ArgumentError, SceneLearnError

_PREVIEW_PX = 800
_MAX_BODY = 10_000  # bytes of a request
_HOST = "127.0.0.1"


def clean(audit: Audit, *, port: int | None = None, open_browser: bool = False) -> Server:
    """Serve a page on which you look at the findings of an audit and decide about each photo.

    Label issues come first, the most certain first; then pictures with conflicting labels, leaks,
    duplicates, and blank, tiny or animated photos. Each photo is kept, relabeled or put into
    quarantine, by mouse or keyboard, and the last decision can be undone.

    Each decision is saved at once in ``scenelearn_decisions.csv`` in the folder of the photos, or
    next to their ZIP file. No photo is moved, changed or deleted. `scan`, and so `split` and `fit`,
    honor the file: they relabel photos and leave out those in quarantine. A later session continues
    from it.

    Only this machine can open the page, with the token in its address. It loads nothing from the
    net.

    Args:
        audit: from `scenelearn.audit`; with ``features=``, label issues are among its findings.
        port: of the address; None for a free one.
        open_browser: whether to open the page in the default browser.

    Returns:
        The server, which runs in the background: ``clean(audit).wait()`` serves until Ctrl-C.

    Raises:
        ArgumentError: if an argument has a wrong type, the port is taken, or the folder of the
            photos is not writable.
        ManifestError: if the file of decisions is invalid.
        DiskError: if the system cannot write it.
    """
    if not isinstance(audit, Audit):
        raise ArgumentError(
            f"`audit` must come from `audit`. Received: {type(audit).__name__}. "
            "Pass sl.audit('photos/')."
        )
    port, open_browser = check_port(port), check_bool("open_browser", open_browser)
    cleaning = Cleaning(audit)
    if not cleaning.file.exists():  # before anything is decided: the folder must be writable
        write_decisions(cleaning.file, ())
    try:
        server = _HTTPServer((_HOST, port or 0), _Handler)
    except OSError as error:
        reason = "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror
        raise ArgumentError(
            f"`port` must be free. Received: port={port}: {reason}. Pass another one, or None."
        ) from None
    server.cleaning, server.token = cleaning, secrets.token_urlsafe(16)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()

    url = f"http://{_HOST}:{server.server_port}/?token={server.token}"
    if open_browser:
        webbrowser.open(url)
    return Server(url, close)


class _HTTPServer(ThreadingHTTPServer):
    allow_reuse_address = os.name != "nt"  # on Windows, it lets two servers share a port
    daemon_threads = True
    cleaning: Cleaning
    token: str


class _Reply(NamedTuple):
    """The answer to a request."""

    status: HTTPStatus
    kind: str
    content: bytes
    headers: dict[str, str]


class _Handler(BaseHTTPRequestHandler):
    """Three pages: ``/``, ``/photo/POSITION`` and, to post JSON to, ``/decide`` and ``/undo``.

    Every request needs the token, as a cookie or in the query; its Host must be this server, so
    that no other site can reach it by a name that resolves to this machine; and a post must come
    from this page.
    """

    server: _HTTPServer
    timeout = 60  # seconds without a byte

    def do_GET(self) -> None:
        """Send the page or a photo."""
        path, _, query = self.path.partition("?")
        if self._is_allowed() and query == f"token={self.server.token}" and path == "/":
            headers = {
                "Location": "/",
                "Set-Cookie": self._cookie() + "; SameSite=Lax; HttpOnly",
            }
            self._send(_Reply(HTTPStatus.SEE_OTHER, "text/plain", b"", headers))
        elif not self._is_allowed() or not self._has_cookie():
            self._send(_error(HTTPStatus.FORBIDDEN, "Open the address that was printed."))
        elif path == "/":
            self._send(_page(self.server.cleaning))
        elif match := re.fullmatch(r"/photo/(\d{1,9})", path):
            self._send(_photo(self.server.cleaning, int(match[1])))
        else:
            self._send(_error(HTTPStatus.NOT_FOUND, "There is no such page."))

    def do_POST(self) -> None:
        """Decide, or undo."""
        length = self.headers.get("Content-Length", "")
        is_own = self.headers.get("Origin") == f"http://{self.headers.get('Host')}"
        if not self._is_allowed() or not self._has_cookie() or not is_own:
            self._send(_error(HTTPStatus.FORBIDDEN, "Only this page may decide."))
        elif not length.isdecimal() or int(length) > _MAX_BODY:
            self._send(_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too much data."))
        else:
            self._send(self._change(self.rfile.read(int(length))))

    def _change(self, body: bytes) -> _Reply:
        cleaning = self.server.cleaning
        try:
            if self.path == "/undo":
                position = cleaning.undo()
            elif self.path == "/decide":
                request = json.loads(body)
                position, label = request["photo"], request.get("label", "")
                if type(label) is int and label >= 0:  # of a class, whose name may be unprintable
                    label = cleaning.class_names[label]
                cleaning.decide(position, request["decision"], label)
            else:
                return _error(HTTPStatus.NOT_FOUND, "There is no such page.")
        except SceneLearnError as error:
            status = (
                HTTPStatus.BAD_REQUEST
                if isinstance(error, ArgumentError)
                else HTTPStatus.INTERNAL_SERVER_ERROR
            )
            return _error(status, str(error))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return _error(HTTPStatus.BAD_REQUEST, f"Not a decision: {error!r:.200}")
        decision = None if position is None else cleaning.decisions().get(position)
        value = {"photo": position, "decision": cleaning.decision_json(decision)}
        return _Reply(HTTPStatus.OK, "application/json", json.dumps(value).encode(), {})

    def _is_allowed(self) -> bool:
        port = self.server.server_port
        return self.headers.get("Host") in (f"{_HOST}:{port}", f"localhost:{port}")

    def _cookie(self) -> str:
        return f"scenelearn-{self.server.server_port}={self.server.token}"

    def _has_cookie(self) -> bool:
        cookies = self.headers.get("Cookie", "").split("; ")
        return any(secrets.compare_digest(c.encode(), self._cookie().encode()) for c in cookies)

    def _send(self, reply: _Reply) -> None:
        self.send_response(reply.status)
        headers = {
            "Content-Type": f"{reply.kind}; charset=utf-8",
            "Content-Length": str(len(reply.content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        } | reply.headers
        for name, value in headers.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # the browser no longer waits
            self.end_headers()
            self.wfile.write(reply.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Log nothing: requests are not news."""


def _page(cleaning: Cleaning) -> _Reply:
    from markupsafe import Markup

    from scenelearn.reporting._render import render  # here, since Jinja takes time to import

    nonce = secrets.token_urlsafe(16)
    data = Markup(json.dumps(cleaning.to_json()).replace("<", "\\u003c"))
    text = render("clean.html", data=data, nonce=nonce, file=cleaning.file, n=len(cleaning.order))
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src "
        "'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy}
    return _Reply(HTTPStatus.OK, "text/html", text.encode("utf-8"), headers)


def _photo(cleaning: Cleaning, position: int) -> _Reply:
    if position >= len(cleaning.photos):
        return _error(HTTPStatus.NOT_FOUND, "There is no such photo.")
    content = io.BytesIO()
    try:
        original = read_file(cleaning.folder, cleaning.photos[position].path)
        to_preview(original, _PREVIEW_PX).save(content, "JPEG", quality=88)
    except (OSError, ValueError, RejectedPhotoError) as error:
        return _error(HTTPStatus.NOT_FOUND, f"The photo cannot be shown: {error}")
    headers = {"Cache-Control": "private, max-age=3600"}  # the address has its version
    return _Reply(HTTPStatus.OK, "image/jpeg", content.getvalue(), headers)


def _error(status: HTTPStatus, text: str) -> _Reply:
    return _Reply(status, "text/plain", text.encode("utf-8", "backslashreplace"), {})
