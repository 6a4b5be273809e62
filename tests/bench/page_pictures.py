"""Make the pictures of the pages of scenelearn.app in the docs: `nox -s page_pictures`.

    python -m tests.bench.page_pictures [--out FOLDER]

Renders sample scenes, puts some into wrong folders, fits the bundled backbone on the others, and
saves how headless Chromium shows the app (app.png) and the cleaner (clean.png). A minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

import scenelearn as sl
from tests.bench._common import bench_parser
from tests.helpers.browser import CHROMIUM, open_browser

SIZE = {"width": 1160, "height": 760}


def main() -> None:
    """Serve both pages and save their pictures."""
    parser = bench_parser("page_pictures", __doc__)
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("docs", "assets"))
    out = parser.parse_args().out
    if not CHROMIUM:
        sys.exit("Install Chromium: it makes the pictures.")
    with tempfile.TemporaryDirectory() as name, open_browser() as page:
        folder = sl.sample_scenes(Path(name, "photos"), per_class=40)
        page.driver.set_viewport_size(SIZE)
        fit = sl.fit(sl.split(folder), weights="scenelearn", image_px=96, epochs=0)
        photo = sl.sample_scenes(Path(name, "new"), per_class=1, seed=5) / "sea" / "sea_0000.jpg"
        corrections = Path(name, "corrections")
        with sl.app.serve(fit.classifier, photos=folder, corrections=corrections) as server:
            page.open(server.url)
            page.driver.set_input_files("#photo input[type=file]", str(photo))
            page.driver.wait_for_selector(".evidence li img")
            save(page.driver.screenshot(), out / "app.png", Path(name))
        for label, wrong in (("mountain", "street"), ("sea", "glacier"), ("forest", "buildings")):
            for file in sorted((folder / label).iterdir())[:2]:
                file.rename(folder / wrong / file.name)
        photos = sl.scan(folder)
        features = sl.finetune.extract_features(photos, weights="scenelearn", image_px=96)
        with sl.app.clean(sl.audit(photos, features=features)) as server:
            page.open(server.url)
            page.driver.wait_for_selector("#progress:has-text('decided')")
            page.driver.wait_for_load_state("networkidle")
            save(page.driver.screenshot(), out / "clean.png", Path(name))


def save(content: bytes, file: Path, folder: Path) -> None:
    """Save a screenshot with few colors, which keeps it small."""
    shot = folder / "shot.png"
    shot.write_bytes(content)
    with Image.open(shot) as image:
        image.convert("RGB").quantize(96).save(file, optimize=True)


if __name__ == "__main__":
    main()
