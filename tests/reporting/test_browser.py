"""The pages in a browser: no console messages, no requests, accessible.

Needs Chromium. For accessibility, SCENELEARN_AXE is the path of axe.min.js (npm package axe-core).
"""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scenelearn.reporting import report
from tests.helpers.results import HOSTILE, make_audit, make_fit, with_errors, with_slices_and_sets

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]
PAGES = ("fit", "audit", "runs")
_OWN = re.compile(r"//[^/]*\b(google|googleapis|gvt1)\.com/")  # Chromium's own requests
_AXE = """
<script>{axe}</script><script>
axe.run().then(found => {{ document.title = JSON.stringify({{
  violations: found.violations.map(v => [v.impact, v.id, v.nodes[0].html.slice(0, 200)]),
  wider: document.documentElement.scrollWidth - window.innerWidth }}); }});
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    fit = with_slices_and_sets(make_fit(folder / "photos", names=HOSTILE))
    hostile = dataclasses.replace(fit, settings=dataclasses.replace(fit.settings, weights="<b>"))
    audit = make_audit(fit, (0, 2), (3, 4))
    runs = {HOSTILE[0]: fit, HOSTILE[1]: hostile, "third": with_errors(fit, 6)}
    return {
        "fit": report(fit, folder / "fit", audit=audit),
        "audit": report(audit, folder / "audit"),
        "runs": report(runs, folder / "runs"),
    }


def browse(page: Path, profile: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--disable-background-networking",
        f"--user-data-dir={profile}", "--virtual-time-budget=20000", *more, "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)


@pytest.mark.parametrize("name", PAGES)
def test_page_logs_nothing_and_requests_nothing(
    pages: dict[str, Path], tmp_path: Path, name: str
) -> None:
    log = tmp_path / "net.json"
    run = browse(pages[name], tmp_path / "profile", f"--log-net-log={log}")
    assert "<main>" in run.stdout
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
    urls = re.findall(r'"url":"([^"]+)"', log.read_text(errors="replace"))
    external = {url for url in urls if url.startswith("http") and not _OWN.search(url)}
    assert external == set()
    assert "alert(" not in re.sub(r"<[^>]*>|&[^;]*;", "", run.stdout.split("<main>")[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(
    pages: dict[str, Path], tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    axe = os.environ.get("SCENELEARN_AXE")
    if not axe:
        pytest.skip("SCENELEARN_AXE is not set")
    source = pages[name].read_text(encoding="utf-8")
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    script = _AXE.format(axe=Path(axe).read_text(encoding="utf-8"))
    copy = tmp_path / "page.html"
    copy.write_text(source.replace("</body>", f"{script}</body>"), encoding="utf-8")
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    run = browse(copy, tmp_path / "profile", f"--window-size={width},900", *dark)
    found = re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)
    assert found
    results = json.loads(html.unescape(found[1]))
    assert [v for v in results["violations"] if v[0] in ("serious", "critical")] == []
    assert results["wider"] <= 0  # nothing overflows
