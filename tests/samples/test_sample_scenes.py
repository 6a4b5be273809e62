from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenelearn import samples
from scenelearn.errors import ArgumentError
from scenelearn.samples import CLASS_NAMES, sample_scenes


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_scenes(tmp_path_factory.mktemp("five"), per_class=5)


def test_the_package_exports_the_function_and_the_class_names() -> None:
    assert samples.__all__ == ["CLASS_NAMES", "sample_scenes"]
    assert CLASS_NAMES == ("buildings", "forest", "glacier", "mountain", "sea", "street")


def test_there_is_one_folder_per_class(five: Path) -> None:
    wanted = {f"{name}/{name}_{index:04d}.jpg" for name in CLASS_NAMES for index in range(5)}
    assert set(digests(five)) == wanted


def test_photos_are_rgb_jpegs_of_150_px(five: Path) -> None:
    for path in five.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (150, 150))


def test_photos_differ_from_each_other(five: Path) -> None:
    assert len(set(digests(five).values())) == 5 * len(CLASS_NAMES)


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    assert digests(sample_scenes(tmp_path / "a", 1)) == digests(sample_scenes(tmp_path / "b", 1))


def test_more_photos_do_not_change_the_first_ones(five: Path, tmp_path: Path) -> None:
    three = digests(sample_scenes(tmp_path, per_class=3))
    assert three.items() < digests(five).items()


def test_threads_do_not_matter(five: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = pool.map(lambda n: sample_scenes(tmp_path / str(n), per_class=2), range(4))
        found = [digests(folder) for folder in folders]
    assert found == 4 * [found[0]]
    assert found[0].items() < digests(five).items()


def test_global_random_state_is_neither_read_nor_changed(five: Path, tmp_path: Path) -> None:
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    again = digests(sample_scenes(tmp_path, per_class=1))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert again.items() < digests(five).items()


def test_another_seed_gives_other_photos(five: Path, tmp_path: Path) -> None:
    other = digests(sample_scenes(tmp_path, per_class=1, seed=1))
    assert not set(other.values()) & set(digests(five).values())


def test_existing_photos_are_replaced_and_other_files_kept(tmp_path: Path) -> None:
    folder = sample_scenes(tmp_path / "scenes", per_class=1)
    wanted = digests(folder)
    (folder / "sea" / "sea_0000.jpg").write_bytes(b"broken")
    (folder / "sea" / "mine.txt").write_text("mine")
    sample_scenes(folder, per_class=1)
    assert (folder / "sea" / "mine.txt").read_text() == "mine"
    (folder / "sea" / "mine.txt").unlink()
    assert digests(folder) == wanted


def test_failed_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        sample_scenes(tmp_path, per_class=1)
    assert digests(tmp_path) == {}


def test_folder_may_be_a_string_and_is_created(tmp_path: Path) -> None:
    wanted = tmp_path / "new" / "deeper"
    assert sample_scenes(str(wanted), per_class=1) == wanted
    assert wanted.is_dir()


def test_numpy_integers_are_accepted(tmp_path: Path) -> None:
    sample_scenes(tmp_path, per_class=np.int64(1), seed=np.uint8(0))
    assert len(digests(tmp_path)) == len(CLASS_NAMES)


def test_progress_rises_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    sample_scenes(tmp_path, per_class=2, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("rendering sample scenes", 12, 12)
    assert calls == sorted(set(calls))
    assert {(what, total) for what, _, total in calls} == {("rendering sample scenes", 12)}


def test_verbose_shows_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample_scenes(tmp_path, per_class=1, verbose=True)
    assert "rendering sample scenes" in capsys.readouterr().err
    sample_scenes(tmp_path, per_class=1)
    assert not capsys.readouterr().err
    with pytest.raises(ArgumentError, match="`verbose` must be"):
        sample_scenes(tmp_path, per_class=1, verbose=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("per_class", [0, -1, 1.5, "3", None, True])
def test_per_class_that_is_not_a_positive_integer_is_rejected(
    tmp_path: Path, per_class: object
) -> None:
    with pytest.raises(
        ArgumentError, match="`per_class` must be an integer of at least 1"
    ) as caught:
        sample_scenes(tmp_path, per_class)  # type: ignore[arg-type]
    assert f"Received: per_class={per_class!r}" in str(caught.value)
    assert digests(tmp_path) == {}


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None, False])
def test_seed_that_is_negative_or_not_an_integer_is_rejected(tmp_path: Path, seed: object) -> None:
    with pytest.raises(ArgumentError, match=r"`seed` must be an integer of at least 0\. Received"):
        sample_scenes(tmp_path, 1, seed)  # type: ignore[arg-type]


def test_folder_that_is_a_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(ArgumentError, match="`folder` must be an existing or a new folder"):
        sample_scenes(file, per_class=1)
    assert file.read_text() == "kept"


def test_a_file_with_the_name_of_a_class_is_rejected_before_anything_is_rendered(
    tmp_path: Path,
) -> None:
    (tmp_path / "sea").write_text("kept")
    with pytest.raises(ArgumentError, match="sea"):
        sample_scenes(tmp_path, per_class=1)
    assert list(digests(tmp_path)) == ["sea"]


def test_folder_that_is_not_a_path_is_rejected() -> None:
    with pytest.raises(ArgumentError, match="`folder` must be a path"):
        sample_scenes(3, per_class=1)  # type: ignore[arg-type]


def test_mean_color_does_not_separate_the_classes(tmp_path: Path) -> None:
    n_photos = 16
    folder = sample_scenes(tmp_path, per_class=n_photos)
    means = np.empty((len(CLASS_NAMES), n_photos, 3))
    for label, name in enumerate(CLASS_NAMES):
        for index, path in enumerate(sorted((folder / name).iterdir())):
            with Image.open(path) as image:
                means[label, index] = np.asarray(image).mean((0, 1))
    centroids = means[:, : n_photos // 2].mean(1)
    held = means[:, n_photos // 2 :]
    nearest = np.linalg.norm(held[:, :, None] - centroids, axis=-1).argmin(-1)
    accuracy = (nearest == np.arange(len(CLASS_NAMES))[:, None]).mean()
    assert accuracy < 0.5
