"""What every page has around its parts: its style, and a policy that lets nothing be fetched."""

from __future__ import annotations

import base64
import hashlib

from scenelearn.reporting._style import STYLE


def document(title: str, body: str, script: str = "") -> str:
    """A whole page that needs no other file.

    Args:
        title: HTML.
        body: HTML, from ``<main>`` on.
        script: JavaScript that the page may run; none but this one is allowed to.

    Returns:
        The page.
    """
    scripts = f"script-src {_hashed(script)}; " if script else ""
    policy = (
        f"default-src 'none'; style-src {_hashed(STYLE)}; {scripts}img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def _hashed(content: str) -> str:
    """The source expression by which a policy names one inline style or script."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
