"""Let each call that changes the disk fail between `scan` and `export`; nothing may be lost.

    python -m tests.bench.faults [--stages save report ...] [--part 1 2] [--out FILE.json]

Each stage is one public call on a few sample scenes, over files of an earlier run: photos, cache,
checkpoint, bundle, manifest, report and export. First its calls are counted: opening, writing,
renaming, flushing, reserving, mapping, creating folders and removing. Then it is repeated with the
n-th call failing, for each n: on a full disk that stays full, by an I/O error, by too many open
files, by a missing permission, without memory to map, and with the process dying there. A fit takes
seconds: each of its calls fails in one of these ways, in turn.

After each repetition: the call has succeeded, or raised an error of scenelearn that names a path;
every file from before is there and can be read, in its old or its new version; no temporary file is
left, unless the process died; and the same call without a fault succeeds. The process that exports
by TensorFlow is replaced by a copy. `--out` keeps what a file says of stages that are not tried.
`--part 1 2` tries every second call only; the other part can run beside it, with a file of its own.
"""

from __future__ import annotations

import collections
import errno
import functools
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import scenelearn as sl
from scenelearn.classify import _export
from scenelearn.data._manifest import read_manifest
from scenelearn.data._pixels import load_pixels
from scenelearn.data._resize import Resize
from scenelearn.errors import SceneLearnError
from scenelearn.finetune._checkpoint import read_checkpoint, write_checkpoint
from scenelearn.samples import _scenes
from tests.bench._common import bench_parser, commit, write_json
from tests.helpers.faults import ERRORS, KILL, Killed, faults

SETTINGS: dict[str, Any] = {
    "backbone": "scenelearn_tiny", "weights": "scenelearn", "image_px": 32, "epochs": 1,
    "batch_size": 16, "verbose": False,
}  # fmt: skip
_PER_CLASS = 4
_RUN = "cache/runs/earlier/state"  # a checkpoint of another run
_NAMES = {KILL: "kill", **{k: errno.errorcode[k] for kinds in ERRORS.values() for k in kinds}}


class Stage(NamedTuple):
    """One public call.

    Attributes:
        run: the call; what it returns must be equal each time.
        before: what is removed first, so that the call writes it: patterns.
        is_slow: takes seconds; each of its calls fails in one way only, in turn.
    """

    run: Callable[[], Any]
    before: tuple[str, ...] = ()
    is_slow: bool = False


class Bench:
    """A folder with everything that an earlier run has left, and the stages on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.saved = folder / "work", folder / "saved"
        self.folder.mkdir()
        os.environ["SCENELEARN_CACHE"] = str(self.folder / "cache")
        os.environ["TMPDIR"] = str(self.folder / "tmp")
        tempfile.tempdir = None
        (self.folder / "tmp").mkdir()
        self.photos = sl.scan(sl.sample_scenes(self.folder / "photos", _PER_CLASS), verbose=False)
        self.splits = sl.split(self.photos, validation=0.25, test=0.25)
        self.splits.save(self.folder / "list.csv")
        self.fit = sl.fit(self.splits, **SETTINGS)
        write_checkpoint(self.folder / _RUN, {"elapsed_s": 1}, {"a": np.arange(3)})
        self.checkpoint = self.fit._checkpoint
        assert self.checkpoint is not None
        assert self.checkpoint.file.is_file()
        self.stages = self._stages()
        for stage in self.stages.values():
            stage.run()
        sl.fit(self.splits, **SETTINGS)  # its checkpoint, which `save` has removed
        shutil.copytree(self.folder, self.saved)

    def _stages(self) -> dict[str, Stage]:
        f, fit, splits, photos = self.folder, self.fit, self.splits, self.photos

        def run_fit(**options: Any) -> Any:
            result = sl.fit(splits, **SETTINGS, **options)
            return result.test_probabilities.tolist()

        def load() -> Any:
            return (
                sl.load(f / "scenes.keras")
                .predict_proba(np.full((1, 32, 32, 3), 99, np.uint8), verbose=False)
                .tolist()
            )

        return {
            "sample_scenes": Stage(lambda: sl.sample_scenes(f / "scenes", 1, verbose=False).name),
            "scan": Stage(lambda: sl.scan(f / "photos", f / "list.csv", verbose=False).paths),
            "audit": Stage(lambda: list(sl.audit(photos, verbose=False).groups)),
            "split": Stage(lambda: splits.save(f / "split.csv").name),
            "decode": Stage(
                lambda: float(load_pixels(photos, Resize(32, 32)).read([0])[0].mean()),
                ("cache/pixels-*",),
            ),
            "features": Stage(
                lambda: sl.finetune.extract_features(
                    photos, backbone="scenelearn_tiny", weights="scenelearn", image_px=32,
                    verbose=False,
                ).tolist(),
                ("cache/features-*",),
            ),
            "save": Stage(lambda: fit.save(f / "scenes.keras").name),
            "load": Stage(load),
            "report": Stage(lambda: sl.report(fit, f / "report").name),
            "export": Stage(lambda: fit.classifier.export(f / "scenes.onnx").format),
            "export_folder": Stage(lambda: fit.classifier.export(f / "saved-model").format),
            "fit": Stage(run_fit, ("cache/features-*", "cache/pixels-*"), is_slow=True),
            "resume": Stage(lambda: run_fit(resume=True), is_slow=True),
        }  # fmt: skip

    def inject(self, name: str, part: tuple[int, int]) -> dict[str, Any]:
        """Repeat a stage with each of its calls failing, or with those of one part of them."""
        stage, start = self.stages[name], time.monotonic()
        self._restore(stage)
        with faults(self.folder, skip="photos/") as disk:
            expected = stage.run()
        calls = list(enumerate(disk.calls))[part[0] - 1 :: part[1]]
        outcomes, problems = collections.Counter[str](), list[str]()
        injected = collections.Counter[str]()
        n_possible = 0
        for n, call in calls:
            errors = (*ERRORS[call.kind], KILL)
            n_possible += len(errors)
            for error in (errors[n % len(errors)],) if stage.is_slow else errors:
                outcome, problem = self._try(stage, n, error, expected)
                outcomes[outcome] += 1
                injected[_NAMES[error]] += 1
                if problem:
                    problems.append(
                        f"{name}, call {n} ({call.kind} {call.path}), {_NAMES[error]}: {problem}"
                    )
                    print(problems[-1], file=sys.stderr, flush=True)
        kinds = collections.Counter(call.kind for _, call in calls)
        return {
            "calls": len(calls), "calls_by_kind": dict(kinds), "faults": outcomes.total(),
            "possible_faults": n_possible, "faults_by_kind": dict(injected),
            "outcomes": dict(outcomes),
            "failures": len(problems), "messages": problems[:10],
            "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip

    def _restore(self, stage: Stage) -> None:
        """Everything as it was left by the earlier run."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder)
        for pattern in stage.before:
            for path in self.folder.glob(pattern):
                shutil.rmtree(path)

    def _try(self, stage: Stage, n: int, error: int, expected: Any) -> tuple[str, str]:
        """Run a stage with one fault, and once more without; the outcome, and what is wrong."""
        self._restore(stage)
        before = self._files()
        outcome, problem = "succeeded", ""
        with faults(self.folder, n, error, skip="photos/") as disk:
            try:
                if stage.run() != expected:
                    problem = "another result"
            except Killed:
                outcome = "killed"
            except SceneLearnError as raised:
                outcome = "typed error"
                if str(self.folder) not in str(raised):
                    problem = f"no path in: {raised}"
            except Exception as raised:  # noqa: BLE001 - this is what is looked for
                outcome, problem = "untyped error", f"{type(raised).__name__}: {raised}"
        after = self._files()
        is_removal = n < len(disk.calls) and disk.calls[n].kind == "remove"
        if error != KILL and not is_removal and (left := self._temporary(after)):
            problem = problem or f"left behind: {left[0]}"
        problem = problem or self._lost(before, after)
        if not problem and error in (KILL, errno.ENOSPC):  # these change most
            try:
                if stage.run() != expected:
                    problem = "another result without the fault"
            except Exception as raised:  # noqa: BLE001 - likewise
                problem = f"without the fault: {type(raised).__name__}: {raised}"
        return outcome, problem

    def _files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }

    @staticmethod
    def _temporary(files: dict[str, bytes]) -> list[str]:
        return [name for name in files if "/." in f"/{name}" or name.startswith("tmp/")]

    def _lost(self, before: dict[str, bytes], after: dict[str, bytes]) -> str:
        """Which file is no longer there, or cannot be read."""
        assert self.checkpoint is not None
        own = self.checkpoint.file.relative_to(self.folder).as_posix()
        for name, content in before.items():
            if name not in after:
                if name != own:  # the fit starts again, or its result is safe
                    return f"{name} is gone"
            elif after[name] != content:
                try:
                    _read(self.folder / name)
                except Exception as error:  # noqa: BLE001 - likewise
                    return f"{name} cannot be read: {type(error).__name__}: {error}"
        return ""


def _read(path: Path) -> None:
    """Read a file completely."""
    if path.suffix == ".keras":
        sl.load(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        read_manifest(path)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.name == "state":
        read_checkpoint(path)
    elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("not complete")
    elif not path.stat().st_size:
        raise ValueError("empty")


@contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Let `export` write a copy of the bundle, and take the classifier's own probabilities."""
    probabilities: list[Any] = []
    predict = sl.classify.Classifier.predict_proba

    def remember(self: Any, *arguments: Any, **options: Any) -> Any:
        probabilities[:] = [predict(self, *arguments, **options)]
        return probabilities[0]

    def work(folder: Path, job: dict[str, Any]) -> Any:
        if job["kind"] == "saved_model":
            (folder / "export" / "variables").mkdir(parents=True)
            for name in ("saved_model.pb", "variables/variables.index"):
                shutil.copyfile(folder / "scenes.keras", folder / "export" / name)
        else:
            shutil.copyfile(folder / "scenes.keras", folder / "export.onnx")
        return probabilities[0]

    with (
        mock.patch.object(_export, "_REQUIREMENTS", dict.fromkeys(_export._REQUIREMENTS, ())),
        mock.patch.object(_export, "_run_worker", work),
        mock.patch.object(sl.classify.Classifier, "predict_proba", remember),
    ):
        yield


def main(arguments: list[str] | None = None) -> int:
    """Inject the faults; 1 if a call had another effect than documented."""
    parser = bench_parser("faults", __doc__)
    parser.add_argument("--stages", nargs="+", help="only these (default: all)")
    parser.add_argument(
        "--part", nargs=2, type=int, default=[1, 1], help="K N: the K-th of N parts"
    )
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    options = parser.parse_args(arguments)
    logging.getLogger("scenelearn").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m tests.bench.faults", *(Path(word).name for word in given)])
    environment = {"python": platform.python_version(), "system": platform.system()}
    environment |= {name: version(name) for name in ("scenelearn", "keras", "jax", "numpy")}
    environment["commit"] = commit()
    run = {"command": command, "environment": environment}
    os.environ["SCENELEARN_THREADS"] = "1"  # the same order of calls each time
    memory = next((name for name in ("/dev/shm",) if os.access(name, os.W_OK)), None)
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        tempfile.TemporaryDirectory() as programs,
        mock.patch.object(_scenes, "render_scene", functools.cache(_scenes.render_scene)),
        _without_tensorflow(),
    ):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs  # not a part of what is copied
        bench = Bench(Path(folder))
        runs = []
        if options.out and Path(options.out).is_file():
            runs = json.loads(Path(options.out).read_text())["runs"]
        for name in options.stages or bench.stages:
            found = {"stage": name} | bench.inject(name, tuple(options.part)) | run
            if options.part[1] > 1:
                found["part"] = "{} of {}".format(*options.part)
            print(f"{name}: {found}", file=sys.stderr, flush=True)
            about = name, found.get("part")
            runs = [each for each in runs if (each["stage"], each.get("part")) != about] + [found]
            runs.sort(key=lambda each: list(bench.stages).index(each["stage"]))
            sums = ("calls", "faults", "possible_faults", "failures")
            result = {key: sum(each[key] for each in runs) for key in sums} | {"runs": runs}
            if options.out:
                write_json(options.out, result)
    print(json.dumps(result))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
