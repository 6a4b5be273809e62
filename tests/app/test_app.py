"""The page to try a classifier: what it says, corrections, exports; and in a browser."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn import cli
from scenelearn.app._corrections import save_correction
from scenelearn.app._page import to_html, to_table, verdict
from scenelearn.app._server import Server
from scenelearn.classify import Classifier, Prediction
from scenelearn.classify._predictions import Probabilities
from scenelearn.finetune import FitResult
from tests.helpers.browser import Page, open_browser
from tests.helpers.systems import needs_posix


@pytest.fixture(scope="module")
def bundle(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted.save(tmp_path_factory.mktemp("bundle") / "scenes.keras")


def first_photo(scenes: Path, label: str) -> Path:
    return sorted((scenes / label).iterdir())[0]


@pytest.mark.parametrize(
    ("members", "is_ood", "headline", "detail"),
    [
        (("sea",), False, "sea", "Probability 75.0%."),
        (
            ("sea", "lake", "ice"), False, "Not sure: sea, lake or ice",
            "Such a list contains the right class for 95% of photos.",
        ),
        ((), False, "Not sure", "No class fits well. The closest is sea (75.0%)."),
        (
            ("sea",), True, "Unlike anything it was trained on",
            "Perhaps no class is right. The closest is sea (75.0%).",
        ),
    ],
)  # fmt: skip
def test_verdict_is_in_words(
    members: tuple[str, ...], is_ood: bool, headline: str, detail: str
) -> None:
    prediction = Prediction(
        source="a.jpg", label="sea", probability=0.75, prediction_set=members, coverage=0.95,
        probabilities=Probabilities(sea=0.75, lake=0.15, ice=0.1), is_ood=is_ood,
    )  # fmt: skip
    assert verdict(prediction) == (headline, detail)


def test_evidence_shows_probabilities_heatmap_and_neighbors(
    fitted: FitResult, scenes: Path
) -> None:
    photo = first_photo(scenes, "sea")
    page = to_html(fitted.classifier, str(photo), scenes)
    prediction = fitted.classifier.predict(photo, verbose=False)[0]
    assert f"<bdi>{prediction.label}</bdi>" in page
    assert f"the evidence for {prediction.label} in orange" in page
    assert page.count("<li><img") == 6
    assert page.count("data:image/jpeg;base64,") == 7
    assert "<li><img" not in to_html(fitted.classifier, str(photo), None)


def test_pictures_have_the_proportions_of_the_network_s_images(
    fitted: FitResult, scenes: Path
) -> None:
    wide = replace(fitted.classifier, image_px=(32, 64), shape="pad")
    photo = first_photo(scenes, "sea")
    with pytest.MonkeyPatch.context() as patch:
        explanation = replace(
            fitted.classifier.explain(photo), image=np.zeros((32, 64, 3), np.uint8),
            heatmap=np.zeros((32, 64), np.float32),
        )  # fmt: skip
        patch.setattr(Classifier, "explain", lambda *_: explanation)
        page = to_html(wide, str(photo), scenes)
    assert 'width="640" height="160"' in page
    assert page.count('width="112" height="56"') == 6


def test_neighbors_outside_the_folder_are_not_shown(
    fitted: FitResult, scenes: Path, tmp_path: Path
) -> None:
    photo = first_photo(scenes, "sea")
    paths = fitted.classifier.explain(photo).neighbors
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    outside = [tmp_path / Path(neighbor.path).name for neighbor in paths]
    for file in outside:
        file.write_bytes(photo.read_bytes())
    (inside / "sea").symlink_to(tmp_path)
    assert "<li><img" not in to_html(fitted.classifier, str(photo), inside)


def test_table_lists_broken_photos_and_csv_does_not(
    fitted: FitResult, scenes: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(first_photo(scenes, "sea").read_bytes()[:500])
    good = first_photo(scenes, "forest")
    predictions, rows = to_table(fitted.classifier, [str(broken), str(good)])
    assert rows[0] == ("broken.jpg", "", "", "Not a complete photo in a supported format")
    assert rows[1][:2] == (good.name, predictions[0].label)
    assert [prediction.source for prediction in predictions] == [good.name]


def test_corrections_are_a_manifest_that_scan_reads(scenes: Path, tmp_path: Path) -> None:
    sea, forest = (first_photo(scenes, label).read_bytes() for label in ("sea", "forest"))
    folder = tmp_path / "corrections"
    for content, label in ((sea, "lake"), (forest, "forest"), (sea, "  sea  side ")):
        path = save_correction(folder, content, label)
        assert path.read_bytes() == content
    photos = sl.scan(folder / "manifest.csv")
    assert {(photos.read(k), photo.label) for k, photo in enumerate(photos)} == {
        (sea, "sea side"), (forest, "forest"),
    }  # fmt: skip
    assert photos.rejected == ()


def test_correction_that_is_invalid(scenes: Path, tmp_path: Path) -> None:
    content = first_photo(scenes, "sea").read_bytes()
    for label in ("", "  ", "x" * 201, "a\x1b[2J"):
        with pytest.raises(sl.errors.ArgumentError, match="`label` must be the name of a class"):
            save_correction(tmp_path, content, label)
    with pytest.raises(sl.errors.PhotoError, match="must be complete"):
        save_correction(tmp_path, content[:300], "sea")
    assert list(tmp_path.iterdir()) == []


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_server(number: int) -> None:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, default)  # a process in the background may ignore SIGINT
    closed: list[bool] = []
    server = Server("http://127.0.0.1:1/", lambda: closed.append(True))

    def send() -> None:
        while signal.getsignal(number) is default:  # which might end this process
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        server.wait()
    finally:
        thread.join()
        signal.signal(number, before)
    assert closed == [True]


def test_serve_without_gradio_says_how_to_install_it(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(sl.errors.MissingExtraError, match=r"pip install 'scenelearn\[app\]'"):
        sl.app.serve(fitted.classifier)


@pytest.mark.parametrize("port", [0, 70_000, "80", True])
def test_serve_checks_its_arguments(fitted: FitResult, tmp_path: Path, port: object) -> None:
    with pytest.raises(sl.errors.ArgumentError, match="`port` must be an integer from 1 to 65,535"):
        sl.app.serve(fitted.classifier, port=port)  # type: ignore[arg-type]
    with pytest.raises(sl.errors.ArgumentError, match="`classifier` must be a Classifier"):
        sl.app.serve("scenes.keras")  # type: ignore[arg-type]
    with pytest.raises(sl.errors.PathMissingError, match="which does not exist"):
        sl.app.serve(fitted.classifier, photos=tmp_path / "none")


def test_export_runs_as_it_is(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = bundle.parent / "report" / "model-card.md"
    card.parent.mkdir(exist_ok=True)
    card.write_text("---\nlibrary_name: keras\n---\n\n# Model card: mine\n", encoding="utf-8")
    folder = tmp_path / "hosted"
    assert cli.main(["app", str(bundle), "--export", str(folder)]) == 0
    assert str(folder) in capsys.readouterr().out
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "app.py", "requirements.txt", "scenes.keras"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\n")
    assert 'sdk: "gradio"' in readme
    assert readme.endswith("---\n\n# Model card: mine\n")
    assert (folder / "requirements.txt").read_text() == f"scenelearn[app]=={sl.__version__}\n"
    compile((folder / "app.py").read_text(), "app.py", "exec")
    assert sl.load(folder / "scenes.keras").class_names == sl.load(bundle).class_names
    card.unlink()
    sl.app.export(bundle, folder)  # replaces an earlier export
    assert "test accuracy" in (folder / "README.md").read_text(encoding="utf-8")


def test_export_replaces_nothing_else(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(sl.errors.ArgumentError, match="holds something else"):
        sl.app.export(bundle, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["wheel.whl", ".git"])
def test_export_keeps_what_was_added_to_an_earlier_one(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    folder = sl.app.export(bundle, tmp_path / "app")
    (folder / name).write_text("mine")
    with pytest.raises(sl.errors.ArgumentError, match="holds something else"):
        sl.app.export(bundle, folder)
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    assert sl.app.export(bundle, folder) == folder


def test_a_network_without_feature_maps_shows_neighbors(
    fitted: FitResult, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain(*_: object) -> None:
        raise sl.errors.ArgumentError("no feature maps")

    monkeypatch.setattr(Classifier, "explain", explain)
    page = to_html(fitted.classifier, str(first_photo(scenes, "sea")), scenes)
    assert page.count("<li><img") == 6


@pytest.mark.slow
def test_other_names_of_this_machine_are_refused_and_a_proxy_is_passed_by(
    bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gradio")
    code = (
        "import os, sys, scenelearn as sl\n"
        "server = sl.app.serve(sl.load(sys.argv[1]))\n"
        "print(server.url, os.environ.get('no_proxy'), flush=True)\n"
        "server.wait()"
    )
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.org"}
    command = [sys.executable, "-c", code, str(bundle)]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url, no_proxy = process.stdout.readline().split()
            assert no_proxy == "example.org"
            port = int(url.strip("/").rpartition(":")[2])
            for host, status in ((f"127.0.0.1:{port}", 200), ("localhost", 200), ("a.test", 400)):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", "/config", headers={"Host": host})
                assert connection.getresponse().status == status
                connection.close()
        finally:
            process.kill()


# In a browser


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as opened:
        yield opened


@pytest.mark.slow
def test_page_predicts_collects_corrections_and_loads_nothing_from_the_net(
    page: Page, bundle: Path, scenes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gradio")
    corrections = tmp_path / "corrections"
    command = [
        sys.executable, "-m", "scenelearn", "app", str(bundle), "--photos", str(scenes),
        "--corrections", str(corrections), "--no-browser",
    ]  # fmt: skip
    photo = first_photo(scenes, "sea")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "http://" in line)
            url = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert url
            for width in (390, 1280):
                page.resize(width)
                page.open(url[0])
                page.driver.set_input_files("#photo input[type=file]", str(photo))
                page.driver.wait_for_selector(".evidence li img")
                assert page.overflow_px() <= 0
                assert page.accessibility_findings("#result, #correct-label, #correct") == []
            page.driver.get_by_label("If that is wrong").fill("lagoon")
            page.driver.keyboard.press("Enter")
            page.driver.click("#correct")
            page.driver.wait_for_selector("text=Saved as lagoon")
            page.driver.get_by_label("If that is wrong").fill("<u>lagoon</u>")
            page.driver.keyboard.press("Enter")
            page.driver.click("#correct")
            page.driver.wait_for_selector("text=Saved as <u>lagoon</u>")  # as text, not as HTML
            page.driver.get_by_label("If that is wrong").fill("lagoon")
            page.driver.keyboard.press("Enter")
            page.driver.click("#correct")
            page.driver.wait_for_selector("text=Saved as lagoon")
            page.driver.get_by_role("tab", name="Many photos").click()
            page.driver.set_input_files("#files input[type=file]", [str(photo)])
            with page.driver.expect_download() as download:
                page.driver.click("text=Download the table")
            assert Path(download.value.path()).read_text().startswith("source,label,")
            assert page.external_requests(url[0]) == set()
        finally:
            process.kill()
    photos = sl.scan(corrections / "manifest.csv")
    assert [photo.label for photo in photos] == ["lagoon"]
    assert photos.read(0) == photo.read_bytes()


def test_pictures_of_other_modes_are_accepted(scenes: Path, tmp_path: Path) -> None:
    image = Image.open(first_photo(scenes, "sea")).convert("LA")
    image.save(tmp_path / "gray.png")
    path = save_correction(tmp_path / "c", (tmp_path / "gray.png").read_bytes(), "sea")
    assert path.suffix == ".png"
