"""The command line: what it prints, where it writes, how it ends."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import scenelearn as sl
from scenelearn import cli
from scenelearn.backbones import STORED
from scenelearn.finetune import FitResult

QUICK = [
    "--backbone", "scenelearn_tiny", "--weights", "none", "--image-px", "32", "--epochs", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(fitted.save(tmp_path_factory.mktemp("bundle") / "scenes.keras"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_fit_says_what_was_reached_in_how_long_and_where_the_files_are(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path
) -> None:
    code, out, err = run(capsys, "fit", str(scenes), *QUICK, "--out", str(tmp_path / "out"))
    assert code == 0
    assert "72 photos in 6 classes" in out
    for word in ("Accuracy", "95 % interval", "Time", "scenes.keras", "index.html"):
        assert word in out
    for name in ("scenes.keras", "report/index.html", "report/result.json"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    assert "scanning: 100%" in err
    assert "fine-tuning: 100%" in err


def test_fit_without_a_folder_uses_sample_scenes_and_downloads_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli._fit, "_SAMPLE_PER_CLASS", 12)
    monkeypatch.setattr(cli._fit, "_SAMPLE_FIT", cli._fit._SAMPLE_FIT | {"image_px": 32})
    code, out, _ = run(capsys, "fit", "--epochs", "1", "--json", "--out", str(tmp_path))
    value = json.loads(out)
    assert code == 0
    assert value["settings"]["weights"] == STORED
    assert value["evaluation"]["n_photos"] == sum(map(sum, value["evaluation"]["confusion"]))
    assert Path(value["bundle"]).is_file()
    assert Path(value["report"]).is_file()


def test_fit_without_a_folder_takes_the_network_of_the_weights_file_and_the_finer_points(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli._fit, "_SAMPLE_PER_CLASS", 12)
    file = tmp_path / "mobilenet_0.25_notop.weights.h5"
    network = sl.backbones.build("mobilenet_0.25", weights=None, image_px=32, seed=0)
    network.get_layer("backbone").save_weights(file)
    code, out, _ = run(
        capsys, "fit", "--weights", str(file), "--image-px", "32", "--plan", "--json",
        "--out", str(tmp_path / "out"), "--recipe", "soup=2", "--recipe", "mirrored=True",
        "--recipe", "trained=coarsest",
    )  # fmt: skip
    assert code == 0
    settings = json.loads(out)["settings"]
    assert settings["backbone"] == "mobilenet_0.25"
    recipe = settings["recipe"]
    assert (recipe["soup"], recipe["mirrored"], recipe["trained"]) == (2, True, "coarsest")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("soup", "`--recipe` must have the form NAME=VALUE. Received: 'soup'"),
        ("soup=0", "`soup` must be a whole number of at least 1. Received: soup=0"),
        ("soap=4", "Received: soap"),
        ("mirrored=yes", "`mirrored` must be True or False. Received: mirrored='yes'"),
    ],
)
def test_finer_point_that_is_none(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path, words: str, said: str
) -> None:
    code, out, err = run(capsys, "fit", str(scenes), "--recipe", words, "--out", str(tmp_path))
    assert (code, out) == (2, "")
    assert said in err


def test_predict_prints_a_line_a_photo(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    files = [str(p) for p in sorted((scenes / "forest").iterdir())[:3]]
    code, out, _ = run(capsys, "predict", bundle, *files)
    assert code == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == files


def test_predict_names_what_it_cannot_read_and_goes_on(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    bundle: str,
    scenes: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    good = str(sorted((scenes / "sea").iterdir())[0])
    code, out, _ = run(capsys, "predict", bundle, str(tmp_path / "text.jpg"), good, "--json")
    assert code == 0
    assert [answer["source"] for answer in json.loads(out)] == [good]
    assert "text.jpg" in caplog.text


def test_predict_fails_where_no_photo_can_be_read(
    capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    code, _, err = run(capsys, "predict", bundle, str(tmp_path / "text.jpg"))
    assert code == 1
    assert "None of the photos could be read" in err


def test_evaluate_prints_the_accuracy_and_each_class(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    code, out, _ = run(capsys, "evaluate", bundle, str(scenes))
    assert code == 0
    assert "accuracy" in out
    assert all(name in out for name in ("buildings", "forest", "glacier", "mountain", "street"))
    code, out, _ = run(capsys, "evaluate", bundle, str(scenes), "--json")
    assert json.loads(out)["n_photos"] == 72


def test_predict_prints_a_table_for_spreadsheets(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path, tmp_path: Path
) -> None:
    photo = sorted((scenes / "sea").iterdir())[0]
    odd = tmp_path / '=1+1, "a"\n<script>.jpg'
    shutil.copy(photo, odd)
    code, out, _ = run(capsys, "predict", bundle, f"{scenes}/forest/*.jpg", str(odd), "--csv")
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    assert len(rows) == 13
    assert rows[-1]["source"] == str(odd).replace("\n", "\\n")
    assert all(rows[0][key] for key in ("label", "probability", "classes", "is_unlike", "sea"))
    code, _, err = run(capsys, "predict", bundle, str(photo), "--csv", "--json")
    assert code == 2
    assert "`--json` and `--csv` exclude each other" in err


def test_coverage_is_passed_on(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    photo = str(sorted((scenes / "sea").iterdir())[0])
    code, out, _ = run(capsys, "predict", bundle, photo, "--json", "--coverage", "0.5")
    assert code == 0
    assert json.loads(out)[0]["coverage"] == 0.5
    code, _, err = run(capsys, "predict", bundle, photo, "--coverage", "95")
    assert code == 2
    assert "`coverage` must be a number between 0 and 1. Received: coverage=95" in err


def test_explain_writes_a_picture_and_names_training_photos(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path, tmp_path: Path
) -> None:
    photo = str(sorted((scenes / "sea").iterdir())[0])
    where = ["--out", str(tmp_path / "why.png")]
    code, out, _ = run(capsys, "explain", bundle, photo, *where)
    assert code == 0
    assert "Most similar training photos" in out
    assert f"Picture: {tmp_path / 'why.png'}" in out
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(capsys, "explain", bundle, photo, *where, "--label", "street", "--json")
    assert json.loads(out)["label"] == "street"
    code, _, err = run(capsys, "explain", bundle, photo, *where, "--label", "desert")
    assert code == 2
    assert "'desert'" in err


def test_evaluate_shows_calibration_sets_and_groups(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path, tmp_path: Path
) -> None:
    photos = sl.scan(scenes)
    rows = [
        f"{path},{photos.class_names[label]},{'ab'[k % 2]}"
        for k, (path, label) in enumerate(zip(photos.paths, photos.labels, strict=True))
    ]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["path,label,camera", *rows]))
    more = ["--manifest", str(manifest), "--coverage", "0.9"]
    code, out, _ = run(capsys, "evaluate", bundle, str(scenes), *more)
    assert code == 0
    for words in ("mean recall", "calibration error", "sets hold the true class", "groups"):
        assert words in out
    code, out, _ = run(capsys, "evaluate", bundle, str(scenes), *more, "--json")
    value = json.loads(out)
    assert {"camera", "brightness"} <= {one["column"] for one in value["slices"]}
    assert value["trust"]["coverage"]["n"] == 72


def test_compare_says_which_is_better(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    code, out, _ = run(capsys, "compare", bundle, bundle, str(scenes))
    assert code == 0
    assert "no significant difference" in out
    code, out, _ = run(capsys, "compare", bundle, bundle, str(scenes), "--json")
    value = json.loads(out)
    assert (value["n_only_a"], value["n_only_b"], value["p_value"]) == (0, 0, 1.0)


def test_sample_draws_the_six_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "sample", str(tmp_path / "scenes"), "--per-class", "2")
    assert code == 0
    assert "2 scenes a class" in out
    assert len(list((tmp_path / "scenes").glob("*/*.jpg"))) == 12


def test_place_for_the_results_is_seen_to_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("scenelearn.scan", lambda *_, **__: pytest.fail("too late"))
    code, _, err = run(capsys, "fit", str(tmp_path), "--out", str(tmp_path / "file"))
    assert code == 2
    assert "file' is a file. Pass another name" in err


def test_what_keras_prints_does_not_spoil_the_json(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scenes: Path,
    tmp_path: Path,
    fitted: FitResult,
) -> None:
    def fit_that_prints(*_: object, **__: object) -> FitResult:
        sys.stdout.write("Downloading data from …\n")
        return fitted

    monkeypatch.setattr("scenelearn.fit", fit_that_prints)
    code, out, err = run(capsys, "fit", str(scenes), "--json", "--out", str(tmp_path))
    assert code == 0
    assert json.loads(out)["kept"] == fitted.kept
    assert "Downloading" in err


def test_sample_scenes_are_drawn_once(
    monkeypatch: pytest.MonkeyPatch, fitted: FitResult, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli._fit, "_SAMPLE_PER_CLASS", 3)
    monkeypatch.setattr("scenelearn.fit", lambda *_, **__: fitted)
    assert cli.main(["fit", "--no-audit", "--out", str(tmp_path)]) == 0
    monkeypatch.setattr("scenelearn.sample_scenes", lambda *_, **__: pytest.fail("drawn again"))
    assert cli.main(["fit", "--no-audit", "--out", str(tmp_path)]) == 0


def empty_folder(tmp_path: Path, scenes: Path) -> list[str]:
    return [str(tmp_path)]


def one_class(tmp_path: Path, scenes: Path) -> list[str]:
    (tmp_path / "sea").mkdir()
    for photo in (scenes / "sea").iterdir():
        (tmp_path / "sea" / photo.name).write_bytes(photo.read_bytes())
    return [str(tmp_path)]


def single_photo_in_a_class(tmp_path: Path, scenes: Path) -> list[str]:
    one_class(tmp_path, scenes)
    (tmp_path / "street").mkdir()
    photo = sorted((scenes / "street").iterdir())[0]
    (tmp_path / "street" / photo.name).write_bytes(photo.read_bytes())
    return [str(tmp_path)]


def missing_folder(tmp_path: Path, scenes: Path) -> list[str]:
    return [str(tmp_path / "nowhere")]


def unknown_backbone(tmp_path: Path, scenes: Path) -> list[str]:
    return [str(scenes), "--backbone", "resnet_9000"]


def missing_weights(tmp_path: Path, scenes: Path) -> list[str]:
    return [str(scenes), "--weights", str(tmp_path / "nowhere.h5")]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (empty_folder, ["No usable photo", "an empty folder", "one folder for each class"]),
        (one_class, ["At least two classes", "only 'sea'"]),
        (single_photo_in_a_class, ["Class 'street'", "at least 3 different photos"]),
        (missing_folder, ["`folder`", "nowhere", "Check the path"]),
        (unknown_backbone, ["`backbone`", "'resnet_9000'", "Did you mean"]),
        (missing_weights, ["`weights`", "nowhere.h5", "there is no file"]),
    ],
)
def test_failed_run_is_one_paragraph_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path, make: Any, words: list[str]
) -> None:
    arguments = make(tmp_path, scenes)
    code, _, err = run(capsys, "fit", *arguments, "--out", str(tmp_path / "out"))
    message = err[err.index("scenelearn:") :]
    assert code == 1
    assert message.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in message


def test_setting_out_of_range_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], scenes: Path
) -> None:
    code, _, err = run(capsys, "fit", str(scenes), "--minutes", "-1")
    assert code == 2
    assert "`minutes` must be a number above 0. Received: minutes=-1.0" in err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["fit", "--minutes", "soon"], ["predict"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: scenelearn" in capsys.readouterr().err


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No usable photo"):
        cli.main(["fit", str(tmp_path), "--debug"])


def test_error_of_our_own_making_asks_for_a_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("scenelearn.scan", fail)
    code, _, err = run(capsys, "fit", str(tmp_path))
    assert code == 1
    assert "KeyError: 'oops' This should not happen" in err


@pytest.mark.parametrize(("told", "expected"), [((), 130), (("SIGTERM",), 143)])
def test_interrupt_ends_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told: tuple[str, ...],
    expected: int,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(*told)

    monkeypatch.setattr("scenelearn.scan", interrupt)
    code, _, err = run(capsys, "fit", str(tmp_path))
    assert code == expected
    assert err.strip() == "scenelearn: stopped"


# What the audit changes


@pytest.fixture
def with_copies(scenes: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(scenes, tmp_path / "photos")
    seas = sorted((folder / "sea").iterdir())
    shutil.copy(seas[0], folder / "street" / "a sea.jpg")
    shutil.copy(seas[1], folder / "sea" / "again.jpg")
    return folder


def test_fit_keeps_copies_together_and_goes_without_the_quarantine(
    capsys: pytest.CaptureFixture[str], with_copies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit"
    code, text, _ = run(capsys, "audit", str(with_copies), "--out", str(out))
    assert code == 0
    assert f"Page: {out / 'index.html'}" in text
    apart = json.loads((out / "quarantine.json").read_text())
    assert "street/a sea.jpg" in apart
    assert len(apart) == 2
    where = ["--out", str(tmp_path / "out"), "--quarantine", str(out / "quarantine.json")]
    code, text, err = run(capsys, "fit", str(with_copies), *QUICK, *where, "--json")
    assert code == 0
    splits = json.loads(text)["splits"]
    assert splits["quarantine"] == apart
    side = {one["path"]: name for name in ("train", "validation", "test") for one in splits[name]}
    assert not set(apart) & set(side)
    assert "2 photos are copies of others and stay on their side; 2 should not be used" in err
    again = sl.split(sl.scan(with_copies, tmp_path / "out/report/split.csv"), seed=77)
    repeated = again.to_json()  # from the manifest: the same sides, whatever the seed
    assert all(repeated[name] == splits[name] for name in ("train", "validation", "test"))
    content = (with_copies / "sea/again.jpg").read_bytes()
    same = [path for path in side if (with_copies / path).read_bytes() == content]
    assert len(same) == 2
    assert len({side[path] for path in same}) == 1


def test_fit_takes_a_manifest_and_stops_at_broken_photos(
    capsys: pytest.CaptureFixture[str], with_copies: Path, tmp_path: Path
) -> None:
    splits = sl.split(sl.scan(with_copies), seed=4)
    file = splits.save(tmp_path / "split.csv")
    (with_copies / "sea/again.jpg").write_bytes(b"no photo any more")
    where = ["--out", str(tmp_path / "out"), "--manifest", str(file), "--no-audit"]
    code, text, _ = run(capsys, "fit", str(with_copies), *QUICK, *where, "--json")
    assert code == 0
    value = json.loads(text)
    assert [one["path"] for one in value["refused"]] == ["sea/again.jpg"]
    tested = {one["path"] for one in value["splits"]["test"]}
    assert tested == {splits.photos.paths[k] for k in splits.test} - {"sea/again.jpg"}
    code, _, err = run(capsys, "fit", str(with_copies), *QUICK, *where, "--broken", "raise")
    assert code == 1
    assert "sea/again.jpg: not an image" in err


@pytest.mark.parametrize("content", [None, "no json", '{"a": 1}', "[1]"])
def test_a_quarantine_that_is_no_list(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "quarantine.json"
    if content is not None:
        file.write_text(content)
    where = ["--out", str(tmp_path / "out"), "--quarantine", str(file)]
    code, _, err = run(capsys, "fit", str(scenes), *QUICK, *where)
    assert code == 2
    assert "`--quarantine` must name a JSON list of paths" in err


def test_audit_judges_labels_by_a_backbone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scenes: Path
) -> None:
    asked: list[tuple[Any, Any]] = []
    features = sl.finetune.features

    def seen(photos: Any, *, backbone: Any, weights: Any, **settings: Any) -> Any:
        asked.append((backbone, weights))
        return features(photos, backbone=backbone, weights=weights, **settings)

    monkeypatch.setattr(sl.finetune, "features", seen)
    for network in (["--backbone", "scenelearn_tiny", "--weights", "none"], ["--weights", STORED]):
        code, out, _ = run(capsys, "audit", str(scenes), *network, "--image-px", "32", "--json")
        assert code == 0
        kinds = {one["finding"] for one in json.loads(out)["findings"]}
        assert kinds <= {"suspicious", "alike"}
    assert asked == [("scenelearn_tiny", None), (None, STORED)]
    assert run(capsys, "audit", str(scenes))[0] == 0
    code, _, err = run(capsys, "audit", str(scenes), "--weights", "none")
    assert code == 2
    assert "`--weights none` needs `--backbone`" in err
    assert len(asked) == 2
