"""Fits in other threads, several at once, and in a container with a CPU quota."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import scenelearn as sl
from scenelearn.finetune import FitResult

pytestmark = pytest.mark.nightly  # each fit takes processor seconds

_MAX_OVERSUBSCRIPTION = 1.3

_FIT = """
import hashlib, json, sys, time
import scenelearn as sl
from scenelearn._threads import n_threads

begin = end = 0, 0
def progress(what, done, total):
    global begin, end
    if what == "fine-tuning":
        end = time.perf_counter(), time.process_time()
        begin = begin if done > 1 else end

photos = sl.scan(sys.argv[1])
fit = sl.fit(sl.split(photos), weights="scenelearn", image_px=64, epochs=20, progress=progress)
clock_s, cpu_s = end[0] - begin[0], end[1] - begin[1]
digest = hashlib.sha256(fit.test_probabilities.tobytes()).hexdigest()
print(json.dumps([n_threads(), cpu_s / clock_s, digest]))
"""


def fit(splits: sl.data.Splits, seed: int) -> FitResult:
    return sl.fit(
        splits, weights="scenelearn", image_px=32, epochs=2, batch_size=16, seed=seed, verbose=False
    )


def digest(result: FitResult) -> str:
    """A digest of probabilities, weights and history."""
    history = [dataclasses.astuple(replace(epoch, seconds=0.0)) for epoch in result.history]
    content = hashlib.sha256(result.test_probabilities.tobytes() + str(history).encode())
    for value in result.classifier.model.get_weights():
        content.update(value.tobytes())
    return content.hexdigest()


def test_two_fits_at_once_in_a_web_server_are_those_alone(scenes: Path) -> None:
    splits = sl.split(sl.scan(scenes))
    begin = time.process_time()
    expected = [digest(fit(splits, seed)) for seed in (0, 1)]
    alone_s = time.process_time() - begin
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    found: dict[int, FitResult] = {}
    both = threading.Barrier(2, timeout=600)

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seed = int(self.path.strip("/"))
            both.wait()
            found[seed] = fit(splits, seed)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    begin = time.process_time()
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server, ThreadPoolExecutor(3) as pool:
        pool.submit(server.serve_forever)
        address = f"http://127.0.0.1:{server.server_port}"
        answers = [
            pool.submit(urllib.request.urlopen, f"{address}/{seed}", timeout=600) for seed in (0, 1)
        ]
        try:
            assert [answer.result(600).status for answer in answers] == [204, 204]
        finally:
            server.shutdown()
    assert time.process_time() - begin <= _MAX_OVERSUBSCRIPTION * alone_s
    assert [digest(found[seed]) for seed in (0, 1)] == expected
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@contextmanager
def container(cpus: float) -> Iterator[Path]:
    """A control group with a CPU quota; skips where none can be made."""
    name, quota_us = f"scenelearn-test-{uuid.uuid4().hex[:8]}", int(cpus * 100_000)
    for file, text in (
        (Path("/sys/fs/cgroup/cpu", name, "cpu.cfs_quota_us"), f"{quota_us}"),
        (Path("/sys/fs/cgroup", name, "cpu.max"), f"{quota_us} 100000"),
    ):
        try:
            file.parent.mkdir()
        except OSError:
            continue
        try:
            if file.exists():
                file.write_text(text)
                yield file.parent
                return
        finally:
            file.parent.rmdir()
    pytest.skip("needs the right to make control groups")


def run_fit(scenes: Path, group: Path | None = None, **variables: str) -> tuple[int, float, str]:
    """A fit in a new process, inside a control group: threads, cores in use, and a digest."""
    join = f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
    run = subprocess.run(
        [sys.executable, "-c", (join if group else "") + _FIT, str(scenes)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    n_threads, n_cores, digest = json.loads(run.stdout)
    return n_threads, n_cores, digest


def test_fit_uses_the_cores_of_its_container(scenes: Path) -> None:
    _, _, expected = run_fit(scenes)
    with container(1.5) as group:
        n_threads, n_cores, digest = run_fit(scenes, group)
    assert (n_threads, digest) == (1, expected)
    assert n_cores <= _MAX_OVERSUBSCRIPTION


def test_fit_uses_the_threads_that_the_variable_allows(scenes: Path) -> None:
    _, n_cores, _ = run_fit(scenes, SCENELEARN_THREADS="1")
    assert n_cores <= _MAX_OVERSUBSCRIPTION
