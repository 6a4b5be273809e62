"""Render the templates. Whatever they show from the disk is escaped, and unprintable parts shown.

In ``.html`` and ``.svg`` templates a value is escaped for HTML, in ``.md`` templates for Markdown.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from scenelearn._display import printable
from scenelearn.classify._calibration import DEFAULT_COVERAGE
from scenelearn.metrics import Interval
from scenelearn.reporting import _analysis as analysis

NONE = "–"  # stands for an undefined number
_NBSP = "\N{NO-BREAK SPACE}"
# Markup of HTML and Markdown anywhere in a line; what is markup only at the edge of a word or at
# the start of a line; and what some renderers turn into links.
_MARKUP = re.compile(
    r"""[&<>`*\[\]{}#|~$^\\@]|(?<!\w)_|_(?!\w)|^[-+= ]|^\d+[.)]\s|:/|mailto:|xmpp:|www\.""",
    re.IGNORECASE,
)


def render(template: str, **context: Any) -> str:
    """The text of a template of this package, with its context."""
    return _environment(template.endswith(".md")).get_template(template).render(context)


@functools.cache
def _environment(markdown: bool) -> Environment:
    escape_value = _escape_markdown if markdown else _escape_html
    environment = Environment(
        loader=PackageLoader("scenelearn.reporting"),
        autoescape=True,
        finalize=escape_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formats = (count, duration, number, percent, percent_range, statements, with_interval)
    environment.filters |= {function.__name__: function for function in formats} | {
        "aria": lambda text: _line(text.replace(_NBSP, " ")),
        "cell": lambda value: Markup(escape_value(value).replace("|", r"\|")),
        "json": _yaml_string if markdown else json.dumps,
        "line": _line,
        "log": math.log,
        "name": escape_value if markdown else _isolate,
        "path": _path,
        "source_hash": _source_hash,
        "thousands": lambda n: f"{n:,}",
    }
    environment.globals |= {"analysis": analysis, "target_coverage": DEFAULT_COVERAGE}
    return environment


# Numbers


def number(value: float, digits: int = 3) -> str:
    """A number with a fixed number of decimals; a dash if it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def percent(fraction: float) -> str:
    """A fraction as ``90.3%``; a dash if it is not finite."""
    return f"{100 * fraction:.1f}%" if math.isfinite(fraction) else NONE


def percent_range(interval: Interval) -> str:
    """The ends of an interval as ``86.4 to 93.2%``."""
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}%"


def with_interval(interval: Interval) -> str:
    """A fraction with its interval, as ``90.3% (86.4 to 93.2%)``."""
    return f"{percent(interval.value)} ({percent_range(interval)})" if interval.n else "none"


def count(n: int, singular: str, plural: str = "") -> Markup:
    """A number of things: ``1 photo``, ``1,200 photos``, with a no-break space."""
    return Markup("{:,}{}{}").format(n, _NBSP, singular if n == 1 else plural or singular + "s")


def duration(seconds: float) -> Markup:
    """``4.2 s``, ``3 min 07 s`` or ``1 h 05 min``, with no-break spaces."""
    if not math.isfinite(seconds):
        return Markup(NONE)
    if seconds < 59.95:
        text = f"{seconds:.1f} s"
    elif (rounded := round(seconds)) < 3600:
        text = f"{rounded // 60} min {rounded % 60:02d} s"
    else:
        rounded = round(seconds / 60)
        text = f"{rounded // 60} h {rounded % 60:02d} min"
    return Markup(text.replace(" ", _NBSP))


# Text


def statements(text: str) -> list[str]:
    """The paragraphs of a text, each on one line."""
    paragraphs = re.split(r"\n\s*\n", text)
    return [_line(type(text)(paragraph)) for paragraph in paragraphs if paragraph.strip()]


def _line(text: str) -> str:
    """The text on one line, with single spaces; no-break spaces stay."""
    return type(text)(re.sub(r"[ \n]+", " ", text).strip(" "))


def _escape_html(value: object) -> Markup:
    r"""Escape a value for HTML text, quoted attributes and SVG.

    Unprintable characters (line breaks, other controls, writing-direction overrides, undecodable
    bytes) become their Python escapes, e.g. ``\n``.

    Example:
        >>> _escape_html("<b>\n'")
        Markup('&lt;b&gt;\\n&#39;')
    """
    return value if isinstance(value, Markup) else escape(printable(str(value)))


def _escape_markdown(value: object) -> Markup:
    """Escape a value for Markdown: one line, and as code if it contains markup.

    Example:
        >>> _escape_markdown("sea"), _escape_markdown("*sea* <b>")
        (Markup('sea'), Markup('`*sea* <b>`'))
    """
    if isinstance(value, Markup):
        return value
    text = printable(str(value))
    if not _MARKUP.search(text):
        return Markup(text)
    fence = code_fence(text, 1)
    space = " " if "`" in (text[0], text[-1]) else ""
    return Markup(f"{fence}{space}{text}{space}{fence}")


def code_fence(code: str, least: int) -> Markup:
    """At least this many backticks, and more than `code` has in a row."""
    return Markup("`") * max([least, *(len(run) + 1 for run in re.findall("`+", code))])


def _yaml_string(value: str) -> Markup:
    """A name as a quoted YAML string."""
    return Markup(json.dumps(printable(value), ensure_ascii=False))


def _isolate(name: object) -> Markup:
    """A name within other text, isolated from the text's direction."""
    return Markup(f"<bdi>{_escape_html(name)}</bdi>")


def _path(path: str) -> Markup:
    """A path as code that may wrap after each folder."""
    text = str(_escape_html(path)).replace("/", "/<wbr>")
    return Markup(f'<code dir="ltr">{text}</code>')


def _source_hash(content: str) -> Markup:
    """The source expression of an inline style or script in the content security policy."""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
    return Markup(f"'sha256-{digest}'")
