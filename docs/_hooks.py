"""MkDocs hooks of this site.

- Outputs of executed pages are cached under a hash of everything that they depend on, so a page
  never shows the output of an older library.
- Executed pages lose the half megabyte of styles and the external scripts that nbconvert adds.
  Their links and references are resolved and checked like those of other pages.
- Pictures in executed pages become files, so pages load fast. Reports that a page writes are
  published with the site.
- Formulas become MathML, which needs no script.
- Executed pages run two at a time, while the others are built. They share the sample scenes that
  they render (`_kernel.py`). Each can be downloaded as a notebook.
- A cell tagged "answer" becomes a box at the top of its page. The three pages of answers also form
  one page to print.
- Numbers, pictures, help texts and tables of results are made at build from the library and from
  docs/results.
- Pages are found by the words of the field, also where they use others (`extra.keywords`).
- The built site is checked (`_checks.py`). A dead link or a picture without alternative text fails
  the build.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import io
import logging
import os
import posixpath
import re
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

log = logging.getLogger("mkdocs.hooks.scenelearn")  # a warning fails the strict build
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in executed pages

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from docs import _checks, _figures, _measured, _notebooks, _pictures
from scenelearn import cli

CARD = "assets/card.jpg"
CACHE = ROOT / ".cache" / "mkdocs-jupyter"
_executions: dict[str, Future[None]] = {}  # by page


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Use a separate cache folder for each state of the library."""
    folder = CACHE / _fingerprint()
    for stale in CACHE.glob("*"):
        if stale != folder:
            shutil.rmtree(stale)
    config.plugins["mkdocs-jupyter"].config["cache_dir"] = str(folder)
    os.environ["SCENELEARN_GALLERY"] = str(folder / "gallery")  # for gallery/reports.py
    os.environ |= {"COLUMNS": "78", "NO_COLOR": "1"}  # of help texts
    os.environ["SCENELEARN_SCENES"] = str(folder / "scenes")  # for _kernel.py
    os.environ["IPYTHONDIR"] = str(folder / "ipython")  # not that of the user
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "docs" / "_kernel.py", startup)
    return config


def _fingerprint() -> str:
    """Hash the package, the results and the versions of all installed packages."""
    digest = hashlib.sha256()
    sources = [*ROOT.glob("scenelearn/**/*.py"), *ROOT.glob("docs/results/*.json")]
    sources += ROOT.glob("scenelearn/**/templates/*")
    sources += [ROOT / "docs" / name for name in ("_figures.py", "_measured.py")]  # imported
    for path in sorted(sources):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    versions = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    digest.update("\n".join(sorted(versions)).encode())
    return digest.hexdigest()[:32]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pictures, notebooks and tables that are made at build."""
    sheet = _pictures.contact_sheet(rows=3)
    card = _pictures.social_card(config.site_name, config.site_description, sheet)
    made: dict[str, bytes | str] = {
        "assets/scenes.jpg": _pictures.encoded(sheet, "jpeg"),
        "assets/icon.png": _pictures.encoded(_pictures.icon(64), "png"),
        CARD: _pictures.encoded(card, "jpeg"),
    }
    for file in files:
        if file.src_uri.endswith(".py") and not file.inclusion.is_excluded():
            name = file.src_uri.removesuffix(".py") + ".ipynb"
            made[name] = _notebooks.downloadable(Path(file.abs_src_path))
    made |= {f"results/{name}.csv": text for name, (_, _, text) in _measured.tables().items()}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_nav(_: object, config: MkDocsConfig, files: Files) -> None:
    """Start to execute pages that are not in the cache; meanwhile, the others are built."""
    plugin = config.plugins["mkdocs-jupyter"]

    def execute(page: Page) -> None:
        start = time.monotonic()
        plugin.on_pre_page(page, config=config, files=files)
        page.render(config, files)  # writes the cache
        log.info("%s: %.0f s", page.file.src_uri, time.monotonic() - start)

    executed = [file for file in files.documentation_pages() if plugin.should_include(file)]
    pool = ThreadPoolExecutor(max_workers=2)
    for file in sorted(executed, key=_is_quick):
        files.remove(file)
        files.append(file)  # behind the pages that are only text
        _executions[file.src_uri] = pool.submit(execute, file.page)
    pool.shutdown(wait=False)


def _is_quick(file: File) -> bool:
    """Whether a page trains nothing; these come last, to fill the time of the others."""
    text = Path(file.abs_src_path).read_text(encoding="utf-8")
    return not re.search(r"^fit = sl\.fit\(", text, flags=re.MULTILINE)


def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> Page:
    """Wait until a page is executed, and publish the reports that it wrote."""
    name = page.file.src_uri
    if name in _executions:
        _executions.pop(name).result()
    if name == "gallery/reports.py":
        for report in sorted(Path(os.environ["SCENELEARN_GALLERY"]).glob("*/index.html")):
            uri = f"gallery/{report.parent.name}/index.html"
            files.append(File.generated(config, uri, content=report.read_text(encoding="utf-8")))
    return page


def on_build_error(**_: object) -> None:
    """Execute no more pages."""
    for execution in _executions.values():
        execution.cancel()


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace placeholders: measured numbers, results, help texts, names of the API reference."""
    number = r"<!-- measured: ([\w ]+) -->"
    if re.search(number, markdown):
        numbers = _measured.numbers()
        markdown = re.sub(number, lambda match: numbers[match[1]], markdown)
    figure = r"^<!-- figure: (\w+) -->$"
    markdown = re.sub(
        figure, lambda match: _figures.FIGURES[match[1]](), markdown, flags=re.MULTILINE
    )
    markdown = re.sub(r"^<!-- results -->$", _results, markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^<!-- help: ?(\w*) -->$", _help, markdown, flags=re.MULTILINE)
    names = r"^<!-- names of ([\w.]+): ([\w\s]+) -->$"
    return re.sub(names, _name_references, markdown, flags=re.MULTILINE)


def _results(_: re.Match[str]) -> str:
    lines = ["| Table | Rows | Contents | Written by |", "|---|---|---|---|"]
    for name, (command, n_rows, _) in _measured.tables().items():
        links = f"[CSV](../results/{name}.csv), [JSON](../results/{name}.json)"
        lines.append(f"| {name} | {n_rows} | {links} | `{command}` |")
    return "\n".join(lines)


def _name_references(match: re.Match[str]) -> str:
    return "\n\n".join(
        f"::: {match[1]}.{name}\n    options:\n      show_root_heading: true\n"
        "      show_root_toc_entry: true"
        for name in match[2].split()
    )


def _help(match: re.Match[str]) -> str:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            cli.parser().parse_args([*match[1].split(), "--help"])
    except SystemExit as end:
        if end.code:
            raise
    return f"```text\n{printed.getvalue().rstrip()}\n```"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rebuild an executed page from its cells, and add the keywords of the page."""
    words = config.extra["keywords"].get(page.file.src_uri, "")
    page.meta["tags"] = words.split(", ") if words else []  # the search ranks these first
    start = html.find('<div class="jupyter-wrapper">')
    if start < 0:
        return html
    soup = BeautifulSoup(html[start:], "html.parser")
    first, *cells = soup.select(".jp-Notebook > .jp-Cell")
    cells.sort(key=lambda cell: "celltag_answer" not in cell["class"])
    rebuilt = "\n".join([_download(page), *map(_cell, [first, *cells])])
    rebuilt = re.sub(
        r"\[([^\]\[]+)\]\[(scenelearn[\w.]*)\]", r'<autoref identifier="\2">\1</autoref>', rebuilt
    )
    rebuilt = re.sub(r"\$\$(.+?)\$\$", _formula, rebuilt)
    soup = BeautifulSoup(rebuilt, "html.parser")
    _resolve_links(soup, page, files)
    _move_pictures_out(soup, page, config, files)
    return str(soup)


def _download(page: Page) -> str:
    name = posixpath.basename(page.file.src_uri).removesuffix(".py") + ".ipynb"
    return f'<p class="download"><a href="{name}" download>Download as a notebook</a></p>'


def _formula(match: re.Match[str]) -> str:
    """Convert a formula of a derivation to MathML, which browsers display natively."""
    parts = []
    for text, number, sign in re.findall(
        r"\\text\{([^}]*)\}|(\d+(?:\{,\}\d+)*)|(\\cdot|[^\s\d])", match[1]
    ):
        if text:
            parts.append("<mtext>" + text.replace(" ", "\u00a0") + "</mtext>")
        elif number:
            parts.append(f"<mn>{number.replace('{,}', ',')}</mn>")
        else:
            parts.append(f"<mo>{'·' if sign.startswith(chr(92)) else sign}</mo>")
    return f'<math display="block"><mrow>{"".join(parts)}</mrow></math>'


def _cell(cell: Tag) -> str:
    if "jp-MarkdownCell" in cell["class"]:
        prose = cell.select_one(".jp-RenderedMarkdown")
        for anchor in prose.select("a.anchor-link"):
            anchor["class"] = "headerlink"
        for block in prose.select(".highlight > pre"):  # fenced code, as on other pages
            inside = block.decode_contents().strip()
            block.clear()
            block.append(BeautifulSoup(f"<code>{inside}</code>", "html.parser"))
        return prose.decode_contents()
    code = cell.select_one(".jp-InputArea pre").decode_contents().strip()
    source = f'<div class="highlight"><pre><code>{code}</code></pre></div>'
    is_answer = "celltag_answer" in cell["class"]
    is_folded = is_answer or "celltag_folded" in cell["class"]  # code that the page is not about
    if is_folded:
        source = f"<details><summary>Show code</summary>{source}</details>"
    parts: list[str] = []
    outputs: list[Tag] = []
    printed: Tag | None = None  # the kernel sends printed text in pieces
    for output in cell.select(".jp-OutputArea-output"):
        kind = output.get("data-mime-type")
        if kind == "application/vnd.jupyter.stderr":
            continue  # progress bars
        if kind == "text/plain" and "jp-OutputArea-executeResult" not in output["class"]:
            if printed is not None:
                printed.extend(output.pre.contents)
                continue
            printed = output.pre
        else:
            printed = None
        outputs.append(output)
    for output in outputs:
        for anchor in output.select("a.anchor-link"):
            anchor.decompose()
        content = output.decode_contents().strip()
        # Scrollable elements must be reachable by keyboard.
        parts.append(f'<div class="cell-output" tabindex="0">{content}</div>')
    if is_answer:
        answer = "\n".join(parts).replace('class="cell-output"', 'class="answer-output"')
        title = '<p class="admonition-title">Answer</p>'
        return f'<div class="admonition success answer">{title}{answer}</div>{source}'
    return "\n".join([*parts, source] if is_folded else [source, *parts])


def _move_pictures_out(soup: BeautifulSoup, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Move each picture to a file named by its content, and set its size."""
    from PIL import Image

    for image in soup.select('img[src^="data:image/"]'):
        kind, _, text = image["src"].removeprefix("data:image/").partition(";base64,")
        if kind not in ("jpeg", "png", "webp"):
            continue
        content = base64.b64decode(text)
        name = f"assets/made/{hashlib.sha256(content).hexdigest()[:16]}.{kind}"
        file = files.get_file_from_path(name)
        if file is None:
            file = File.generated(config, name, content=content)
            files.append(file)
        with Image.open(io.BytesIO(content)) as opened:
            image["width"], image["height"] = map(str, opened.size)
        image["src"] = file.url_relative_to(page.file)


def _resolve_links(soup: BeautifulSoup, page: Page, files: Files) -> None:
    for tag, attribute in [
        *((tag, "href") for tag in soup.select("a[href]")),
        *((tag, "src") for tag in soup.select("img[src]")),
    ]:
        url = urlsplit(tag[attribute])
        if url.scheme or url.netloc or not url.path:
            continue
        folder = posixpath.dirname(page.file.src_uri)
        target = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, url.path)))
        if target is None:
            log.warning("%s: links to %s, which does not exist.", page.file.src_uri, url.path)
        else:
            fragment = f"#{url.fragment}" if url.fragment else ""
            tag[attribute] = target.url_relative_to(page.file) + fragment


def on_env(_: object, files: Files, **__: object) -> None:
    """Put the contents of the pages of answers on the page to print."""
    parts = []
    for title in ("recurrent", "cnn", "transfer_learning"):
        page = files.get_file_from_path(f"answers/{title}.py").page
        soup = BeautifulSoup(page.content, "html.parser")
        for tag in soup.select(".headerlink, .download, details:has(> .highlight)"):
            tag.decompose()
        for tag in soup.find_all(id=True):
            tag["id"] = f"{title}-{tag['id']}"
        for tag in soup.select('a[href^="#"]'):
            tag["href"] = f"#{title}-{tag['href'][1:]}"
        for tag in soup.find_all(["h1", "h2", "h3"]):
            tag.name = f"h{int(tag.name[1]) + 1}"
        parts.append(f'<section class="sheet">{soup}</section>')
    page = files.get_file_from_path("answers/all.md").page
    page.content = page.content.replace("<!-- answers -->", "".join(parts))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Label the search dialog and headings for screen readers; add the social card; unindent."""
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    heading = '<nav class="md-nav" aria-label="'  # which may be that of a section of the site
    output = output.replace(heading, f"{heading}On this page: ")
    card = config.site_url + CARD if config.site_url else get_relative_url(CARD, page.url)
    texts = {"title": page.title, "description": config.site_description, "image": card}
    tags = (f'<meta property="og:{name}" content="{escape(texts[name])}">' for name in texts)
    output = output.replace("</head>", "".join(tags) + "</head>", 1)
    parts = re.split(r"(<pre\b.*?</pre>)", output, flags=re.DOTALL)
    parts[::2] = [re.sub(r"\s*\n\s*", "\n", part) for part in parts[::2]]
    return "".join(parts)


def on_post_build(config: MkDocsConfig) -> None:
    """Check the built site. Each problem is a warning, which fails the strict build."""
    site = Path(config.site_dir)
    packages = {path.parent.name for path in ROOT.glob("scenelearn/[!_]*/__init__.py")}
    documented = ["errors", *sorted(packages - {"cli"})]  # cli has commands, not functions
    pages = _checks.parse_site(site)
    for problem in (*_checks.check(site, pages), *_checks.undocumented(pages, documented)):
        log.warning("%s", problem)
