"""The page to clean photos: its decisions, its requests, and in a browser."""

from __future__ import annotations

import csv
import errno
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image, ImageOps

import scenelearn as sl
from scenelearn import cli
from scenelearn.app._cleaning import Cleaning
from scenelearn.data import LabelIssue
from scenelearn.data._decisions import Decision, decisions_file, write_decisions
from tests.helpers.browser import Page, open_browser
from tests.helpers.systems import needs_posix

FILE_NAME = "scenelearn_decisions.csv"


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    """Three photos of forest, and four of sea: two identical, and one that is also in forest."""
    for label in ("forest", "sea"):
        (tmp_path / label).mkdir()
        for k, file in enumerate(sorted((scenes / label).iterdir())[:3]):
            shutil.copy(file, tmp_path / label / f"{k}.jpg")
    shutil.copy(tmp_path / "sea" / "0.jpg", tmp_path / "sea" / "copy.jpg")
    return tmp_path


def audit_with_issues(folder: Path, *paths: str) -> sl.data.Audit:
    """An audit in which the photos at these paths look like the first other class."""
    audit = sl.audit(sl.scan(folder))
    photos = audit.photos
    issues = (
        LabelIssue(k, 0 if photos.labels[k] else 1, 0.01) for k in map(photos.paths.index, paths)
    )
    return replace(audit, label_issues=tuple(issues))


def decisions_in(folder: Path) -> list[dict[str, str]]:
    with (folder / FILE_NAME).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Client:
    """Sends requests to a server, with the cookie of its page."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)
        self.headers = {"Origin": f"http://{self.address.netloc}"}
        _, headers, _ = self.get(f"/?{self.address.query}")
        self.headers["Cookie"] = headers["Set-Cookie"].split(";")[0]

    def request(self, method: str, path: str, body: Any, **headers: str) -> tuple[int, Any, bytes]:
        assert self.address.hostname
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port)
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, content, self.headers | headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def get(self, path: str, **headers: str) -> tuple[int, Any, bytes]:
        return self.request("GET", path, None, **headers)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, bytes]:
        return self.request("POST", path, body, **headers)

    def data(self) -> dict[str, Any]:
        """What the page shows."""
        found = re.search(rb'id="data">(.*?)</script>', self.get("/")[2])
        assert found
        data: dict[str, Any] = json.loads(found[1])
        return data

    def decide(self, position: int, decision: str, **label: Any) -> None:
        body = {"photo": position, "decision": decision, **label}
        assert self.post("/decide", body)[0] == 200

    def undo(self) -> int | None:
        photo: int | None = json.loads(self.post("/undo", {})[2])["photo"]
        return photo


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with sl.app.clean(audit_with_issues(folder, "sea/2.jpg", "forest/1.jpg")) as server:
        yield Client(server.url)


# Decisions


def test_label_issues_come_first_and_the_first_of_duplicates_can_stay(client: Client) -> None:
    data = client.data()
    first, second, copy = (data["photos"][str(k)] for k in data["order"])
    paths = [photo["path"] for photo in (first, second, copy)]
    assert paths == ["sea/2.jpg", "forest/1.jpg", "sea/copy.jpg"]
    assert data["classes"] == ["forest", "sea"]
    assert (first["label"], first["suggestion"]) == (1, 0)
    assert [data["photos"][str(k)]["path"] for k in copy["companions"]] == ["sea/0.jpg"]


def test_decisions_are_honored_by_scan_and_undone_in_order(client: Client, folder: Path) -> None:
    sea, forest, copy = client.data()["order"]
    client.decide(sea, "relabel", label="forest")
    client.decide(copy, "quarantine")
    client.decide(forest, "relabel", label="  dark  forest ")
    client.decide(forest, "relabel", label="forest")  # its own label
    photos = sl.scan(folder)
    assert "sea/copy.jpg" not in photos.paths
    assert photos.class_names == ("forest", "sea")
    assert photos.counts() == {"forest": 4, "sea": 2}
    assert client.undo() == forest
    assert sl.scan(folder).class_names == ("dark forest", "forest", "sea")
    assert [client.undo() for _ in range(4)] == [forest, copy, sea, None]
    assert sl.scan(folder).counts() == {"forest": 3, "sea": 4}


def test_decision_about_a_former_label_does_not_apply(folder: Path) -> None:
    """`scan` ignores it, so it must be possible to decide again."""
    audit = audit_with_issues(folder, "sea/2.jpg")
    position = audit.photos.paths.index("sea/2.jpg")
    former = Decision(
        path="sea/2.jpg", decision="keep", label="street", new_label="",
        hash=audit.photos.hashes[position],
    )  # fmt: skip
    write_decisions(decisions_file(folder), [former])
    cleaning = Cleaning(audit)
    assert cleaning.decisions() == {}
    assert cleaning.photos[position].label == "sea"
    cleaning.decide(position, "quarantine")
    assert "sea/2.jpg" not in sl.scan(folder).paths


def test_suggestion_to_go_back_to_the_label_of_the_folder(client: Client, folder: Path) -> None:
    client.decide(client.data()["order"][0], "relabel", label="forest")
    photos = sl.scan(folder)
    position = photos.paths.index("sea/2.jpg")
    issue = LabelIssue(position, photos.class_names.index("sea"), 0.01)
    audit = replace(sl.audit(photos), label_issues=(issue,))
    with sl.app.clean(audit) as server:
        data = Client(server.url).data()
    photo = data["photos"][str(position)]
    names = [data["classes"][photo[key]] for key in ("audited", "label", "suggestion")]
    assert names == ["forest", "sea", "sea"]


@needs_posix  # Windows has no such locks
def test_two_sessions_at_a_time_lose_nothing(folder: Path) -> None:
    audit = audit_with_issues(folder)
    sessions = [sl.app.clean(audit) for _ in range(2)]
    clients = [Client(session.url) for session in sessions]
    n = len(audit.photos)

    def decide(k: int) -> None:
        clients[k % 2].decide(k, "quarantine")

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(decide, range(n)))
    finally:
        for session in sessions:
            session.close()
    assert len(decisions_in(folder)) == n


def test_later_session_continues_and_can_undo(client: Client, folder: Path) -> None:
    sea, _, copy = client.data()["order"]
    client.decide(sea, "relabel", label="forest")
    client.decide(copy, "quarantine")
    with sl.app.clean(audit_with_issues(folder, "forest/1.jpg")) as server:
        later = Client(server.url)
        data = later.data()
        position = {photo["path"]: int(k) for k, photo in data["photos"].items()}
        decided = {k: one["decision"] for k, one in data["decisions"].items()}
        sea, copy = position["sea/2.jpg"], position["sea/copy.jpg"]
        assert decided == {str(sea): "relabel", str(copy): "quarantine"}
        assert data["photos"][str(sea)]["label"] == 1  # as in the folder
        assert later.undo() == copy
        later.decide(sea, "keep")
    assert sl.scan(folder).counts() == {"forest": 3, "sea": 4}


def test_rows_of_another_folder_do_not_reach_outside(folder: Path) -> None:
    outside = folder / "secret.jpg"
    inner = folder / "inner"
    inner.mkdir()
    shutil.move(folder / "sea", inner / "sea")
    shutil.copy(inner / "sea" / "0.jpg", outside)
    digest = "0" * 32
    (inner / FILE_NAME).write_text(
        f"path,decision,label,new_label,hash\n../secret.jpg,quarantine,sea,,{digest}\n"
    )
    with sl.app.clean(sl.audit(sl.scan(inner))) as server:
        client = Client(server.url)
        assert all(".." not in photo["path"] for photo in client.data()["photos"].values())
        assert client.get("/photo/4")[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        (-1, "keep"), (99, "keep"), ("0", "keep"), (True, "keep"), (0, "delete"), (0, ["keep"]),
        (0, "relabel"), (0, "relabel", " "), (0, "relabel", "x" * 201), (0, "relabel", "a\x1bb"),
        (0, "keep", "sea"),
    ],
)  # fmt: skip
def test_invalid_decisions_change_nothing(
    client: Client, folder: Path, body: tuple[Any, ...]
) -> None:
    request = dict(zip(("photo", "decision", "label"), body, strict=False))
    status, _, text = client.post("/decide", request)
    assert status == 400
    assert b"Received" in text
    assert decisions_in(folder) == []


@pytest.mark.parametrize("label", [None, 1.5, True, -1, ["sea"], {"sea": 1}, 10**30])
def test_labels_are_text_or_the_number_of_a_class(client: Client, folder: Path, label: Any) -> None:
    request = {"photo": 1, "decision": "relabel", "label": label}
    status, _, text = client.post("/decide", request)
    assert status == 400
    assert b"`new_label` must be a string" in text or label == 10**30
    assert decisions_in(folder) == []


def test_file_is_kept_when_the_disk_fails(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    client.decide(1, "quarantine")
    before = (folder / FILE_NAME).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for path, body in (("/decide", {"photo": 0, "decision": "keep"}), ("/undo", {})):
            status, _, text = client.post(path, body)
            assert status == 500
            assert FILE_NAME.encode() in text
            assert b"Input/output error" in text
            assert (folder / FILE_NAME).read_bytes() == before
    assert {file.name for file in folder.iterdir()} == {"forest", "sea", FILE_NAME}
    client.decide(0, "keep")
    assert [client.undo() for _ in range(3)] == [0, 1, None]


# Requests


def test_page_has_its_data_and_may_load_nothing_else(client: Client) -> None:
    status, headers, content = client.get("/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe" not in policy
    assert b'id="data">' in content


def test_photos_are_scaled_down_and_only_numbers_name_them(client: Client, folder: Path) -> None:
    (folder / "sea" / "0.jpg").unlink()
    Image.new("RGB", (2000, 1000)).save(folder / "forest" / "0.jpg")
    status, headers, content = client.get("/photo/0")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg; charset=utf-8")
    assert Image.open(io.BytesIO(content)).size == (800, 400)
    for path in ("/photo/99", "/photo/../../x", "/photo/-1", "/photo/3", "/forest/0.jpg"):
        assert client.get(path)[0] == 404, path


def test_previews_are_whole_and_upright(tmp_path: Path) -> None:
    y, x = np.mgrid[0:500, 0:1000] / 1000
    stored = Image.fromarray((np.stack([x, y, x * x], axis=-1) * 255).astype(np.uint8))
    (tmp_path / "a").mkdir()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / f"a/{orientation}.png", exif=exif)
    with sl.app.clean(sl.audit(sl.scan(tmp_path))) as server:
        client = Client(server.url)
        for orientation in range(1, 9):
            preview = Image.open(io.BytesIO(client.get(f"/photo/{orientation - 1}")[2]))
            upright = ImageOps.exif_transpose(Image.open(tmp_path / f"a/{orientation}.png"))
            assert preview.size == ((800, 400) if orientation < 5 else (400, 800))
            apart = np.asarray(preview).astype(int) - np.asarray(upright.resize(preview.size))
            assert np.abs(apart).mean() < 2


def test_decide_and_undo(client: Client, folder: Path) -> None:
    status, _, content = client.post("/decide", {"photo": 1, "decision": "relabel", "label": 1})
    assert status == 200
    value = {"photo": 1, "decision": {"decision": "relabel", "label": "sea"}}
    assert json.loads(content) == value
    (decision,) = decisions_in(folder)
    assert (decision["path"], decision["new_label"]) == ("forest/1.jpg", "sea")
    assert json.loads(client.post("/undo", {})[2]) == {"photo": 1, "decision": None}
    assert json.loads(client.post("/undo", {})[2]) == {"photo": None, "decision": None}
    assert decisions_in(folder) == []


@pytest.mark.parametrize(
    "body",
    ["{", "[]", "3", {"photo": 1}, {"photo": 1, "decision": "relabel", "label": 99},
     {"photo": 1, "decision": "keep", "label": []}, {"photo": None, "decision": "keep"}],
)  # fmt: skip
def test_invalid_requests(client: Client, folder: Path, body: Any) -> None:
    assert client.post("/decide", body)[0] == 400
    assert decisions_in(folder) == []


def test_other_sites_and_users_reach_nothing(client: Client, folder: Path) -> None:
    keep = {"photo": 1, "decision": "keep"}
    port = client.address.port
    for headers in (
        {"Host": f"attacker.example:{port}"},
        {"Cookie": ""},
        {"Cookie": f"scenelearn-{port}=guess"},
    ):
        for path in ("/", "/photo/0"):
            assert client.get(path, **headers)[0] == 403
        assert client.post("/decide", keep, **headers)[0] == 403
    for origin in ("http://attacker.example", f"http://127.0.0.1:{port + 1}", "null"):
        assert client.post("/decide", keep, Origin=origin)[0] == 403
    assert client.get("/?token=guess", Cookie="")[0] == 403
    assert client.post("/decide", "x" * 20_000)[0] == 413
    assert client.post("/other", {})[0] == 404
    assert decisions_in(folder) == []


def test_clean_checks_its_arguments(folder: Path) -> None:
    audit = sl.audit(sl.scan(folder))
    with pytest.raises(sl.errors.ArgumentError, match="`audit` must come from `audit`"):
        sl.app.clean(folder)  # type: ignore[arg-type]
    with (
        sl.app.clean(audit) as server,
        pytest.raises(sl.errors.ArgumentError, match="`port` must be free"),
    ):
        sl.app.clean(audit, port=urlsplit(server.url).port)
    (folder / FILE_NAME).write_text("nonsense")
    with pytest.raises(sl.errors.ManifestError):
        sl.app.clean(audit)


def test_command_prints_the_address_and_serves_until_it_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = []

    def wait(server: sl.app.Server) -> None:
        served.append(Client(server.url).get("/")[0])
        server.close()

    monkeypatch.setattr(sl.app.Server, "wait", wait)
    assert cli.main(["clean", str(folder), "--weights", "none", "--no-browser"]) == 0
    out, err = capsys.readouterr()
    assert served == [200]
    assert "Decisions are saved" in out
    assert "http://127.0.0.1:" in err


# In a browser

START = """
import sys
from dataclasses import replace
import scenelearn as sl
audit = sl.audit(sl.scan(sys.argv[1]))
suggested = audit.photos.class_names.index("street")
issues = (sl.data.LabelIssue(k, suggested, 0.01) for k in range(24))
server = sl.app.clean(replace(audit, label_issues=tuple(issues)))
print(server.url, flush=True)
server.wait()
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", START, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.slow
def test_relabeling_by_keyboard_survives_a_kill(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(scenes, folder)
    before = sl.scan(folder)
    with open_browser() as page:
        process, url = start(folder)
        try:
            decide_by_keyboard(page, url)
        finally:
            process.kill()
            process.communicate()
        after = sl.scan(folder)
        assert [photo.label for photo in after[:20]] == ["street"] * 20
        assert [photo.label for photo in after[20:]] == [photo.label for photo in before[20:]]
        process, url = start(folder)
        try:
            page.open(url)
            page.driver.wait_for_selector("#progress:has-text('20 of 24 decided')")
            page.driver.keyboard.press("u")  # of the earlier session
            page.driver.wait_for_selector("#progress:has-text('19 of 24 decided')")
            page.driver.keyboard.press("q")
            page.driver.wait_for_selector("#progress:has-text('20 of 24 decided')")
            page.driver.get_by_label("Another class").fill("lagoon")
            page.driver.keyboard.press("Enter")
            page.driver.wait_for_selector("#progress:has-text('21 of 24 decided')")
            page.driver.wait_for_function("n_waiting === 0")
        finally:
            process.kill()
            process.communicate()
        assert page.errors == []
    photos = sl.scan(folder)
    assert before.paths[19] not in photos.paths
    assert "lagoon" in photos.class_names


def decide_by_keyboard(page: Page, url: str) -> None:
    """Relabel 20 of 24 photos as the page suggests; check the page at two widths."""
    for width in (390, 1280):
        page.resize(width)
        page.open(url)
        page.driver.wait_for_selector("#progress:has-text('0 of 24 decided')")
        assert page.overflow_px() <= 0
        assert page.accessibility_findings() == []
    for _ in range(20):
        page.driver.keyboard.press("r")
    page.driver.wait_for_selector("#progress:has-text('20 of 24 decided')")
    page.driver.wait_for_function("n_waiting === 0")
    origin = f"http://{urlsplit(url).netloc}/"
    assert page.external_requests(origin) == set()
    assert page.errors == []
