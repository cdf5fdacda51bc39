"""How long 100,000 work orders take in and out, and how quick the review queue is over them.

    python -m tests.bench_data [--rows 100000] [--suffix xlsx] [--texts FILE.csv]

Makes a file of so many orders (of FILE's column `text`, cut and joined anew; without it of own sentences), looks through it, imports it,
exports it in every format, and asks the review index for neighbours, search and groups. Each step is told with its seconds (wall and
processor) and the process's peak memory so far. Everything happens in a database of its own that is removed again.
"""
from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openpyxl import Workbook

from bot import db
from bot.exporting import CSV, JSONL, LABELS, YAML, export
from bot.importing import import_rows, load_meanings, open_batch
from bot.order_guess import look_at
from bot.orders import Plan
from bot.review_index import ReviewIndex
from bot.services import Services, build_services
from bot.settings import load_settings
from bot.tables import open_table

HEADING = ["工单编号", "诉求内容", "类别", "诉求类型", "来电时间"]
CLASSES = ["城乡建设", "环境保护", "交通运输", "教育文体", "劳动和社会保障", "商贸旅游", "卫生计生"]
TYPES = ["咨询", "求助", "投诉", "建议"]
OWN = [
    "小区门口的路灯坏了三天了，晚上黑漆漆的，老人孩子出门都怕摔着，请尽快派人来修。",
    "夜里两点工地还在打桩，吵得一家人睡不着觉，打过电话也没有人来管。",
    "包工头拖欠我们三个月的工资，找他就说没有钱，工友们都等着钱过年。",
    "公交车晚高峰半个小时才来一趟，站台上挤满了人，建议多加几班。",
    "饭店后厨的油烟直接排到楼道里，窗户都不敢开，孩子一直咳嗽。",
    "孩子上小学的学区是怎么划的，要带什么材料，什么时候可以报名？",
]


@contextmanager
def measured(name: str, report: dict[str, object]) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report[name] = {"seconds": round(time.perf_counter() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1), "peak_mb": peak}
    print(f"{name}: {report[name]}", flush=True)


def texts_of(path: Path | None) -> list[str]:
    if path is None:
        return OWN
    table = open_table(path)
    key = table.key("text")
    if key is None:
        raise SystemExit(f"{path.name} has no column text")
    return [str(row[key]) for _, row in table.open_rows()]


def write_orders(path: Path, count: int, texts: list[str]) -> None:
    """Orders of about 200 characters, no two of them alike."""
    chance = random.Random(1)
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    rows: Iterator[list[str]] = (
        [
            f"B{number:06d}",
            f"{chance.randrange(10**6)}号{chance.choice(texts)[: chance.randrange(60, 160)]}{chance.choice(texts)[-chance.randrange(40, 120) :]}",
            CLASSES[number % len(CLASSES)],
            TYPES[number % len(TYPES)],
            f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d} 08:30",
        ]
        for number in range(count)
    )
    if path.suffix == ".csv":
        path.write_text("\n".join([",".join(HEADING), *(",".join(f'"{cell}"' for cell in row) for row in rows)]).replace("\r", ""), encoding="utf-8")
        return
    for row in (HEADING, *rows):
        sheet.append(row)
    book.save(path)


def measure(services: Services, path: Path) -> dict[str, object]:
    report: dict[str, object] = {"file_mb": round(path.stat().st_size / 2**20, 1)}
    kept = path.with_suffix(".kept")
    with measured("look", report), open(kept, "w", encoding="utf-8") as file:
        with db.reading(services.engine) as connection:
            meanings = load_meanings(connection, services)
        look = look_at(open_table(path), meanings, lambda number, cells: print(json.dumps([number, cells], ensure_ascii=False), file=file))
    with measured("import", report), open(kept, encoding="utf-8") as file:
        batch = open_batch(services, path.name, username="bench")
        rows = ((number, cells) for number, cells in map(json.loads, file))
        outcome, _ = import_rows(services, rows, Plan(look.roles), batch_id=batch, username="bench")
    report["outcome"] = outcome.as_dict()
    for form in (YAML, CSV, JSONL):
        with measured(f"export {form}", report):
            size = sum(len(piece.encode()) for piece in export(services, LABELS, form))
        report[f"export {form} mb"] = round(size / 2**20, 1)
    index = ReviewIndex(services)
    with measured("index", report):
        index.refresh()
    report["similar_ms"] = _milliseconds(lambda: index.nearest(OWN[0], 10))
    report["search_ms"] = _milliseconds(lambda: index.items_containing(["路灯", "老人"]))
    return report


def _milliseconds(action: object) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        action()  # type: ignore[operator]
        times.append(time.perf_counter() - started)
    return round(sorted(times)[2] * 1000, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--suffix", choices=["xlsx", "csv"], default="xlsx")
    parser.add_argument("--texts", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings({"MINSHENG_VAR_DIR": scratch})
        db.migrate(settings)
        path = Path(scratch) / f"orders.{options.suffix}"
        write_orders(path, options.rows, texts_of(options.texts))
        report = measure(build_services(settings), path)
    print(json.dumps(report, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
