"""Environments: a command in its own process, with variables, streams and folders in trouble."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

from tests.bench.fuzz._arguments import check_output
from tests.bench.fuzz._bundles import small_bundle
from tests.bench.fuzz._cases import Case
from tests.helpers.photo_files import put_all

_TIMEOUT_S = 240


def environments(folder: Path) -> Case:
    """Run a command that works in an ordinary environment; it works here, or says what is wrong."""
    put_all(folder / "photos", [f"{name}/{k}.png" for name in ("sea", "été") for k in range(4)])
    small_bundle(folder / "scenes.keras", 0)
    (folder / "file").write_text("")
    (folder / "read-only").mkdir(mode=0o500)
    places = ["", "/", "~", "~no-user", "relative", "/proc/none", "/dev/null/x", "x" * 300]
    places += [str(folder / name) for name in ("file", "file/x", "read-only", "read-only/x", "new")]
    photo = "photos/été/0.png"
    commands = [
        ["size", "Conv2D(8, 3), Dense(10)", "--input-shape", "32,32,3"],
        ["audit", "photos"],
        ["sample", "scenes", "--per-class", "1"],
        ["predict", "scenes.keras", photo],
        ["fit", "photos", "--plan", "--backbone", "scenelearn_tiny", "--weights", "none",
         "--image-px", "32", "--out", "fit"],
        ["explain", "scenes.keras", photo, "--out", "explanation.png"],
    ]  # fmt: skip
    variables = {
        "HOME": places,
        "XDG_CACHE_HOME": places,
        "SCENELEARN_CACHE": places,
        "TMPDIR": places,
        "SCENELEARN_CACHE_GIB": ["0", "-1", "nan", "x", "1e400", "0.001", "²"],
        "SCENELEARN_THREADS": ["0", "1", "3", "-1", "x", "1.5", "99999999999", "²", " 2 "],
        "JAX_PLATFORMS": ["cuda", "cpu", "x", "", "cpu,cuda", "CPU"],
        "KERAS_BACKEND": ["jax", "x", "", "numpy", "JAX", "torch", "tensorflow"],
        "KERAS_HOME": places,
        "PYTHONIOENCODING": ["ascii", "latin-1", "cp437", "utf-16", "utf-8"],
        "LC_ALL": ["C", "POSIX", "C.UTF-8", "tr_TR.UTF-8", "x"],
        "LANG": ["C", "x"],
        "PYTHONUTF8": ["0", "1"],
        "PYTHONWARNINGS": ["error", "always"],
        "COLUMNS": ["0", "1", "-1", "x"],
        "TERM": ["dumb", "", "x"],
        "NO_COLOR": ["1"],
        "XLA_FLAGS": ["--xla_force_host_platform_device_count=2"],
        "JAX_ENABLE_X64": ["1"],
        "JAX_COMPILATION_CACHE_DIR": places,
        "PYTHONHASHSEED": ["7"],
        "TZ": ["x", "Asia/Tokyo"],
    }
    redirections = ["", "", "", "2>&-", "<&-", "2>/dev/full", ">/dev/full", ">&-", ">&- 2>&- <&-"]
    limits = ["", "", "", "ulimit -n 40;", "ulimit -f 100;", "ulimit -f 0;", "umask 777;"]

    def case(random: random.Random) -> str:
        words = random.choices(commands, [4, 4, 2, 2, 1, 1])[0]
        environment = {
            key: value for key, value in os.environ.items()
            if key in ("PATH", "HOME", "PYTHONPATH", "KERAS_BACKEND", "LANG")
        } | {"SCENELEARN_CACHE": str(folder / "cache")}  # fmt: skip
        for name in random.sample(list(variables), random.choice((1, 1, 2, 3))):
            environment[name] = random.choice(variables[name])
        for name in ("HOME", "SCENELEARN_CACHE", "LANG"):
            if random.random() < 0.05:
                environment.pop(name, None)
        redirection, limit = random.choice(redirections), random.choice(limits)
        command = shlex.join([sys.executable, "-m", "scenelearn", *words])
        environment["PYTHONPATH"] = os.pathsep.join(
            sys.path[:1] if sys.path[0] else [str(Path.cwd())]
        )
        shown = f"{limit} {environment} {words} {redirection}"
        process = subprocess.run(
            ["/bin/sh", "-c", f"{limit} exec {command} {redirection}"],
            cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        code = process.returncode
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        printed, said = (
            each.decode(encoding, "replace") for each in (process.stdout, process.stderr)
        )
        problem = ""
        if code not in (0, 1, 2):
            problem = f"exit {code}"
        elif not redirection:
            try:
                check_output(words, code, printed, said)
            except AssertionError as error:
                problem = str(error)
        elif "Traceback" in said or "Exception ignored" in said:
            problem = said[-400:]
        assert not problem, f"{problem}; {shown}"
        return f"exit {code}"

    return case
