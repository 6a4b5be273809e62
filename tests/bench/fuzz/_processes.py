"""Cases in a process of their own: one that crashes or hangs has failed, and the rest go on."""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.fuzz._cases import Case, Verdict, peak_kib, quiet, try_case

_START_S = 300  # to import everything and make the files, on a machine that may be busy


@dataclasses.dataclass
class Part:
    """The verdicts on a range of cases."""

    kind: str
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0
    peak_kib: int = 0

    def add(self, number: int, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome] += 1
        self.slowest_s = max(self.slowest_s, verdict.seconds)
        if verdict.problem:
            self.failures.append(f"{self.kind}, case {number}: {verdict.problem}")


def run_cases(kind: Callable[[Path], Case], max_s: float, seed: int, numbers: range) -> Part:
    """Try a range of cases of a kind, each for at most so many seconds."""
    part, start = Part(kind.__name__), time.monotonic()
    while numbers:
        numbers = _run_until_end(part, kind, max_s, seed, numbers)
    part.seconds = time.monotonic() - start
    return part


def _run_until_end(
    part: Part, kind: Callable[[Path], Case], max_s: float, seed: int, numbers: range
) -> range:
    """Try cases in one process until it ends; return those that are left."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="scenelearn-fuzz-", dir=_fast_folder()) as folder:
        process = context.Process(target=_work, args=(sender, kind, folder, seed, numbers))
        process.start()
        sender.close()
        problem = ""
        try:
            if not receiver.poll(_START_S):
                raise RuntimeError(f"{part.kind}: the first case did not start")
            receiver.recv()
            while numbers and not problem:
                if receiver.poll(max_s):
                    verdict, kib = receiver.recv()
                    part.add(numbers[0], verdict)
                    part.peak_kib = max(part.peak_kib, kib)
                    numbers = numbers[1:]
                else:
                    problem = f"more than {max_s:g} s"
                    process.kill()
        except EOFError:
            problem = "the process ended"
        process.join()
    if numbers:
        part.add(numbers[0], Verdict("failed", f"{problem}, exit {process.exitcode}", 0))
    elif process.exitcode:
        part.failures.append(f"{part.kind}, after the last case: exit {process.exitcode}")
    return numbers[1:]


def _work(
    sender: Connection, kind: Callable[[Path], Case], folder: str, seed: int, numbers: range
) -> None:
    """Try the cases, and send each verdict with the peak of the memory so far."""
    quiet()
    case = kind(Path(folder))
    sender.send(None)
    kib = 0
    for number in numbers:
        verdict = try_case(kind.__name__, case, seed, number)
        if number % 100 == 0 or number == numbers[-1]:
            kib = peak_kib()
        sender.send((verdict, kib))


def _fast_folder() -> str | None:
    """A folder in memory, where there is one: each case writes a file."""
    return next((name for name in ("/dev/shm",) if os.access(name, os.W_OK)), None)
