"""Kill, interrupt and terminate fits: what is lost? Nothing, or this says so.

python -m tests.bench.nothing_lost [--kills 10] [--saves 20] [--interrupts 24] [--terms 12]
    [--seed 0] [--out FILE.json [--resume]]

Each fit is a process of its own, on 72 sample scenes, with a small network from random weights.

1. kill -9 at random moments: started anew, killed, then resumed to the end. And one run that is
   killed again and again until it comes through. After each epoch, the SHA-256 of weights,
   optimizer, best weights and history (without seconds) must be that of a run without a break.
2. kill -9 inside a save, of a checkpoint and of a classifier: the file must load.
3. SIGINT and SIGTERM at random moments: the process must end in order, within one training step,
   with a classifier that predicts, or, before there is one, with `KeyboardInterrupt`.
4. How long writing checkpoints takes, as a share of a fit with its usual settings.
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

SETTINGS: dict[str, Any] = {
    "backbone": "scenelearn_tiny", "weights": None, "image_px": 48, "epochs": 12, "batch_size": 8,
}  # fmt: skip
EVERY_S = 0.2  # between two checkpoints within an epoch; so short that each kill meets others


def digest_of(state: Any, model: Any) -> str:
    """SHA-256 of weights, optimizer, best weights and history, but for the times."""
    from scenelearn.finetune._state import pack

    about, arrays = pack(state, model)
    for epoch in about["history"]:
        del epoch["seconds"]
    for key in ("step_s", "judging_s", "keep_s"):
        del about["schedule"][key]
    found = hashlib.sha256(json.dumps(about).encode())
    for array in arrays.values():
        found.update(array.tobytes())
    return found.hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="kill -9 during a fit")
    parser.add_argument("--saves", type=int, default=20, help="kill -9 inside a save")
    parser.add_argument("--interrupts", type=int, default=24, help="SIGINT during a fit")
    parser.add_argument("--terms", type=int, default=12, help="SIGTERM during a fit")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", help="a JSON file to write")
    parser.add_argument("--resume", action="store_true", help="keep the stages that FILE has")
    parser.add_argument("--worker", choices=list(_WORKERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _WORKERS[options.worker]()
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m tests.bench.nothing_lost", *(Path(a).name for a in given)])
    table: dict[str, Any] = {"command": command, "seed": options.seed, "settings": SETTINGS}
    before = json.loads(Path(options.out).read_text()) if options.resume else {}
    # In a shell's background SIGINT is ignored, by children as well: a fit would leave it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="scenelearn-lost-") as folder:
        bench = Bench(Path(folder), options.seed)
        stages: dict[str, Callable[[], Any]] = {
            "without_a_break": bench.whole,
            "kills": lambda: bench.kills(options.kills),
            "stops": lambda: bench.stops(options.interrupts, options.terms),
            "saves_of_checkpoints": lambda: bench.saves("checkpoint", options.saves),
            "saves_of_classifiers": lambda: bench.saves("bundle", options.saves),
            "time_for_checkpoints": bench.share,
        }
        for name, stage in stages.items():
            done = name in before and name != "without_a_break"  # which others build on
            table[name] = before[name] if done else stage()
            if options.out:  # what there is so far, in case that somebody kills this, too
                Path(options.out).write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))
    return None


class Bench:
    """Starts workers and ends them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.expected: dict[str, Any] = {}
        self.whole_s = 0.0

    def whole(self) -> dict[str, Any]:
        """A run without a break: what is to come out, and how long it takes from start to end."""
        first = self._run("fit", "prepare")  # compiles its programs, which others then find
        started = time.monotonic()
        self.expected = self._run("fit", "whole")
        self.whole_s = time.monotonic() - started
        return {
            "same_twice": first["digests"] == self.expected["digests"],
            "environment": self.expected["environment"],
            "n_epochs": SETTINGS["epochs"],
            "seconds": round(self.whole_s, 2),
        }

    def kills(self, n: int) -> dict[str, Any]:
        runs: list[dict[str, Any]] = []
        while len(runs) < n:
            name = f"kill {len(runs)}"
            state = self._killed(name, self.draw.uniform(0.05, 0.95) * self.whole_s)
            if "outcome" in state:  # it was through before
                self._file(name).with_suffix(".json").unlink()
                continue
            runs.append(self._compared(state, self._run("fit", name, resume=True)))
            print(json.dumps(runs[-1]), flush=True)
        n_kills, name = 0, "chain"
        while n_kills < 50:
            state = self._killed(name, self.draw.uniform(0.3, 0.9) * self.whole_s, resume=True)
            n_kills += 1
            if "outcome" in state:  # it came through before it was killed
                break
        state = state if "outcome" in state else self._run("fit", name, resume=True)
        last = self._compared({"at": f"{n_kills} kills, one after another"}, state)
        return {
            "same": sum(run["same"] for run in runs),
            "of": len(runs),
            "chain": last,
            "runs": runs,
        }

    def saves(self, what: str, n: int) -> dict[str, int]:
        """Kill inside a save: a worker says when it begins and ends each."""
        n_inside = n_loaded = n_tries = 0
        while n_inside < n and n_tries < 20 * n:
            n_tries += 1
            file = self._file(f"{what} {n_tries}")
            with self._start(f"save_{what}", file.name, resume=False) as worker:
                assert worker.stdout is not None
                for line in worker.stdout:
                    if line.strip() == "ready":
                        break
                time.sleep(self.draw.uniform(0.0, 0.4))
                worker.kill()
                said = [line.strip() for line in worker.stdout if line.strip() in ("begin", "end")]
            if said and said[-1] == "begin":
                n_inside += 1
                n_loaded += _loads(what, file)
        return {"loaded": n_loaded, "of": n_inside, "kills": n_tries}

    def stops(self, n_interrupts: int, n_terms: int) -> dict[str, Any]:
        runs: list[dict[str, Any]] = []
        kinds = ["SIGINT"] * n_interrupts + ["SIGTERM"] * n_terms
        while kinds:
            kind, name = kinds[0], f"stop {len(kinds)}"
            for ending in (".begun", ".ended", ".json"):  # of a try that came too late
                self._file(name).with_suffix(ending).unlink(missing_ok=True)
            worker = self._start("fit", name, resume=False)
            time.sleep(self.draw.uniform(0.25, 0.95) * self.whole_s)
            if self._file(name).with_suffix(".ended").exists():  # the fit was through before
                worker.communicate()
                continue
            del kinds[0]
            sent = time.monotonic()
            worker.send_signal(getattr(signal, kind))
            out, err = worker.communicate(timeout=300)
            ended = time.monotonic() - sent
            found = self._read(name)
            outcome = found.get("outcome", "")
            late = sum(when > sent for when in found.get("steps", []))
            before = [what for when, what in found.get("phases", []) if when < sent]
            clean = outcome in ("stopped", "through", "interrupted") and late <= 1
            if outcome == "stopped":
                clean &= found["predicts"]
            if worker.returncode == -signal.SIGTERM and not self._begun(name):
                clean, outcome = True, "before the fit"  # Python was still being imported
            if not clean and "KeyboardInterrupt" in err and not self._begun(name):
                clean, outcome = True, "before the fit"
            run = {
                "signal": kind, "clean": clean, "outcome": outcome, "steps_after": late,
                "seconds": round(ended, 2), "during": before[-1] if before else "start",
            }  # fmt: skip
            if not clean:
                run["said"] = (out + err)[-2000:]
            runs.append(run)
            print(json.dumps(run), flush=True)
        outcomes = [run["outcome"] for run in runs]
        return {
            "clean": sum(run["clean"] for run in runs),
            "of": len(runs),
            "outcomes": {one: outcomes.count(one) for one in sorted(set(outcomes))},
            "most_steps_after": max((run["steps_after"] for run in runs), default=0),
            "runs": runs,
        }

    def share(self) -> dict[str, float]:
        return dict(self._run("share", "share"))

    def _killed(self, name: str, after_s: float, *, resume: bool = False) -> dict[str, Any]:
        worker = self._start("fit", name, resume=resume)
        time.sleep(after_s)
        worker.kill()
        worker.communicate()
        return {"at": round(after_s, 2), **self._read(name)}

    def _compared(self, state: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """Whether each epoch from the break on, the end and the answers are as without it."""
        theirs = {key: self.expected["digests"][key] for key in found["digests"]}
        same = found["digests"] == theirs and found["answers"] == self.expected["answers"]
        epochs = [int(key) for key in found["digests"] if key != "end"]
        resumed = f"epoch {min(epochs)}" if epochs else "the test"
        return {"killed_at_s": state["at"], "resumed_in": resumed, "same": same}

    def _file(self, name: str) -> Path:
        return self.folder / name.replace(" ", "-")

    def _read(self, name: str) -> dict[str, Any]:
        file = self._file(name).with_suffix(".json")
        return json.loads(file.read_text()) if file.exists() else {}

    def _begun(self, name: str) -> bool:
        return self._file(name).with_suffix(".begun").exists()

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
            [sys.executable, "-m", "tests.bench.nothing_lost", "--worker", worker],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


# What runs in a process of its own


def _scenes() -> Any:
    import scenelearn as sl

    folder = Path(os.environ["LOST_FOLDER"], "scenes")
    if not folder.exists():
        sl.sample_scenes(folder, 12, 0)
    return sl.split(sl.scan(folder))


def _fit() -> None:
    import numpy as np

    import scenelearn as sl
    from scenelearn.finetune import _checkpoint, _train
    from scenelearn.finetune._state import State

    _checkpoint.EVERY_S, _checkpoint.MOST_SHARE = EVERY_S, 1.0
    file = Path(os.environ["LOST_FILE"])
    digests: dict[str, str] = {}
    steps: list[float] = []
    phases: list[tuple[float, str]] = []
    close, run = State.close_epoch, _train.run

    def closed(state: State, epoch: Any, model: Any) -> None:
        close(state, epoch, model)
        digests[str(epoch.number)] = digest_of(state, model)

    def ran(learner: Any, state: State, watch: Any) -> str:
        stopped = run(learner, state, watch)
        digests["end"] = digest_of(state, learner.model)
        return stopped

    def progress(what: str, _done: int, _total: int) -> None:
        if not phases or phases[-1][1] != what:
            phases.append((time.monotonic(), what))
        if what == "fine-tuning":
            steps.append(time.monotonic())

    State.close_epoch, _train.run = closed, ran  # type: ignore[method-assign]
    splits = _scenes()
    found: dict[str, Any] = {}
    try:
        file.with_suffix(".begun").touch()
        fit = sl.fit(splits, **SETTINGS, resume=os.environ["LOST_RESUME"] == "1", progress=progress)
        file.with_suffix(".ended").touch()
        answers = hashlib.sha256(np.ascontiguousarray(fit.test_probabilities).tobytes())
        photo = splits.photos.file(0)
        if file.name == "prepare":
            fit.save(file.with_suffix(".keras"))
        found = {
            "outcome": "stopped" if fit.stopped else "through",
            "answers": answers.hexdigest(),
            "environment": fit.environment,
            "predicts": fit.classifier.predict(photo)[0].label in splits.photos.class_names,
        }
    except KeyboardInterrupt:
        found = {"outcome": "interrupted"}
    found |= {"digests": digests, "steps": steps, "phases": phases}
    file.with_suffix(".json").write_text(json.dumps(found))


def _save(what: str) -> None:
    """Save again and again, saying when each begins and ends."""
    import numpy as np

    import scenelearn as sl
    from scenelearn.finetune._checkpoint import write

    file = Path(os.environ["LOST_FILE"])
    if what == "bundle":
        classifier = sl.load(Path(os.environ["LOST_FOLDER"], "prepare.keras"))
        save = lambda: classifier.save(file.with_suffix(".keras"))  # noqa: E731
    else:
        arrays = {f"model/{k}": np.full((1000, 1000), k, np.float32) for k in range(8)}
        save = lambda: write(file.with_suffix(".state"), {"n": 1}, arrays)  # noqa: E731
    save()
    print("ready", flush=True)
    while True:
        print("begin", flush=True)
        save()
        print("end", flush=True)


def _loads(what: str, file: Path) -> bool:
    """Whether the file is whole, read in the way of users."""
    import scenelearn as sl
    from scenelearn.finetune._checkpoint import read

    try:
        if what == "bundle":
            sl.load(file.with_suffix(".keras"))
        else:
            read(file.with_suffix(".state"))
    except (ValueError, OSError) as error:
        print(error, flush=True)
        return False
    return True


def _share() -> None:
    """The share of a minute's fine-tuning that checkpoints take, in a network of usual size."""
    import scenelearn as sl
    from scenelearn.finetune import _train

    seen: list[Any] = []
    plain = _train.run

    def run(learner: Any, state: Any, watch: Any) -> str:
        start = time.monotonic()
        stopped = plain(learner, state, watch)
        seen.extend([time.monotonic() - start, watch.checkpoint, watch.checkpoint.file])
        return stopped

    _train.run = run
    settings = {"backbone": "mobilenet_v2_0.35", "weights": None, "image_px": 96, "epochs": 12}
    sl.fit(_scenes(), **settings)
    seconds, checkpoint = seen[0], seen[1]
    found = {
        "network": settings["backbone"],
        "seconds": round(seconds, 1),
        "checkpoints": checkpoint.n_written,
        "writing_s": round(checkpoint.seconds, 3),
        "share": round(checkpoint.seconds / seconds, 5),
    }
    Path(os.environ["LOST_FILE"]).with_suffix(".json").write_text(json.dumps(found))


_WORKERS = {
    "fit": _fit,
    "save_bundle": lambda: _save("bundle"),
    "save_checkpoint": lambda: _save("checkpoint"),
    "share": _share,
}

if __name__ == "__main__":
    main()
