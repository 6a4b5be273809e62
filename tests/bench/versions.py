"""Run the tests of what depends on Keras and JAX, with the versions that are installed.

    python -m tests.bench.versions [--out FILE.json] [--numprocesses N]

Adds one row to the file, or replaces the one of the same system, Python, Keras and JAX. Exits with
1 if a test fails.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

from scenelearn._backend import keras
from tests.bench._common import add_out, bench_parser, write_json

CORE = (
    "tests/test_package.py", "tests/test_backend.py", "tests/augment", "tests/backbones",
    "tests/classify/test_classify.py", "tests/finetune/test_fit.py", "tests/sizing/test_keras.py",
)  # fmt: skip


def main() -> None:
    """Run the tests and write the row."""
    parser = bench_parser("versions", __doc__)
    add_out(parser, "versions")
    parser.add_argument("--numprocesses", default="logical", help="see pytest-xdist")
    options = parser.parse_args()
    row = {"python": platform.python_version(), "system": platform.system()}
    row |= {"keras": keras().__version__, "jax": version("jax"), "numpy": version("numpy")}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        pytest = [sys.executable, "-m", "pytest", f"--numprocesses={options.numprocesses}"]
        subprocess.run([*pytest, f"--junit-xml={report}", *CORE], check=False)
        suite = next(ET.parse(report).iter("testsuite"))  # noqa: S314 - pytest's own
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    result = {"passed": passed, "failed": failed, "date": f"{datetime.date.today()}"}
    path = Path(options.out)
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    same = ("system", "python", "keras", "jax")
    rows = [old for old in rows if any(old[key] != row[key] for key in same)] + [row | result]
    rows.sort(key=lambda each: [Version(each[key]) for key in ("keras", "jax", "python")])
    write_json(path, rows)
    print(row | result)
    if failed or not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
