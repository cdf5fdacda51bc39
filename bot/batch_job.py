"""A file of work orders or transcripts classified as a job: goes on after a kill, keeps the order, marks what a person should check."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bot.assistant import Assistant
from bot.batch import check_columns, parsed_rows
from bot.cores import core_count
from bot.jobs import JobError, JobRun
from bot.models import models_to_serve
from bot.processes import BATCH
from bot.table_words import in_words
from bot.tables import REVIEW, WRITERS, Table, flat_columns, open_table, replacing
from bot.uploads import UploadError, Uploads

MAX_PROBLEMS = 200
READING = 0.95  # share of the progress bar


def run_batch(job: JobRun) -> Mapping[str, Any]:
    """`params`: upload. The result file lies beside the upload. Raises JobError, JobCancelled."""
    try:
        upload = Uploads(job.services.settings.var_dir).find(job.params["upload"], owner=job.username)
    except UploadError as error:
        raise JobError(str(error)) from None
    job.tell(0.0, "检查文件")
    try:
        table = open_table(upload.path)
        check_columns(table, upload.name)
    except ValueError as error:
        raise JobError(f"这个文件读不了：{in_words(str(error)).replace(upload.path.name, upload.name)}。") from None
    from bot.embedded import open_embedded  # takes seconds and 400 MB

    job.tell(0.0, "加载模型")
    assistant = open_embedded(models_to_serve(job.services))
    kept = upload.directory / "parsed.jsonl"
    _read_rows(job, table, assistant, kept)
    job.tell(READING, "写出结果")
    output = result_path(upload.path)
    counts, problems = _write_result(job, table, kept, output)
    kept.unlink()
    return {"file": output.name, "rows": table.count, "review": dict(counts), "problems": problems[:MAX_PROBLEMS]}


def result_path(source: Path) -> Path:
    return source.with_name(f"result{source.suffix}")


def _read_rows(job: JobRun, table: Table, assistant: Assistant, kept: Path) -> None:
    """The parse of each row, one line each; what an earlier attempt kept is not read again."""
    done = _intact_lines(kept)
    job.log(f"共 {table.count} 行" + (f"，接着从第 {done + 1} 行读" if done else ""))
    rows = islice(table.open_rows(), done, None)
    cores = core_count()
    with open(kept, "a", encoding="utf-8") as file:
        for number, _, (parse, problem) in parsed_rows(table, rows, assistant, job.services, processes=cores):
            file.write(json.dumps({"row": number, "parse": parse, "problem": problem}, ensure_ascii=False) + "\n")
            done += 1
            if done % BATCH == 0:
                file.flush()
                job.tell(READING * done / table.count, f"已读 {done // 1000 * 1000 if done >= 1000 else 0} 行以上，共 {table.count} 行")


def _intact_lines(path: Path) -> int:
    """Whole lines in the file; half a line, written while the process died, is cut off."""
    if not path.exists():
        return 0
    count = end = 0
    with open(path, "rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            count, end = count + 1, end + len(line)
        file.truncate(end)
    return count


def _write_result(job: JobRun, table: Table, kept: Path, output: Path) -> tuple[Counter[str], list[str]]:
    lanes, counts, problems = job.services.tickets.lanes, Counter[str](), list[str]()
    with replacing(output) as part, WRITERS[output.suffix](part, table, lanes) as write, open(kept, encoding="utf-8") as file:
        for (_, row), line in zip(table.open_rows(), _lines(file), strict=True):
            write(row, line["parse"])
            counts[_state_of(line, lanes)] += 1
            if line["problem"]:
                problems.append(f"第 {line['row']} 行：{in_words(line['problem'])}")
    return counts, problems


def _state_of(line: Mapping[str, Any], lanes: Any) -> str:
    if line["parse"] is None:
        return "没有内容"
    return str(flat_columns(line["parse"], lanes)["review"]) or "可直接采用"


def _lines(file: IO[str]) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, file)


STATES = ("可直接采用", *(name for name in REVIEW.values() if name), "没有内容")
