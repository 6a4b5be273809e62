"""The service of docs/how-to/serving.md, with real workers and several clients at a time."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenelearn.finetune import FitResult
from tests.helpers import REPOSITORY

PAGE = (REPOSITORY / "docs" / "how-to" / "serving.md").read_text(encoding="utf-8")
START_SECONDS = 180

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")


def free_port() -> int:
    with socket.socket() as waiting:
        waiting.bind(("127.0.0.1", 0))
        return int(waiting.getsockname()[1])


@pytest.fixture(scope="module")
def address(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of two workers that run serve.py of the page."""
    folder = tmp_path_factory.mktemp("service")
    service = next(
        code
        for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        if '"""serve.py' in code
    )
    (folder / "serve.py").write_text(service, encoding="utf-8")
    fitted.save(folder / "scenes.keras")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "uvicorn", "serve:app", "--workers", "2", "--port", str(port)]
    environment = os.environ | {"BUNDLE": "scenes.keras"}
    with subprocess.Popen(command, cwd=folder, env=environment) as server:
        try:
            end = time.monotonic() + START_SECONDS
            while time.monotonic() < end:
                assert server.poll() is None, "the server has ended"
                try:
                    httpx.get(f"{url}/health", timeout=5).raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.5)
            yield url
        finally:
            server.terminate()
            server.wait(60)


@pytest.mark.slow
def test_workers_answer_several_clients_like_predict(
    address: str, fitted: FitResult, scenes: Path
) -> None:
    photos = [file.read_bytes() for file in sorted(scenes.glob("*/*_000[01].jpg"))]

    def ask(photo: bytes) -> dict[str, float]:
        response = httpx.post(f"{address}/predict", content=photo, timeout=60)
        response.raise_for_status()
        probabilities: dict[str, float] = response.json()["probabilities"]
        return probabilities

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, photos * 4))
    rows = fitted.classifier.predict_proba(photos * 4)
    for answer, row in zip(answers, rows, strict=True):
        assert tuple(answer) == fitted.classifier.class_names
        np.testing.assert_allclose(list(answer.values()), row, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_service_refuses_what_is_too_large_or_no_photo(address: str, tmp_path: Path) -> None:
    Image.new("1", (10_000, 5_001)).save(tmp_path / "large.png")  # a few kB, 50 million pixels
    for content, status, message in (
        (bytes(20_000_001), 413, "At most 20,000,000 bytes"),
        ((tmp_path / "large.png").read_bytes(), 413, "At most 50,000,000 pixels"),
        (b"no photo", 415, "Not a complete photo"),
        ((tmp_path / "large.png").read_bytes()[:20], 415, "Not a complete photo"),
        (b"", 415, "Not a complete photo"),
    ):
        response = httpx.post(f"{address}/predict", content=content, timeout=60)
        assert response.status_code == status
        assert message in response.json()["detail"]


def test_container_copies_and_starts_what_the_page_names() -> None:
    (container,) = re.findall(r"^```dockerfile\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "COPY serve.py scenes.keras ./" in container
    assert "ENV BUNDLE=scenes.keras" in container
    assert '"serve:app"' in container
