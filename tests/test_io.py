"""Files that are written atomically, and the cache folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest

from scenelearn import _io
from scenelearn._io import (
    atomic_write,
    atomic_write_folder,
    cache_folder,
    require_free_space,
    temporary_array,
)
from scenelearn.errors import ArgumentError, DiskError, DiskSpaceError
from tests.helpers.faults import inject_all, needs_proc
from tests.helpers.systems import needs_posix

Usage = namedtuple("Usage", "total used free")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_some_space_is_always_left_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, 100 * 2**20))
    require_free_space(tmp_path, 36 * 2**20, advice="buy a disk")
    with pytest.raises(DiskSpaceError, match="needs 37 MiB of free space"):
        require_free_space(tmp_path, 37 * 2**20, advice="buy a disk")


# The cache folder


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "x/y"))
    assert cache_folder() == tmp_path / "x/y"
    assert (tmp_path / "x/y").is_dir()
    monkeypatch.delenv("SCENELEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/scenelearn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # on Windows
    assert cache_folder() == tmp_path / "home/.cache/scenelearn"
    monkeypatch.setenv("SCENELEARN_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "home/mine"


def test_a_cache_folder_that_cannot_be_created_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(ArgumentError, match=r"`SCENELEARN_CACHE`.*file/cache.*another folder"):
        cache_folder()


@needs_posix
@pytest.mark.parametrize("home", ["missing", "closed"])
def test_without_a_home_the_cache_is_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, home: str
) -> None:
    for name in ("SCENELEARN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home == "missing":  # and no such user, as in containers
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    else:
        access = os.access
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(
            os, "access", lambda path, mode: path != tmp_path and access(path, mode)
        )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    _io._temporary_cache.cache_clear()
    try:
        folder = cache_folder()
        assert cache_folder() == folder
    finally:
        _io._temporary_cache.cache_clear()
    assert folder.parent == tmp_path / "temporary"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "Set SCENELEARN_CACHE" in caplog.text


def test_a_cache_folder_on_a_missing_drive_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    assert not _io._is_writable(tmp_path / "gone")


def test_a_chosen_cache_folder_needs_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7, raising=False)
    assert cache_folder() == tmp_path / "cache"


# Atomic writes


def write(path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("new")


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep/er/result.json"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert files(target.parent) == ["result.json"]


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    with suppress(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert files(tmp_path) == ["result.json"]


def test_the_old_content_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    with atomic_write(str(target)) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


@needs_posix
def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "whole") as temporary:
        temporary.write_text("")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "whole")}
    assert len(modes) == 1


def test_a_file_that_another_program_has_open_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")

    def refuse(*_: object) -> None:  # as Windows does
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ArgumentError, match=r"file': Permission denied.*other programs"):
        write(tmp_path / "file")
    assert files(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_disk_that_fills_up_is_named_and_the_old_file_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with (
        pytest.raises(DiskSpaceError, match=r"file' needs more free space.*No space.*MiB free"),
        atomic_write(tmp_path / "file"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert files(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_cannot_be_replaced_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_text("old")
    rename = Path.rename

    def fail_second(self: Path, target: Path) -> Path:
        if target == tmp_path / "folder" and not self.name.endswith(".old"):  # not on its way back
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr("scenelearn._io._IS_LINUX", False)  # Linux needs one call for it
    monkeypatch.setattr(Path, "rename", fail_second)
    with (
        pytest.raises(DiskError, match=r"folder.*Input/output"),
        atomic_write_folder(tmp_path / "folder"),
    ):
        pass
    assert (tmp_path / "folder/old").read_text() == "old"
    assert files(tmp_path) == ["folder"]


def test_a_long_name_works(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250 + ".json")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"`path` must name a file.*Add a file name"):
        write(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file/result.json", tmp_path / "file/deep/result.json"):
        with pytest.raises(ArgumentError, match=r"`path` must be in a writable.*Choose another"):
            write(path)
    assert files(tmp_path) == ["file"]


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(ArgumentError, match=r"result\.json.*Permission denied"):
        write(tmp_path / "result.json")


# Each call fails in turn


@needs_proc
def test_written_files_are_old_or_new(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    contents = iter(range(10**6))

    def write() -> None:
        with atomic_write(file) as temporary:
            temporary.write_text(f"{next(contents):06d}")

    def check() -> None:
        assert len(file.read_text()) == 6

    assert inject_all(tmp_path, write, check) > 20


@needs_proc
def test_written_folders_are_old_or_new(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write_folder(tmp_path / "model") as temporary:
            (temporary / "a").write_text("a")

    def check() -> None:
        assert (tmp_path / "model" / "a").read_text() == "a"

    write()
    assert inject_all(tmp_path, write, check) > 10


@needs_proc
def test_array_that_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path))

    def work() -> None:
        with temporary_array((4, 4)) as array:
            array[:] = 1

    assert inject_all(tmp_path, work, lambda: None) >= 8
