"""What MkDocs does to this site beside its plugins.

- The results of executed pages are cached by a hash of all that they depend on, so a changed
  library never shows an old answer.
- Executed pages lose the half megabyte of style and the foreign scripts that nbconvert inlines;
  their links and references are resolved and checked like those of any other page.
- Pictures inside executed pages become files, so that a page loads fast.
- Formulas become MathML: no script is loaded for them.
- The picture of the first page is drawn by the library, and the help texts come from it.
- The finished site is checked (`_checks.py`): a dead link or a picture without a text fails it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import logging
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import _checks
from bs4 import BeautifulSoup, Tag
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.scenelearn")  # a warning fails the strict build

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "mkdocs-jupyter"
PICTURE = "assets/scenes.jpg"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the executed pages a cache folder of their own for each state of the library."""
    folder = CACHE / _fingerprint()
    for stale in CACHE.glob("*"):
        if stale != folder:
            shutil.rmtree(stale)
    config.plugins["mkdocs-jupyter"].config["cache_dir"] = str(folder)
    return config


def _fingerprint() -> str:
    """A hash of the package, the results and every installed version."""
    digest = hashlib.sha256()
    sources = [*ROOT.glob("scenelearn/**/*.py"), *ROOT.glob("docs/results/*.json")]
    for path in sorted(sources):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    versions = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    digest.update("\n".join(sorted(versions)).encode())
    return digest.hexdigest()[:32]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the picture of the first page: sample scenes, drawn now."""
    files.append(File.generated(config, PICTURE, content=_contact_sheet(rows=3)))
    return files


def _contact_sheet(rows: int) -> bytes:
    from PIL import Image

    import scenelearn as sl

    with tempfile.TemporaryDirectory() as folder:
        photos = sl.scan(sl.sample_scenes(folder, per_class=rows, seed=0))
        sheet = Image.new("RGB", (156 * photos.n_classes - 6, 156 * rows - 6), "white")
        for i, path in enumerate(photos.paths):
            column, row = divmod(i, rows)
            with Image.open(photos.folder / path) as photo:
                sheet.paste(photo, (156 * column, 156 * row))
    buffer = io.BytesIO()
    sheet.save(buffer, "jpeg", quality=80)
    return buffer.getvalue()


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put help texts, and the reference of single names, where a page asks for them."""
    markdown = re.sub(r"^<!-- help: ?(\w*) -->$", _help, markdown, flags=re.MULTILINE)
    names = r"^<!-- names of ([\w.]+): ([\w\s]+) -->$"
    return re.sub(names, _described, markdown, flags=re.MULTILINE)


def _described(match: re.Match[str]) -> str:
    return "\n\n".join(
        f"::: {match[1]}.{name}\n    options:\n      show_root_heading: true\n"
        "      show_root_toc_entry: true"
        for name in match[2].split()
    )


def _help(match: re.Match[str]) -> str:
    command = [sys.executable, "-m", "scenelearn", *match[1].split(), "--help"]
    env = {**os.environ, "COLUMNS": "78", "NO_COLOR": "1"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return f"```text\n{run.stdout.rstrip()}\n```"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rebuild an executed page from its cells; leave every other page as it is."""
    start = html.find('<div class="jupyter-wrapper">')
    if start < 0:
        return html
    soup = BeautifulSoup(html[start:], "html.parser")
    rebuilt = "\n".join(_cell(cell) for cell in soup.select(".jp-Notebook > .jp-Cell"))
    rebuilt = re.sub(
        r"\[([^\]\[]+)\]\[(scenelearn[\w.]*)\]", r'<autoref identifier="\2">\1</autoref>', rebuilt
    )
    rebuilt = re.sub(r"\$\$(.+?)\$\$", _formula, rebuilt)
    soup = BeautifulSoup(rebuilt, "html.parser")
    _resolve_links(soup, page, files)
    _move_pictures_out(soup, page, config, files)
    return str(soup)


def _formula(match: re.Match[str]) -> str:
    """A formula of a derivation as MathML, which browsers draw by themselves."""
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
        for shown in prose.select(".highlight > pre"):  # a fence: like that of any other page
            inside = shown.decode_contents().strip()
            shown.clear()
            shown.append(BeautifulSoup(f"<code>{inside}</code>", "html.parser"))
        return prose.decode_contents()
    code = cell.select_one(".jp-InputArea pre").decode_contents().strip()
    parts = [f'<div class="highlight"><pre><code>{code}</code></pre></div>']
    if "celltag_folded" in cell["class"]:  # code that the page is not about
        parts[0] = f"<details><summary>The code behind this</summary>{parts[0]}</details>"
    outputs: list[Tag] = []
    printed: Tag | None = None  # what a cell prints comes in pieces, as the kernel sends it
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
        shown = output.decode_contents().strip()  # what may scroll can be reached by keyboard
        parts.append(f'<div class="cell-output" tabindex="0">{shown}</div>')
    return "\n".join(parts)


def _move_pictures_out(soup: BeautifulSoup, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Each picture becomes a file named by its content, with its size said beforehand."""
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
            log.warning("%s: a link to %s, which is not there.", page.file.src_uri, url.path)
        else:
            fragment = f"#{url.fragment}" if url.fragment else ""
            tag[attribute] = target.url_relative_to(page.file) + fragment


def on_post_page(output: str, **_: object) -> str:
    """Name the search dialog for those who hear the page; leave out indentation outside of code."""
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    parts = re.split(r"(<pre\b.*?</pre>)", output, flags=re.DOTALL)
    parts[::2] = [re.sub(r"\s*\n\s*", "\n", part) for part in parts[::2]]
    return "".join(parts)


def on_post_build(config: MkDocsConfig) -> None:
    """Look at what was built; each finding is a warning, which fails the strict build."""
    site = Path(config.site_dir)
    packages = {path.parent.name for path in ROOT.glob("scenelearn/[!_]*/__init__.py")}
    rooms = ["errors", *sorted(packages - {"cli"})]  # whose page has commands, not functions
    pages = _checks.read_all(site)
    for finding in (*_checks.check(site, pages), *_checks.undocumented(pages, rooms)):
        log.warning("%s", finding)
