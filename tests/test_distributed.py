"""Several devices and several processes give the same results as one device."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import scenelearn as sl
from scenelearn import _distributed, backbones
from scenelearn._distributed import (
    broadcast,
    data_parallel,
    n_devices,
    padded_batch_size,
    process_count,
    process_index,
)
from scenelearn.augment import policy
from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError, DeviceError
from scenelearn.finetune import Recipe, _learner
from scenelearn.finetune._learner import Augmentation, augmented_batches
from tests.helpers import REPOSITORY
from tests.helpers.marks import nightly

TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


def run(code: str, *processes: dict[str, str]) -> list[str]:
    """Run code in new processes at the same time, and return what each printed."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "KERAS_BACKEND": "jax"} | more,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for more in processes
    ]
    try:
        ended = [one.communicate(timeout=500) for one in started]
    finally:
        for one in started:
            one.kill()
    for one, (_, errors) in zip(started, ended, strict=True):
        assert one.returncode == 0, errors[-4000:]
    return [re.sub(r"^\[Gloo\].*\n", "", output, flags=re.M) for output, _ in ended]


def two_processes(**more: str) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [{"ADDRESS": address, "PROCESS": str(k), **more} for k in range(2)]


def assert_same(a: Path, b: Path, tolerance: float) -> None:
    with np.load(a) as one, np.load(b) as other:
        for name in ("losses", "judged", "test", "after"):
            assert np.allclose(one[name], other[name], rtol=0, atol=tolerance, equal_nan=True), (
                name,
                np.abs(one[name] - other[name]).max(),
            )


def stored(folder: Path) -> str:
    """A weights file, as if it held pretrained weights."""
    model = backbones.build("scenelearn_tiny", weights=None, image_px=32, seed=3)
    path = folder / "tiny.weights.h5"
    model.get_layer("backbone").save_weights(path)
    return str(path)


# One process, several devices


def test_without_a_distribution_there_is_one_device() -> None:
    with data_parallel(None):
        assert (n_devices(), padded_batch_size(33)) == (1, 33)
        assert (process_index(), process_count()) == (0, 1)
        assert broadcast({"a": 1}) == {"a": 1}


def test_all_devices_with_a_single_device() -> None:
    with data_parallel("all"):
        assert n_devices() == 1


def test_devices_out_of_range(fitted: sl.FitResult, fit_settings: dict[str, Any]) -> None:
    with pytest.raises(
        ArgumentError, match=r"`devices` must be one of 'all', None.*devices='gpu:0'"
    ):
        sl.fit(fitted.splits, **fit_settings, devices="gpu:0")


def test_other_distributions_are_rejected(fitted: sl.FitResult) -> None:
    import keras

    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"])
    layouts = keras.distribution.LayoutMap(mesh)
    other = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
    with other.scope(), pytest.raises(DeviceError, match=r"DataParallel only.*ModelParallel"):
        sl.fit(fitted.splits)


def test_several_devices_on_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_distributed, "_n_available_devices", lambda: 2)
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    said = r"requires Keras on JAX.*2 devices on tensorflow"
    with pytest.raises(DeviceError, match=said), data_parallel("all"):
        pass


def test_photo_that_one_of_two_processes_cannot_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_learner, "process_index", lambda: 0)
    monkeypatch.setattr(_learner, "process_count", lambda: 2)
    photos = Pixels.from_array(np.zeros((4, 2, 2, 3), np.uint8))

    def all_but_photo_2(indices: npt.NDArray[np.int64]) -> Any:
        there = indices[indices != 2]
        return photos.load(there)[0], there

    train = Batches(
        pixels=replace(photos, load=all_but_photo_2),
        labels=np.zeros(4, np.int32),
        indices=np.arange(4),
        batch_size=4,
    )
    how = Augmentation(policy=policy("none"), recipe=Recipe(), n_classes=2)
    mine = [2 in train.order(epoch)[::2] for epoch in range(8)]
    assert set(mine) == {True, False}
    for epoch, has_it in enumerate(mine):
        batches = augmented_batches(train, how, epoch=epoch, steps=range(1))
        if has_it:
            with pytest.raises(DeviceError, match="process 0 can no longer read"):
                next(batches)
        else:
            assert len(next(batches)[1][1]) == 2


@pytest.mark.slow
def test_33_photos_give_the_same_results_on_two_devices(tmp_path: Path) -> None:
    file = tmp_path / "found.npz"
    run(f"import tests.helpers.distributed as t; t.losses_on_devices({str(file)!r})", TWO_DEVICES)
    with np.load(file) as found:
        assert found["sizes None"].tolist() == [33, 33]
        assert found["sizes all"].tolist() == [34, 34, 34]  # photos, labels, weights
        assert np.allclose(found["losses None"], found["losses all"], rtol=0, atol=1e-6)
        for what in ("seen", "after"):
            assert found[f"{what} all"].shape == (33, 3)
            assert np.allclose(found[f"{what} None"], found[f"{what} all"], rtol=0, atol=1e-6)
        assert found["devices None"].tolist() == [1]
        assert found["devices all"].tolist() == [2]
        assert found["microbatches None"] == 4  # microbatches on one device only
        assert found["microbatches all"] == 0


@pytest.mark.nightly
def test_user_distribution_with_a_batch_size_that_it_does_not_divide(scenes: Path) -> None:
    code = f"import tests.helpers.distributed as t; t.user_sets_a_distribution({str(scenes)!r})"
    (said,) = run(code, TWO_DEVICES)
    assert "`batch_size` must be a multiple of the 2 devices" in said
    assert "batch_size=15. Pass batch_size=16." in said
    assert said.endswith("True\n")


@pytest.mark.parametrize("recipe", nightly({"unfreeze": "stride16"}, {"unfreeze": "all"}))
def test_fit_on_two_devices_equals_fit_on_one(
    scenes: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    weights = stored(tmp_path)
    code = (
        "import tests.helpers.distributed as t; t.fit_to({file!r}, {folder!r}, "
        "devices={devices!r}, weights={weights!r}, epochs=2, batch_size=15, "
        "learning_rate=0.001, recipe={recipe!r})"
    )
    for devices in (None, "all"):
        file = str(tmp_path / f"{devices}.npz")
        said = code.format(
            file=file, folder=str(scenes), devices=devices, weights=weights, recipe=recipe
        )
        run(said, TWO_DEVICES)
    with np.load(tmp_path / "None.npz") as one, np.load(tmp_path / "all.npz") as two:
        assert (str(one["device"]), str(two["device"])) == ("cpu", "cpu × 2")
    # AdamW divides by the size of the gradient, which amplifies the rounding of gradients near 0;
    # at three times this learning rate the difference was 3e-4.
    assert_same(tmp_path / "None.npz", tmp_path / "all.npz", 1e-4)


# Several processes


@pytest.mark.slow
def test_processes_share_the_main_process_values_and_each_batch() -> None:
    code = "import tests.helpers.distributed as t; t.broadcast_everything()"
    said = [one.splitlines() for one in run(code, *two_processes())]
    for k in range(2):
        assert said[k][0].startswith("A fit with several processes must use the devices of all of ")
        assert said[k][1] == f"({k}, 2) 2 4"
        assert said[k][2] == "{'k': 0, 'nan': nan} -4"
        assert said[k][3] == "[0, 1, 2, 3, 4] None"
        assert said[k][4] == "[[1.5, nan, 0.0]]"
        own = 10.0 * k
        assert said[k][5] == str([0.0, 1.0 + own, 2.0, 3.0 + own, 4.0 + own, 5.0])
        assert said[k][6].startswith("All processes of a fit must have the same photos.")
    photos = Pixels.from_array(np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3))
    train = Batches(
        pixels=photos, labels=np.arange(7, dtype=np.int32), indices=np.arange(7), batch_size=4
    )
    line = 7
    for recipe in (Recipe(), Recipe(mixup_alpha=0.2)):
        how = Augmentation(policy=policy("none"), recipe=recipe, n_classes=7)
        for _, (images, targets) in augmented_batches(train, how, epoch=0, steps=range(2)):
            rows, classes = np.asarray(images)[:, 0, 0, 0], np.asarray(targets)
            for k in range(2):  # each has every second row of the batch in one process
                assert said[k][line] == f"{rows[k::2].tolist()} {classes[k::2].tolist()}"
            line += 1


@pytest.mark.slow
def test_two_processes_read_a_share_each_and_get_the_same(scenes: Path, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder, shards = tmp_path / "photos", tmp_path / "shards"
    shutil.copytree(scenes, folder)
    files = sorted(folder.glob("*/*.jpg"))
    (folder / "sea" / "cut.jpg").write_bytes(files[0].read_bytes()[:500])
    (folder / "sea" / "again.jpg").write_bytes(files[0].read_bytes())
    shards.mkdir()
    for k in range(2):
        images = [{"bytes": file.read_bytes()} for file in files[k::12]]
        labels = [file.parent.name for file in files[k::12]]
        rows = pa.table({"image": images, "label": labels})
        parquet.write_table(rows, shards / f"train-{k}.parquet", row_group_size=2)
    code = (
        "import tests.helpers.distributed as t; "
        f"t.read_together({str(folder)!r}, {str(shards)!r}, {stored(tmp_path)!r}, {{!r}})"
    )
    out = [str(tmp_path / f"{k}.npz") for k in range(2)]
    alone = str(tmp_path / "alone.npz")
    (expected,) = run(code.format(alone), {"SCENELEARN_CACHE": str(tmp_path / "cache of one")})
    processes = two_processes(SCENELEARN_CACHE=str(tmp_path / "cache of two"))
    code = code.format("%s").replace("'%s'", "__import__('os').environ['OUT']")
    said = run(code, *[one | {"OUT": file} for one, file in zip(processes, out, strict=True)])
    results, totals = expected.splitlines()
    assert totals == "74 73"
    assert [one.splitlines() for one in said] == [[results, "37 36"], [results, "37 37"]]
    assert json.loads(results)[2]["findings"]  # the copy
    with np.load(alone) as one, np.load(out[0]) as first, np.load(out[1]) as second:
        for name, tolerance in (("features", 1e-5), ("test", 1e-4)):
            assert np.array_equal(first[name], second[name])
            np.testing.assert_allclose(first[name], one[name], rtol=0, atol=tolerance)


@pytest.mark.nightly
def test_processes_that_scan_other_files(scenes: Path, tmp_path: Path) -> None:
    for k in range(2):
        shutil.copytree(scenes / "sea", tmp_path / str(k) / f"sea{k}")
    code = f"import tests.helpers.distributed as t; t.scan_other_files({str(tmp_path)!r})"
    for said in run(code, *two_processes()):
        assert said.startswith("All processes of a fit must have the same files to scan.")


@pytest.mark.nightly
def test_fit_in_two_processes_equals_fit_in_one_also_when_resumed(
    scenes: Path, tmp_path: Path
) -> None:
    weights, folder = stored(tmp_path), str(scenes)
    one = tmp_path / "one.npz"
    run(
        f"import tests.helpers.distributed as t; t.fit_to({str(one)!r}, {folder!r}, "
        f"weights={weights!r}, epochs=2, batch_size=15, learning_rate=0.001, "
        "recipe=dict(unfreeze='all'))",
        {"SCENELEARN_CACHE": str(tmp_path / "cache of one")},
    )
    out, cache = str(tmp_path / "process {}.npz"), tmp_path / "cache of two"
    said = run(
        f"import tests.helpers.distributed as t; t.fit_together({folder!r}, {weights!r}, {out!r})",
        *two_processes(SCENELEARN_CACHE=str(cache)),
    )
    assert said[0].splitlines()[0] == "SIGTERM 1"
    assert said[0] == said[1]  # also the schedule, although each has its own clock
    assert_same(tmp_path / "process 0.npz", tmp_path / "process 1.npz", 0)
    assert_same(one, tmp_path / "process 0.npz", 1e-4)
    assert not list(cache.glob("runs/*"))


@pytest.mark.nightly
def test_teacher_in_two_processes_equals_teacher_in_one(scenes: Path, tmp_path: Path) -> None:
    code = "import os, tests.helpers.distributed as t; t.fit_student({!r}, {!r}, os.environ['OUT'])"
    code = code.format(str(scenes), stored(tmp_path))
    one, *two = (tmp_path / f"{name}.npz" for name in ("one", "first", "second"))
    run(code, {"OUT": str(one), "SCENELEARN_CACHE": str(tmp_path / "cache of one")})
    processes = two_processes(SCENELEARN_CACHE=str(tmp_path / "cache of two"))
    run(code, *[more | {"OUT": str(out)} for more, out in zip(processes, two, strict=True)])
    assert_same(*two, 0)
    assert_same(one, two[0], 1e-4)
