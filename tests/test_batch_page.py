"""A file through /desk/batch with real jobs: uploaded in pieces, classified, killed half-way, downloaded; and whose it is."""
from __future__ import annotations

import csv
import io
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openpyxl import load_workbook

from bot.jobs import JobRunner, find_job
from bot.petition import Lanes
from bot.services import Services, build_services
from bot.table_words import in_words
from bot.tables import WRITERS, open_table
from bot.uploads import UploadError, Uploads
from bot.web import desk_batch, uploads
from tests.staff_pages import StaffClient, log_in, staff_app
from tests.test_jobs import process_of

SAID = ["小区门口的路灯坏了三天没人修", "工地夜里两点还在打桩，吵得睡不着", "问一下医保卡丢了怎么补办", "嗯"]


@pytest.fixture
def app(services: Services) -> Flask:
    return staff_app(services, uploads.create_blueprint(services), desk_batch.create_blueprint(services))


@pytest.fixture
def running(services: Services) -> Iterator[Services]:
    real = build_services(services.settings)
    stop = threading.Event()
    thread = threading.Thread(target=JobRunner(real).run_forever, args=(stop,))
    thread.start()
    yield real
    stop.set()
    thread.join(30)
    real.engine.dispose()


def send(person: StaffClient, name: str, data: bytes, *, piece: int = 1000) -> str:
    upload_id = person.post("/desk/uploads", json={"name": name, "size": len(data)}).get_json()["id"]
    for offset in range(0, len(data), piece):
        part = data[offset : offset + piece]
        for _ in range(2):  # every piece twice, as after a lost answer
            answer = person.post(f"/desk/uploads/{upload_id}?offset={offset}", data=part)
            assert answer.get_json() == {"received": offset + len(part)}
    return str(upload_id)


def start(person: StaffClient, name: str, data: bytes) -> int:
    return int(person.post("/desk/batch", json={"upload": send(person, name, data)}).get_json()["job"])


def state(person: StaffClient, job: int) -> dict[str, Any]:
    found: dict[str, Any] = person.get(f"/desk/batch/state?job={job}").get_json()["jobs"][0]
    return found


def ended(person: StaffClient, job: int, seconds: float = 240) -> dict[str, Any]:
    for _ in range(int(seconds * 5)):
        if (found := state(person, job))["ended"]:
            return found
        time.sleep(0.2)
    raise AssertionError(state(person, job))


def table(rows: int) -> bytes:
    target = io.StringIO()
    writer = csv.writer(target)
    writer.writerow(["工单号", "text"])
    writer.writerows([str(number), SAID[number % len(SAID)] + f"第{number}次说"] for number in range(rows))
    return target.getvalue().encode("utf-8-sig")


def test_file_comes_back_classified_though_its_process_was_killed(app: Flask, running: Services) -> None:
    person = log_in(app, "agent")
    job = start(person, "七月工单.csv", table(1200))
    while "接着" not in (log := find_job(running, job).log) and "共 1200 行" not in log:  # type: ignore[union-attr]
        time.sleep(0.2)
    time.sleep(2)
    os.kill(process_of(job, os.getpid()), signal.SIGKILL)
    found = ended(person, job)
    assert found["state"] == "done" and found["rows"] == 1200 and sum(item["count"] for item in found["review"]) == 1200
    answer = person.get(f"/desk/batch/{job}/result")
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert [row["工单号"] for row in rows] == [str(number) for number in range(1200)]
    assert all(row["category_code"] for row in rows) and {row["review"] for row in rows} > {""}


@pytest.mark.parametrize(("confidence", "review"), [(0.95, None), (0.5, "建议核对"), (0.1, "必须核对")])
def test_workbook_marks_what_a_person_should_check(tmp_path: Path, confidence: float, review: str | None) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.xlsx"
    source.write_text("text\n路灯坏了\n", encoding="utf-8")
    parse = {
        "categories": [{"code": "010101", "path": ["一", "二", "三"], "confidence": confidence}],
        "request_type": {"name": "求助", "confidence": 0.9},
        "urgency": {"level": "一般", "emergency": False},
        "locations": [], "main_location": None, "evidence": [], "parts": [{}], "model": "m1",
    }  # fmt: skip
    with WRITERS[".xlsx"](target, open_table(source), Lanes(file=0.6, suggest=0.35)) as write:
        write({"text": "路灯坏了"}, parse)
    heading, row = load_workbook(target).worksheets[0].iter_rows()
    column = [cell.value for cell in heading].index("review")
    assert row[column].value == review
    assert (row[0].fill.start_color.rgb != "00000000") is (review is not None)


@pytest.mark.parametrize(
    ("name", "data", "says", "words"),
    [
        ("a.csv", "号码,内容\n1,路灯坏了\n".encode(), "text", "请把写着内容的那一列改名为 text"),
        ("a.xlsx", b"not a workbook", "读不了", "不是打得开的 Excel 文件"),
        ("a.jsonl", b"[1]\n", "读不了", "第 1 行不是 JSON 对象"),
    ],
)
def test_file_that_cannot_be_read_is_said_in_words(app: Flask, running: Services, name: str, data: bytes, says: str, words: str) -> None:
    person = log_in(app, "agent")
    found = ended(person, start(person, name, data))
    assert found["state"] == "failed" and says in found["problem"] and words in found["problem"]


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"\xff\xff"), ("b.csv", b""), ("c.csv", b'text\n"' + b"x" * 10_000_001), ("d.xlsx", b"PK"), ("e.jsonl", b"{\n"), ("f.jsonl", b"\xff"), ("g.txt", b"x")],
    ids=["encoding", "empty", "quotation", "workbook", "json", "json encoding", "other"],
)
def test_no_english_of_the_reader_reaches_a_page(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError) as refused:
        open_table(tmp_path / name)
    words = in_words(str(refused.value))
    assert not re.search(r"\b(is|not|can|line)\b", words) and re.search(r"[一-龥]", words), words


def test_nobody_else_has_the_file_or_the_result(app: Flask) -> None:
    job = start(log_in(app, "agent"), "a.csv", table(3))
    outsider = log_in(app, "outsider")
    for path in (f"/desk/batch/{job}/result", f"/desk/batch/state?job={job}"):
        assert outsider.get(path).status_code == 404
    assert outsider.post(f"/desk/batch/{job}/cancel").status_code == 404
    assert "a.csv" not in outsider.get("/desk/batch").text
    assert "a.csv" in log_in(app, "supervisor").get("/desk/batch").text


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [("a.exe", 10, "只能上传"), ("a.csv", 0, "空"), ("a.csv", 10**12, "太大"), ("../../etc/passwd", 5, "只能上传")],
)
def test_upload_that_cannot_be_taken_is_refused(tmp_path: Path, name: str, size: int, says: str) -> None:
    with pytest.raises(UploadError, match=says):
        Uploads(tmp_path).begin(name, size, owner="agent")


def test_missing_piece_is_noticed(tmp_path: Path) -> None:
    files = Uploads(tmp_path)
    upload = files.begin("a.csv", 10, owner="agent")
    files.append(upload, 0, b"12345")
    with pytest.raises(UploadError, match="传乱"):
        files.append(upload, 8, b"90")
    assert not upload.complete and files.append(upload, 5, b"67890") == 10 and upload.complete


def test_upload_of_another_is_not_there(tmp_path: Path) -> None:
    files = Uploads(tmp_path)
    upload = files.begin("a.csv", 10, owner="agent")
    for upload_id, owner in ((upload.id, "outsider"), ("../" + upload.id, "agent"), ("0" * 32, "agent")):
        with pytest.raises(UploadError):
            files.find(upload_id, owner=owner)
