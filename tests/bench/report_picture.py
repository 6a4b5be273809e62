"""Make the picture of a report for the README and the home page: `nox -s report_picture`.

    python -m tests.bench.report_picture [--out FILE]

Runs `scenelearn fit` on the sample scenes and saves the top of its report, as headless Chromium
shows it. Two minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.bench._common import bench_parser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = "980,1119"  # pixels


def main() -> None:
    """Fit, open the report, and save its picture."""
    parser = bench_parser("report_picture", __doc__)
    picture_file = Path("docs", "assets", "report.png")
    parser.add_argument("--out", metavar="FILE", type=Path, default=picture_file)
    out = parser.parse_args().out
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("Install Chromium: it makes the picture.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "scenelearn", "fit", "--out", "run"], cwd=folder, check=True
        )
        page, picture = folder / "run" / "report" / "index.html", folder / "report.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}"]
        shot = [f"--window-size={SIZE}", f"--screenshot={picture}", page.as_uri()]
        subprocess.run([browser, *options, *shot], check=True, capture_output=True)
        with Image.open(picture) as image:
            image.convert("RGB").quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    main()
