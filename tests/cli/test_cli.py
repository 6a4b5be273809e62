"""The command line: output, files, exit codes, and streams in trouble."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scenelearn as sl
from scenelearn import cli
from scenelearn.data import RejectionReason
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult, FitSettings
from tests.helpers.patches import fail_to_write_bundles

QUICK = [
    "--backbone", "scenelearn_tiny", "--weights", "none", "--image-px", "32", "--epochs", "1",
    "--batch-size", "16",
]  # fmt: skip
PROBE = [*QUICK, "--epochs", "0"]  # the last option wins


@pytest.fixture(scope="module")
def bundle(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(fitted.save(tmp_path_factory.mktemp("bundle") / "scenes.keras"))


@pytest.fixture(autouse=True)
def _other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without `--out` write into the working folder."""
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_fit_prints_accuracy_duration_and_paths(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path
) -> None:
    code, out, err = run(capsys, "fit", str(scenes), *QUICK, "--out", str(tmp_path / "out"))
    assert code == 0
    assert "72 photos in 6 classes" in out
    for word in ("Accuracy", "95% interval", "Time", "scenes.keras", "index.html"):
        assert word in out
    for name in ("scenes.keras", "report/index.html", "report/result.json"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    assert "scanning photos: 100%" in err
    assert "fine-tuning: 100%" in err


def test_fit_without_a_folder_uses_sample_scenes_and_downloads_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli._photos, "SAMPLES_PER_CLASS", 12)
    monkeypatch.setattr(cli._fit, "_SAMPLES_FIT", cli._fit._SAMPLES_FIT | {"image_px": 32})
    code, out, _ = run(capsys, "fit", "--epochs", "0", "--json", "--out", str(tmp_path))
    value = json.loads(out)
    assert code == 0
    assert value["settings"]["weights"] == "scenelearn"
    assert value["evaluation"]["n_photos"] == sum(map(sum, value["evaluation"]["confusion_matrix"]))
    assert Path(value["bundle"]).is_file()
    assert Path(value["report"]).is_file()


@pytest.mark.slow
def test_fit_without_a_folder_infers_the_backbone_from_the_weights_and_takes_recipe_fields(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli._photos, "SAMPLES_PER_CLASS", 12)
    file = tmp_path / "mobilenet_0.25_notop.weights.h5"
    network = sl.backbones.build("mobilenet_0.25", weights=None, image_px=32, seed=0)
    network.get_layer("backbone").save_weights(file)
    code, out, _ = run(
        capsys, "fit", "--weights", str(file), "--image-px", "32", "--epochs", "0", "--plan",
        "--json", "--out", str(tmp_path / "out"), "--recipe", "soup=2",
        "--recipe", "cutmix_alpha=1", "--recipe", "unfreeze=all",
    )  # fmt: skip
    assert code == 0
    settings = json.loads(out)["settings"]
    assert settings["backbone"] == "mobilenet_0.25"
    recipe = settings["recipe"]
    assert (recipe["soup"], recipe["cutmix_alpha"], recipe["unfreeze"]) == (2, 1, "all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soup", "`--recipe` must have the form NAME=VALUE. Received: 'soup'"),
        ("soup=0", "`soup` must be an integer of at least 1. Received: soup=0"),
        ("soap=4", "Received: soap"),
        (
            "train_batchnorm=yes",
            "`train_batchnorm` must be True or False. Received: train_batchnorm='yes'",
        ),
    ],
)
def test_recipe_field_that_is_invalid(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path, text: str, message: str
) -> None:
    code, out, err = run(capsys, "fit", str(scenes), "--recipe", text, "--out", str(tmp_path))
    assert (code, out) == (2, "")
    assert message in err


def test_predict_prints_one_line_per_photo(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    files = [str(p) for p in sorted((scenes / "forest").iterdir())[:3]]
    code, out, _ = run(capsys, "predict", bundle, *files)
    assert code == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == files


def test_predict_logs_a_broken_photo_and_continues(
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
    assert [prediction["source"] for prediction in json.loads(out)] == [good]
    assert "text.jpg" in caplog.text


def test_predict_stops_at_a_broken_photo_on_request(
    capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    code, out, err = run(capsys, "predict", bundle, str(tmp_path), "--broken", "raise")
    assert (code, out) == (1, "")
    assert "text.jpg' must be a complete JPEG" in err


def test_predict_fails_if_no_photo_can_be_read(
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


def test_predict_prints_a_csv_table(
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
    assert all(rows[0][key] for key in ("label", "probability", "prediction_set", "is_ood", "sea"))
    code, _, err = run(capsys, "predict", bundle, str(photo), "--csv", "--json")
    assert code == 2
    assert "`--json` and `--csv` cannot be combined" in err


def test_costs_reach_the_predictions(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    files = [str(p) for p in sorted((scenes / "sea").iterdir())[:2]]
    costs = {"sea": dict.fromkeys(("buildings", "forest", "glacier", "mountain", "street"), 1e6)}
    words = ["predict", bundle, *files, "--costs", json.dumps(costs)]
    code, out, _ = run(capsys, *words, "--json")
    assert code == 0
    expected = sl.load(bundle).predict(files, costs=costs)
    assert json.loads(out) == expected.to_json()
    assert {prediction.label for prediction in expected} == {"sea"}
    _, out, _ = run(capsys, *words, "--csv")
    assert out == expected.to_csv() + "\n"
    assert [float(row["expected_cost"]) for row in csv.DictReader(out.splitlines())] == [
        prediction.expected_cost for prediction in expected
    ]
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "predict", bundle, *files, "--costs", "{sea")
    assert "invalid costs value: '{sea'" in capsys.readouterr().err


def test_coverage_reaches_the_predictions(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    photo = str(sorted((scenes / "sea").iterdir())[0])
    code, out, _ = run(capsys, "predict", bundle, photo, "--json", "--coverage", "0.5")
    assert code == 0
    assert json.loads(out)[0]["coverage"] == 0.5
    code, _, err = run(capsys, "predict", bundle, photo, "--coverage", "95")
    assert code == 2
    assert (
        "`coverage` must be a number between 0 and 1, both excluded. Received: coverage=95.0" in err
    )


def test_explain_writes_a_picture_and_lists_similar_training_photos(
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


def test_rank_writes_the_manifest_to_fill_in(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "to_label.csv"
    words = ["rank", bundle, str(scenes / "sea"), "--n", "3", "--out", str(manifest)]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "3 of 12 photos to label next" in out
    assert f"Manifest: {manifest}" in out
    code, out, _ = run(capsys, *words, "--json")
    paths = [row["path"] for row in json.loads(out)["photos"]]
    assert manifest.read_text().splitlines()[1:] == [f"{path},,,," for path in paths]


def test_rank_continues_with_the_manifest_of_the_last_round(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "to_label.csv"
    words = ["rank", bundle, str(scenes), "--n", "4"]
    assert run(capsys, *words, "--out", str(manifest))[0] == 0
    header, *rows = manifest.read_text().splitlines()
    labeled = [row.replace(",,", ",sea,", 1) for row in rows[:2]] + rows[2:]
    manifest.write_text("\n".join([header, *labeled]))
    code, _, err = run(capsys, *words)  # `--out` is to_label.csv
    assert code == 2
    assert "`file` must not hold labels, which would be lost" in err
    assert manifest.read_text().splitlines() == [header, *labeled]
    more = ["--manifest", str(manifest), "--out", str(tmp_path / "next.csv"), "--json"]
    code, out, _ = run(capsys, *words, *more)
    assert code == 0
    assert {row["path"] for row in json.loads(out)["photos"]} == {
        row.split(",")[0] for row in rows[2:]
    }


def test_options_of_size_explain_and_benchmark(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path, tmp_path: Path
) -> None:
    layers = ["size", "Dense(10)", "--input-shape", "100", "--json"]
    full, half = (
        json.loads(run(capsys, *layers, "--dtype", dtype)[1]) for dtype in ("float32", "float16")
    )
    assert 2 * half["parameter_bytes"] == full["parameter_bytes"] == 4 * (100 * 10 + 10)
    photo = str(sorted((scenes / "sea").iterdir())[0])
    out = run(capsys, "explain", bundle, photo, "--n-neighbors", "2", "--json")[1]
    assert len(json.loads(out)["neighbors"]) == 2
    out = run(capsys, "benchmark", bundle, photo, "--seconds", "0.01", "--json")[1]
    assert json.loads(out)["n_batches"] == 6  # the fewest that give an interval


def test_evaluate_shows_calibration_prediction_sets_and_slices(
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
    for words in (
        "balanced accuracy",
        "calibration error",
        "sets contain the true class",
        "slices",
    ):
        assert words in out
    code, out, _ = run(capsys, "evaluate", bundle, str(scenes), *more, "--json")
    value = json.loads(out)
    assert {"camera", "brightness"} <= {row["column"] for row in value["slices"]}
    assert value["selective"]["coverage"]["n"] == 72
    beside = scenes.with_name("beside.csv")  # a manifest in place of the folder
    beside.write_text("\n".join(["path,label,camera", *(f"{scenes.name}/{row}" for row in rows)]))
    code, out, _ = run(capsys, "evaluate", bundle, str(beside), "--json")
    beside.unlink()
    assert {"camera", "brightness"} <= {row["column"] for row in json.loads(out)["slices"]}


@pytest.mark.slow
def test_compare_prints_whether_one_is_better(
    capsys: pytest.CaptureFixture[str], bundle: str, scenes: Path
) -> None:
    code, out, _ = run(capsys, "compare", bundle, bundle, str(scenes))
    assert code == 0
    assert "no significant difference" in out
    code, out, _ = run(capsys, "compare", bundle, bundle, str(scenes), "--json")
    value = json.loads(out)
    assert (value["n_only_a_correct"], value["n_only_b_correct"], value["p_value"]) == (0, 0, 1.0)


def test_sample_renders_the_six_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "sample", str(tmp_path / "scenes"), "--per-class", "2")
    assert code == 0
    assert "2 scenes per class" in out
    assert len(list((tmp_path / "scenes").glob("*/*.jpg"))) == 12


def test_output_folder_is_checked_before_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("scenelearn.scan", lambda *_, **__: pytest.fail("too late"))
    code, _, err = run(capsys, "fit", str(tmp_path), "--out", str(tmp_path / "file"))
    assert code == 2
    assert "file' is a file. Pass another name" in err


def test_space_is_asked_for_before_training(
    capsys: pytest.CaptureFixture[str],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100 * 2**20))
    monkeypatch.setattr("scenelearn.fit", lambda *_, **__: pytest.fail("too late"))
    out = tmp_path / "out"
    options = ["--no-audit", "--backbone", "mobilenet_v3_small", "--out", str(out)]
    code, _, err = run(capsys, "fit", str(scenes), *options)
    assert code == 1
    # 939,120 parameters of 4 bytes, twice, and 32 MiB
    assert f"'{out}' needs 39 MiB of free space" in err
    assert "pass another --out" in err


def test_second_fit_finds_the_output_of_the_first_among_the_photos(
    capsys: pytest.CaptureFixture[str],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fitted: FitResult,
) -> None:
    photos = shutil.copytree(scenes, tmp_path / "photos")
    monkeypatch.chdir(photos)
    counts: list[int] = []

    def fit(splits: Any, *, broken: str, **_: Any) -> FitResult:
        assert broken == "raise"
        reasons = {one.reason for one in splits.photos.rejected}
        assert reasons <= {RejectionReason.NO_CLASS_FOLDER, RejectionReason.SYSTEM_FILE}
        counts.append(len(splits.photos))
        return fitted

    monkeypatch.setattr("scenelearn.fit", fit)
    for _ in range(2):
        assert run(capsys, "fit", ".", "--no-audit", "--broken", "raise")[0] == 0
    assert run(capsys, "audit", ".", "--out", "audit")[0] == 0
    assert run(capsys, "fit", ".", "--no-audit", "--broken", "raise")[0] == 0
    assert counts == [72, 72, 72]


@pytest.mark.nightly
def test_checkpoint_stays_until_everything_is_saved(
    capsys: pytest.CaptureFixture[str],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
    words = ["fit", str(scenes), *QUICK, "--no-audit", "--out", str(tmp_path / "out")]

    def full(*_: Any, **__: Any) -> None:
        raise sl.errors.DiskSpaceError("no space is left")

    error = sl.errors.DiskSpaceError("no space is left")
    for refuse in (
        lambda patch: fail_to_write_bundles(patch, error),
        lambda patch: patch.setattr("scenelearn.report", full),
    ):
        with monkeypatch.context() as context:
            refuse(context)
            assert run(capsys, *words, "--resume")[0] == 1
        assert len(list((tmp_path / "cache/runs").glob("*/state"))) == 1
    code, out, _ = run(capsys, *words, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["phases"][2]["name"] == "earlier run" or "earlier run" in out
    assert list((tmp_path / "cache/runs").glob("*/state")) == []


@pytest.mark.slow
def test_class_folder_whose_name_is_not_unicode(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(scenes, tmp_path / "photos")
    try:
        (folder / "forest").rename(folder / "for\udceat")
    except OSError:
        pytest.skip("the file system requires Unicode")
    out = tmp_path / "out"
    code, text, _ = run(capsys, "fit", str(folder), *PROBE, "--no-audit", "--out", str(out))
    assert code == 0
    text.encode()
    bundle = str(out / "scenes.keras")
    assert "for\udceat" in sl.load(bundle).class_names
    for command in (["evaluate", bundle, str(folder)], ["compare", bundle, bundle, str(folder)]):
        code, text, _ = run(capsys, *command, "--json")
        assert code == 0
        json.loads(text)


@pytest.mark.parametrize("value", ["", "\0", "x" * 5000, "a\udceab", "\ud800", "~nobody/x", "%s%n"])
@pytest.mark.parametrize(
    "words",
    [
        ["{}"],
        ["fit", "{}"],
        ["fit", "{}", "--out", "{}"],
        ["predict", "{}", "photo.jpg"],
        ["evaluate", "{}", "photos"],
        ["audit", "{}"],
        ["audit", ".", "--manifest", "{}"],
        ["sample", "{}", "--per-class", "0"],
        ["size", "{}"],
        ["size", "{}.keras"],
        ["size", "{}("],
        ["size", "Dense(3)", "--input-shape", "{}"],
        ["size", "Dense(3)", "--input-shape", "3", "--memory", "{}"],
        ["report", "{}", "--out", "report"],
    ],
    ids=" ".join,
)
def test_hostile_argument(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code, _, err = run(capsys, *(word.replace("{}", value) for word in words))
    except SystemExit as ended:  # argparse
        code, err = ended.code, capsys.readouterr().err  # type: ignore[assignment]
    assert code in (1, 2)
    assert err
    assert "bug in scenelearn" not in err


def test_json_stays_valid_when_keras_prints(
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


def test_sample_scenes_are_rendered_once(
    monkeypatch: pytest.MonkeyPatch, fitted: FitResult, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli._photos, "SAMPLES_PER_CLASS", 3)
    monkeypatch.setattr("scenelearn.fit", lambda *_, **__: fitted)
    assert cli.main(["fit", "--no-audit", "--out", str(tmp_path)]) == 0
    monkeypatch.setattr("scenelearn.sample_scenes", lambda *_, **__: pytest.fail("rendered again"))
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
        (empty_folder, ["no usable photo", "an empty folder", "one folder per class"]),
        (one_class, ["at least two classes", "only 'sea'"]),
        (single_photo_in_a_class, ["Class 'street'", "at least 3 different photos"]),
        (missing_folder, ["`folder`", "nowhere", "Check the path"]),
        (unknown_backbone, ["`backbone`", "'resnet_9000'", "Did you mean"]),
        (missing_weights, ["`weights`", "nowhere.h5", "there is no file"]),
    ],
)
def test_failure_prints_one_paragraph_and_exits_with_1(
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


def test_value_out_of_range_exits_with_2(capsys: pytest.CaptureFixture[str], scenes: Path) -> None:
    code, _, err = run(capsys, "fit", str(scenes), "--minutes", "-1")
    assert code == 2
    assert "`minutes` must be a number above 0. Received: minutes=-1.0" in err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["fit", "--minutes", "soon"], ["predict"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: scenelearn" in capsys.readouterr().err


def test_debug_raises_the_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable photo"):
        cli.main(["fit", str(tmp_path), "--debug"])


def test_unexpected_error_asks_for_a_bug_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("scenelearn.scan", fail)
    code, _, err = run(capsys, "fit", str(tmp_path))
    assert code == 1
    assert "KeyError: 'oops' This is a bug in scenelearn." in err


@pytest.mark.parametrize(("arguments", "expected"), [((), 130), (("SIGTERM",), 143)])
def test_interrupt_exits_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    expected: int,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(*arguments)

    monkeypatch.setattr("scenelearn.scan", interrupt)
    code, _, err = run(capsys, "fit", str(tmp_path))
    assert code == expected
    assert err.strip() == "scenelearn: stopped"


# With an audit


@pytest.fixture
def with_duplicates(scenes: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(scenes, tmp_path / "photos")
    seas = sorted((folder / "sea").iterdir())
    shutil.copy(seas[0], folder / "street" / "a sea.jpg")
    shutil.copy(seas[1], folder / "sea" / "again.jpg")
    return folder


@pytest.mark.slow
def test_fit_keeps_duplicates_in_one_split_and_leaves_the_quarantine_out(
    capsys: pytest.CaptureFixture[str], with_duplicates: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit"
    code, text, _ = run(capsys, "audit", str(with_duplicates), "--out", str(out))
    assert code == 0
    assert f"Report: {out / 'index.html'}" in text
    quarantine = json.loads((out / "quarantine.json").read_text())
    assert "street/a sea.jpg" in quarantine
    assert len(quarantine) == 2
    where = ["--out", str(tmp_path / "out"), "--quarantine", str(out / "quarantine.json")]
    plan = ["fit", str(with_duplicates), *PROBE, "--plan", "--out", str(tmp_path / "plan")]
    err = run(capsys, *plan)[2]  # without --quarantine, what the audit finds is left out
    assert "2 photos in quarantine, which are not used" in err
    assert "2 in quarantine" in err
    code, text, err = run(capsys, "fit", str(with_duplicates), *PROBE, *where, "--json")
    assert code == 0
    splits = json.loads(text)["splits"]
    assert splits["quarantine"] == quarantine
    split_of = {
        row["path"]: name for name in ("train", "validation", "test") for row in splits[name]
    }
    assert not set(quarantine) & set(split_of)
    assert "2 duplicates, which stay in one split; 2 photos in quarantine" in err
    again = sl.split(sl.scan(with_duplicates, tmp_path / "out/report/split.csv"), seed=77)
    repeated = again.to_json()  # the manifest decides, whatever the seed
    for name in ("train", "validation", "test"):
        first, second = (
            [(row["path"], row["hash"]) for row in rows[name]] for rows in (repeated, splits)
        )
        assert first == second
    content = (with_duplicates / "sea/again.jpg").read_bytes()
    same = [path for path in split_of if (with_duplicates / path).read_bytes() == content]
    assert len(same) == 2
    assert len({split_of[path] for path in same}) == 1


@pytest.mark.slow
def test_fit_follows_a_manifest_and_can_stop_at_broken_photos(
    capsys: pytest.CaptureFixture[str], with_duplicates: Path, tmp_path: Path
) -> None:
    splits = sl.split(sl.scan(with_duplicates), seed=4)
    file = splits.save(tmp_path / "split.csv")
    (with_duplicates / "sea/again.jpg").write_bytes(b"no photo any more")
    where = ["--out", str(tmp_path / "out"), "--manifest", str(file), "--no-audit"]
    code, text, _ = run(capsys, "fit", str(with_duplicates), *PROBE, *where, "--json")
    assert code == 0
    value = json.loads(text)
    assert [row["path"] for row in value["rejected"]] == ["sea/again.jpg"]
    tested = {row["path"] for row in value["splits"]["test"]}
    assert tested == {splits.photos.paths[k] for k in splits.test} - {"sea/again.jpg"}
    code, _, err = run(capsys, "fit", str(with_duplicates), *PROBE, *where, "--broken", "raise")
    assert code == 1
    assert "sea/again.jpg: not an image" in err


@pytest.mark.parametrize("content", [None, "no json", '{"a": 1}', "[1]"])
def test_quarantine_that_is_not_a_list_of_paths(
    capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "quarantine.json"
    if content is not None:
        file.write_text(content)
    where = ["--out", str(tmp_path / "out"), "--quarantine", str(file)]
    code, _, err = run(capsys, "fit", str(scenes), *PROBE, *where)
    assert code == 2
    assert "`--quarantine` must name a JSON list of paths" in err


@pytest.mark.slow
def test_audit_finds_label_issues_from_the_features_of_a_backbone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scenes: Path
) -> None:
    networks: list[tuple[Any, Any]] = []
    features = sl.finetune.extract_features

    def record(photos: Any, *, backbone: Any, weights: Any, **settings: Any) -> Any:
        networks.append((backbone, weights))
        return features(photos, backbone=backbone, weights=weights, **settings)

    monkeypatch.setattr(sl.finetune, "extract_features", record)
    for network in (
        ["--backbone", "scenelearn_tiny", "--weights", "none"],
        ["--weights", "scenelearn"],
    ):
        code, out, _ = run(capsys, "audit", str(scenes), *network, "--image-px", "32", "--json")
        assert code == 0
        kinds = {row["finding"] for row in json.loads(out)["findings"]}
        assert kinds <= {"label_issues", "near_duplicates"}
    assert networks == [("scenelearn_tiny", None), (None, "scenelearn")]
    assert run(capsys, "audit", str(scenes))[0] == 0
    code, _, err = run(capsys, "audit", str(scenes), "--weights", "none")
    assert code == 2
    assert "`--weights none` needs `--backbone`" in err
    assert len(networks) == 2


# Options


@pytest.fixture
def _workspace(scenes: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with photos and a bundle."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scenes, "photos")
    shutil.copy(bundle, "a.keras")


@pytest.mark.usefixtures("_workspace")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "photos", "--image-px", "96"], "`--image-px` needs `--backbone` or `--weights`"),
        (["audit", "photos", "--shape", "pad"], "`--shape` needs"),
        (["clean", "photos", "--weights", "none", "--preprocessing", "tf"], "`--preprocessing`"),
        (["clean", "photos", "--weights", "none", "--backbone", "resnet50"], "`--backbone` needs"),
        (["size", "resnet50", "--image-px", "64", "--input-shape", "32,32,3"], "Leave one out"),
        (["app", "a.keras", "--export", "app", "--port", "80"], "`--port` must be left out"),
        (["fit", "--manifest", "photos.csv"], "`--manifest` must list photos of FOLDER"),
        (["export", "a.keras", "--out", "a.tflite", "--quantize", "photos"], "split of the fit"),
    ],
)
def test_options_without_effect_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"scenelearn {sl.__version__}\n"


def test_fit_passes_its_options_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scenes: Path,
    tmp_path: Path,
    fitted: FitResult,
) -> None:
    received: dict[str, Any] = {}

    def fit(*_: object, **settings: Any) -> FitResult:
        received.update(settings)
        return fitted

    monkeypatch.setattr("scenelearn.fit", fit)
    options = ["--batch-size", "8", "--learning-rate", "0.01", "--augmentation", "light"]
    options += ["--devices", "all", "--minutes", "3", "--no-audit", "--resume"]
    options += ["--precision", "mixed_bfloat16", "--image-px", "64x96", "--shape", "pad"]
    assert run(capsys, "fit", str(scenes), *options, "--out", str(tmp_path))[0] == 0
    assert received.pop("progress") is not None
    assert received == {
        "batch_size": 8, "learning_rate": 0.01, "augmentation": "light", "devices": "all",
        "image_px": (64, 96), "shape": "pad", "minutes": 3, "resume": True, "broken": "skip",
        "recipe": {}, "seed": 0, "precision": "mixed_bfloat16", "class_weight": None,
        "objective": "accuracy",
    }  # fmt: skip
    # Without --weights, fit uses its default; "none" stands for random weights.
    received.clear()
    options = [*options, "--weights", "none"]
    assert run(capsys, "fit", str(scenes), *options, "--out", str(tmp_path))[0] == 0
    assert received["weights"] is None


@pytest.mark.parametrize("name", ["shape", "precision", "objective"])
def test_choices_are_those_of_the_library(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(ArgumentError) as error:
        FitSettings(**{name: "?"})  # type: ignore[arg-type]
    choices = re.findall(r"'(\w+)'", str(error.value).partition("Received")[0])
    with pytest.raises(SystemExit):
        cli.main(["fit", "photos", f"--{name}", "?"])
    message = capsys.readouterr().err
    assert re.findall(r"\w+", message.partition("choose from")[2]) == choices


def test_fit_splits_as_requested(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scenes: Path,
    tmp_path: Path,
    fitted: FitResult,
) -> None:
    sizes: list[tuple[int, int]] = []

    def fit(splits: Any, **_: Any) -> FitResult:
        sizes.append((len(splits.validation), len(splits.test)))
        return fitted

    monkeypatch.setattr("scenelearn.fit", fit)
    where = ["fit", str(scenes), "--no-audit", "--out", str(tmp_path)]
    assert run(capsys, *where, "--validation", "12", "--test", "0.5")[0] == 0
    splits = sl.split(sl.scan(scenes), validation=12, test=0.5)
    assert sizes == [(len(splits.validation), len(splits.test))]
    code, _, err = run(capsys, *where, "--test", "1.5")
    assert code == 2
    assert "`test` must be" in err


def actions() -> dict[str, list[Any]]:
    """The arguments and options of each command, in the order of its help."""
    commands = cli.parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    return {name: command._actions[1:] for name, command in commands.items()}  # type: ignore[union-attr]


def test_an_option_is_the_same_in_every_command() -> None:
    forms: dict[str, set[Any]] = {}
    orders: list[list[str]] = []
    for command in actions().values():
        options = [action for action in command if action.option_strings]
        orders.append([action.option_strings[0] for action in options])
        for action in options:
            form = (action.metavar, action.type, type(action), tuple(action.choices or ()))
            forms.setdefault(action.option_strings[0], set()).add(form)
    assert {option for option, kinds in forms.items() if len(kinds) > 1} == set()
    for first in orders:
        for second in orders:
            shared = set(first) & set(second)
            assert [o for o in first if o in shared] == [o for o in second if o in shared]


def test_help_lines_are_plain() -> None:
    commands = cli.parser()._subparsers._group_actions[0]  # type: ignore[union-attr]
    for choice in commands._choices_actions:  # type: ignore[attr-defined]
        assert re.fullmatch(r"[A-Z][a-z-]+ .*\.", choice.help), choice.help
    for name, command in actions().items():
        for action in command:
            assert action.help, f"{name} {action.dest}"
            assert not action.help.endswith("."), action.help


# Streams in trouble


class FullStream(io.StringIO):
    """A stream on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.write("")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_stdout_with_a_narrow_encoding(
    monkeypatch: pytest.MonkeyPatch,
    scenes: Path,
    tmp_path: Path,
    fitted: FitResult,
    encoding: str,
) -> None:
    monkeypatch.setattr("scenelearn.fit", lambda *_, **__: fitted)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    out = tmp_path / "Łódź"
    assert cli.main(["fit", str(scenes), "--no-audit", "--out", str(out)]) == 0
    assert stream.errors == "strict"
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "\\u0141" in text
    assert text.rstrip().endswith("PHOTO ...")
    assert (out / "scenes.keras").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("stderr", [None, FullStream()], ids=["closed", "full"])
def test_stderr_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scenes: Path,
    tmp_path: Path,
    stderr: Any,
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    code = cli.main(["fit", str(scenes), *PROBE, "--out", str(tmp_path)])
    assert code == 0
    assert sys.stderr is stderr
    assert "Accuracy" in capsys.readouterr().out
    assert (tmp_path / "scenes.keras").is_file()


def test_stdout_on_a_full_disk_is_reported(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scenes: Path,
    tmp_path: Path,
    fitted: FitResult,
) -> None:
    monkeypatch.setattr("scenelearn.fit", lambda *_, **__: fitted)
    monkeypatch.setattr(sys, "stdout", FullStream())
    assert cli.main(["fit", str(scenes), "--no-audit", "--out", str(tmp_path)]) == 1
    assert "cannot write to the standard output" in capsys.readouterr().err
    assert (tmp_path / "scenes.keras").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("redirections", "code"),
    [
        ("2>&-", 0), (">&-", 0), (">&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1),
        ("| head -n 0", 0),
    ],
)  # fmt: skip
def test_exit_code_of_a_process_whose_streams_fail(redirections: str, code: int) -> None:
    command = f"{sys.executable} -m scenelearn size 'Dense(2)' --input-shape 3 {redirections}"
    command += "; exit ${PIPESTATUS[0]}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.nightly
def test_control_codes_of_names_never_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenes: Path
) -> None:
    folder, code = tmp_path / "photos", "\x1b[2J"
    for name in ("sea", "street"):
        shutil.copytree(scenes / name, folder / f"{code}{name}")
    ended, out, err = run(capsys, "fit", str(folder), *PROBE, "--out", str(tmp_path / "out"))
    assert ended == 0
    assert "\\x1b[2J" in out
    bundle = str(tmp_path / "out/scenes.keras")
    texts = [out, err]
    for command in (
        ["audit", str(folder)],
        ["evaluate", bundle, str(folder)],
        ["compare", bundle, bundle, str(folder)],
        ["predict", bundle, str(folder / f"{code}sea")],
        ["predict", bundle, str(folder / f"{code}sea"), "--csv"],
        ["evaluate", bundle, str(scenes)],
        ["fit", str(folder / f"{code}sea"), "--out", str(tmp_path / "out")],
    ):
        texts += run(capsys, *command)[1:]
    assert not any("\x1b" in text for text in texts)


def test_control_codes_in_log_messages_never_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])

    def scan(*_: object, **__: object) -> None:
        logging.getLogger("scenelearn").warning("skipping %s", "a\x1b[2J.jpg")
        raise KeyboardInterrupt

    monkeypatch.setattr("scenelearn.scan", scan)
    assert run(capsys, "audit", "photos")[2].startswith("skipping a\\x1b[2J.jpg\n")
    assert root.handlers == []


def test_unknown_options_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["size", "Dense(3)", "--\x1b[2J\u2028"])
    assert r"--\x1b[2J\u2028" in capsys.readouterr().err


def test_size_of_rectangular_images(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "size", "mobilenet_0.25", "--image-px", "64x96", "--json")
    expected = sl.estimate(
        "mobilenet_0.25", input_shape=(64, 96, 3), batch_size=32, optimizer="adam"
    )
    assert code == 0
    assert json.loads(out)["n_multiply_adds"] == expected.to_json()["n_multiply_adds"]
    for text in ("64x", "x", "64x96x3", "big"):
        with pytest.raises(SystemExit, match="2"):
            run(capsys, "size", "mobilenet_0.25", "--image-px", text)
        assert "--image-px" in capsys.readouterr().err
