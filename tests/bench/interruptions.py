"""Kill, interrupt and terminate fits, and check that nothing is lost.

    python -m tests.bench.interruptions [--kills 10] [--saves 20] [--interrupts 24] [--terms 12]
        [--seed 0] [--out FILE.json [--resume]]

Each fit is a process of its own, on 72 sample scenes, with a small network with random weights.

1. kill -9 at random moments: the fit is started, killed, and resumed to its end. One fit is killed
   again and again until it finishes. After each epoch, the SHA-256 of weights, optimizer, best
   weights and history (without seconds) must equal that of an uninterrupted run.
2. kill -9 while a checkpoint or a classifier is being saved: the file must load.
3. SIGINT and SIGTERM at random moments: the process must exit cleanly within one training step,
   with a classifier that predicts, or, before there is one, with `KeyboardInterrupt`.
4. The fraction of a fit's time that writing checkpoints takes, with default settings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench._common import bench_parser, write_json

SETTINGS: dict[str, Any] = {
    "backbone": "scenelearn_tiny", "weights": None, "image_px": 48, "epochs": 12, "batch_size": 8,
}  # fmt: skip
INTERVAL_S = 0.2  # between checkpoints within an epoch: short, so that kills hit different ones


def digest_of(state: Any, model: Any) -> str:
    """SHA-256 of weights, optimizer, best weights and history, without the times."""
    from scenelearn.finetune._trainer import pack

    metadata, arrays = pack(state, model)
    for epoch in metadata["history"]:
        del epoch["seconds"]
    for key in ("step_s", "reserve_s"):
        del metadata["schedule"][key]
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for array in arrays.values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = bench_parser("interruptions", __doc__)
    parser.add_argument("--kills", type=int, default=10, help="number of kills during a fit")
    parser.add_argument("--saves", type=int, default=20, help="number of kills during a save")
    parser.add_argument("--interrupts", type=int, default=24, help="number of SIGINTs during a fit")
    parser.add_argument("--terms", type=int, default=12, help="number of SIGTERMs during a fit")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the moments")
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    parser.add_argument("--resume", action="store_true", help="keep the stages that FILE contains")
    parser.add_argument("--worker", choices=list(_WORKERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _WORKERS[options.worker]()
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m tests.bench.interruptions", *(Path(a).name for a in given)])
    table: dict[str, Any] = {"command": command, "seed": options.seed, "settings": SETTINGS}
    earlier = json.loads(Path(options.out).read_text()) if options.resume else {}
    # Background jobs of a shell ignore SIGINT, and so would the fits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="scenelearn-lost-") as folder:
        bench = Bench(Path(folder), options.seed)
        stages: dict[str, Callable[[], Any]] = {
            "uninterrupted": bench.run_uninterrupted,
            "kills": lambda: bench.kill_fits(options.kills),
            "stops": lambda: bench.stop_fits(options.interrupts, options.terms),
            "checkpoint_saves": lambda: bench.kill_saves("checkpoint", options.saves),
            "bundle_saves": lambda: bench.kill_saves("bundle", options.saves),
            "checkpoint_overhead": bench.measure_checkpoints,
        }
        for name, stage in stages.items():
            done = name in earlier and name != "uninterrupted"  # the others need it
            table[name] = earlier[name] if done else stage()
            if options.out:  # after each stage, in case this is interrupted as well
                write_json(options.out, table)
    print(json.dumps(table, indent=1))
    return None


class Bench:
    """Starts and stops workers."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.expected: dict[str, Any] = {}
        self.uninterrupted_s = 0.0

    def run_uninterrupted(self) -> dict[str, Any]:
        """Fit without interruption: the expected result, and how long it takes."""
        first = self._run("fit", "prepare")  # compiles the programs for all others
        started = time.monotonic()
        self.expected = self._run("fit", "uninterrupted")
        self.uninterrupted_s = time.monotonic() - started
        return {
            "deterministic": first["digests"] == self.expected["digests"],
            "environment": self.expected["environment"],
            "n_epochs": SETTINGS["epochs"],
            "seconds": round(self.uninterrupted_s, 2),
        }

    def kill_fits(self, n: int) -> dict[str, Any]:
        runs: list[dict[str, Any]] = []
        while len(runs) < n:
            name = f"kill {len(runs)}"
            state = self._killed(name, self.random.uniform(0.05, 0.95) * self.uninterrupted_s)
            if "outcome" in state:  # it finished first
                self._file(name).with_suffix(".json").unlink()
                continue
            runs.append(self._compare(state, self._run("fit", name, resume=True)))
            print(json.dumps(runs[-1]), flush=True)
        n_kills, name = 0, "chain"
        while n_kills < 50:
            state = self._killed(
                name, self.random.uniform(0.3, 0.9) * self.uninterrupted_s, resume=True
            )
            n_kills += 1
            if "outcome" in state:  # it finished first
                break
        state = state if "outcome" in state else self._run("fit", name, resume=True)
        last = self._compare({"at": f"{n_kills} kills, one after another"}, state)
        return {
            "identical": sum(run["identical"] for run in runs),
            "total": len(runs),
            "chain": last,
            "runs": runs,
        }

    def kill_saves(self, what: str, n: int) -> dict[str, int]:
        """Kill a worker during a save; it prints when each save begins and ends."""
        n_inside = n_loaded = n_tries = 0
        while n_inside < n and n_tries < 20 * n:
            n_tries += 1
            file = self._file(f"{what} {n_tries}")
            with self._start(f"save_{what}", file.name, resume=False) as worker:
                assert worker.stdout is not None
                for line in worker.stdout:
                    if line.strip() == "ready":
                        break
                time.sleep(self.random.uniform(0.0, 0.4))
                worker.kill()
                lines = [line.strip() for line in worker.stdout if line.strip() in ("begin", "end")]
            if lines and lines[-1] == "begin":
                n_inside += 1
                n_loaded += _loads(what, file)
        return {"loaded": n_loaded, "total": n_inside, "kills": n_tries}

    def stop_fits(self, n_interrupts: int, n_terms: int) -> dict[str, Any]:
        runs: list[dict[str, Any]] = []
        kinds = ["SIGINT"] * n_interrupts + ["SIGTERM"] * n_terms
        while kinds:
            kind, name = kinds[0], f"stop {len(kinds)}"
            for ending in (".started", ".ended", ".json"):  # of an attempt that came too late
                self._file(name).with_suffix(ending).unlink(missing_ok=True)
            worker = self._start("fit", name, resume=False)
            time.sleep(self.random.uniform(0.25, 0.95) * self.uninterrupted_s)
            if self._file(name).with_suffix(".ended").exists():  # the fit finished first
                worker.communicate()
                continue
            del kinds[0]
            sent = time.monotonic()
            worker.send_signal(getattr(signal, kind))
            out, err = worker.communicate(timeout=300)
            ended = time.monotonic() - sent
            result = self._read(name)
            outcome = result.get("outcome", "")
            late = sum(when > sent for when in result.get("steps", []))
            earlier = [what for when, what in result.get("phases", []) if when < sent]
            clean = outcome in ("stopped", "finished", "interrupted") and late <= 1
            if outcome == "stopped":
                clean &= result["predicts"]
            if worker.returncode == -signal.SIGTERM and not self._fit_started(name):
                clean, outcome = True, "before the fit"  # Python was still being imported
            if not clean and "KeyboardInterrupt" in err and not self._fit_started(name):
                clean, outcome = True, "before the fit"
            run = {
                "signal": kind, "clean": clean, "outcome": outcome, "steps_after": late,
                "seconds": round(ended, 2), "during": earlier[-1] if earlier else "start",
            }  # fmt: skip
            if not clean:
                run["output"] = (out + err)[-2000:]
            runs.append(run)
            print(json.dumps(run), flush=True)
        outcomes = [run["outcome"] for run in runs]
        return {
            "clean": sum(run["clean"] for run in runs),
            "total": len(runs),
            "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
            "max_steps_after": max((run["steps_after"] for run in runs), default=0),
            "runs": runs,
        }

    def measure_checkpoints(self) -> dict[str, float]:
        return dict(self._run("measure_checkpoints", "checkpoints"))

    def _killed(self, name: str, after_s: float, *, resume: bool = False) -> dict[str, Any]:
        worker = self._start("fit", name, resume=resume)
        time.sleep(after_s)
        worker.kill()
        worker.communicate()
        return {"at": round(after_s, 2), **self._read(name)}

    def _compare(self, state: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Whether each later epoch, the end and the predictions equal the uninterrupted run's."""
        expected = {key: self.expected["digests"][key] for key in result["digests"]}
        identical = (
            result["digests"] == expected and result["predictions"] == self.expected["predictions"]
        )
        epochs = [int(key) for key in result["digests"] if key != "end"]
        resumed = f"epoch {min(epochs)}" if epochs else "the test"
        return {"killed_at_s": state["at"], "resumed_in": resumed, "identical": identical}

    def _file(self, name: str) -> Path:
        return self.folder / name.replace(" ", "-")

    def _read(self, name: str) -> dict[str, Any]:
        file = self._file(name).with_suffix(".json")
        return json.loads(file.read_text()) if file.exists() else {}

    def _fit_started(self, name: str) -> bool:
        return self._file(name).with_suffix(".started").exists()

    def _run(self, worker: str, name: str, *, resume: bool = False) -> dict[str, Any]:
        process = self._start(worker, name, resume=resume)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(out + err)
        return self._read(name)

    def _start(self, worker: str, name: str, *, resume: bool) -> subprocess.Popen[str]:
        environment = os.environ | {
            "KERAS_BACKEND": "jax",
            "SCENELEARN_CACHE": str(self.folder / "cache"),
            "LOST_FOLDER": str(self.folder),
            "LOST_FILE": str(self._file(name)),
            "LOST_RESUME": str(int(resume)),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bench.interruptions", "--worker", worker],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


# What runs in the workers


def _scenes() -> Any:
    import scenelearn as sl

    folder = Path(os.environ["LOST_FOLDER"], "scenes")
    if not folder.exists():
        sl.sample_scenes(folder, 12, 0)
    return sl.split(sl.scan(folder))


def _fit() -> None:
    import numpy as np

    import scenelearn as sl
    from scenelearn.finetune import _checkpoint, _run
    from scenelearn.finetune._trainer import TrainingState

    _checkpoint.INTERVAL_S, _checkpoint.MAX_TIME_FRACTION = INTERVAL_S, 1.0
    file = Path(os.environ["LOST_FILE"])
    digests: dict[str, str] = {}
    steps: list[float] = []
    phases: list[tuple[float, str]] = []
    end_epoch, train = TrainingState.end_epoch, _run.train

    def record_epoch(state: TrainingState, epoch: Any, model: Any) -> None:
        end_epoch(state, epoch, model)
        digests[str(epoch.number)] = digest_of(state, model)

    def record_end(learner: Any, state: TrainingState, control: Any) -> str:
        stopped = train(learner, state, control)
        digests["end"] = digest_of(state, learner.model)
        return stopped

    def progress(what: str, _done: int, _total: int) -> None:
        if not phases or phases[-1][1] != what:
            phases.append((time.monotonic(), what))
        if what == "fine-tuning":
            steps.append(time.monotonic())

    TrainingState.end_epoch, _run.train = record_epoch, record_end  # type: ignore[method-assign]
    splits = _scenes()
    result: dict[str, Any] = {}
    try:
        file.with_suffix(".started").touch()
        fit = sl.fit(splits, **SETTINGS, resume=os.environ["LOST_RESUME"] == "1", progress=progress)
        file.with_suffix(".ended").touch()
        predictions = hashlib.sha256(np.ascontiguousarray(fit.test_probabilities).tobytes())
        photo = splits.photos.file(0)
        if file.name == "prepare":
            fit.save(file.with_suffix(".keras"))
        result = {
            "outcome": "stopped" if fit.stopped else "finished",
            "predictions": predictions.hexdigest(),
            "environment": fit.environment,
            "predicts": fit.classifier.predict(photo)[0].label in splits.photos.class_names,
        }
    except KeyboardInterrupt:
        result = {"outcome": "interrupted"}
    result |= {"digests": digests, "steps": steps, "phases": phases}
    file.with_suffix(".json").write_text(json.dumps(result))


def _save(what: str) -> None:
    """Save again and again, and print when each save begins and ends."""
    import numpy as np

    import scenelearn as sl
    from scenelearn.finetune._checkpoint import write_checkpoint

    file = Path(os.environ["LOST_FILE"])
    if what == "bundle":
        classifier = sl.load(Path(os.environ["LOST_FOLDER"], "prepare.keras"))
        save = lambda: classifier.save(file.with_suffix(".keras"))  # noqa: E731
    else:
        arrays = {f"model/{k}": np.full((1000, 1000), k, np.float32) for k in range(8)}
        save = lambda: write_checkpoint(file.with_suffix(".state"), {"n": 1}, arrays)  # noqa: E731
    save()
    print("ready", flush=True)
    while True:
        print("begin", flush=True)
        save()
        print("end", flush=True)


def _loads(what: str, file: Path) -> bool:
    """Whether the file loads."""
    import scenelearn as sl
    from scenelearn.finetune._checkpoint import read_checkpoint

    try:
        if what == "bundle":
            sl.load(file.with_suffix(".keras"))
        else:
            read_checkpoint(file.with_suffix(".state"))
    except (ValueError, OSError) as error:
        print(error, flush=True)
        return False
    return True


def _measure_checkpoints() -> None:
    """Measure the fraction of fine-tuning that checkpoints take, for a typical network."""
    import scenelearn as sl
    from scenelearn.finetune import _run

    measured: list[Any] = []
    train = _run.train

    def timed_train(learner: Any, state: Any, control: Any) -> str:
        start = time.monotonic()
        stopped = train(learner, state, control)
        measured.extend([time.monotonic() - start, control.checkpoint])
        return stopped

    _run.train = timed_train
    settings = {"backbone": "mobilenet_v2_0.35", "weights": None, "image_px": 96, "epochs": 12}
    sl.fit(_scenes(), **settings)
    seconds, checkpoint = measured
    result = {
        "network": settings["backbone"],
        "seconds": round(seconds, 1),
        "checkpoints": checkpoint.n_written,
        "writing_s": round(checkpoint.seconds, 3),
        "fraction": round(checkpoint.seconds / seconds, 5),
    }
    Path(os.environ["LOST_FILE"]).with_suffix(".json").write_text(json.dumps(result))


_WORKERS = {
    "fit": _fit,
    "save_bundle": lambda: _save("bundle"),
    "save_checkpoint": lambda: _save("checkpoint"),
    "measure_checkpoints": _measure_checkpoints,
}

if __name__ == "__main__":
    main()
