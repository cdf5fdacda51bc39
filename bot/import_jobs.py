"""Imports as jobs: a file is looked through, checked against what is known, and brought in; each step may be run again.

What was read of a file lies beside it as lines of JSON, so that a workbook is unpacked once. Both go when the import is done.
"""
from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Row

from bot import db
from bot.annotations import CATEGORY, IMPORT, effective_annotations, text_digest
from bot.assistant import Assistant
from bot.comparison import first_level_names
from bot.data_checks import Repeats, Suspicion, emptied_classes
from bot.importing import (
    DONE,
    FAILED,
    MAX_ROWS,
    READY,
    STAGING,
    ImportRefused,
    change_batch,
    digest_of_file,
    find_columns,
    find_same_file,
    import_rows,
    load_meanings,
)
from bot.jobs import JobCancelled, JobError, JobRun
from bot.order_guess import Look, guess_label, look_at
from bot.orders import LABELLED, LOCATION, TEXT, Order, Plan, Problem, read_orders
from bot.services import DATA_DIR, Services
from bot.staff_schema import annotation_rows, import_batches, review_items
from bot.table_words import in_words
from bot.tables import Row as TableRow
from bot.tables import open_table
from bot.uploads import Upload, UploadError, Uploads

LOOK, BRING, REVIEW = "import_look", "import", "import_review"
ROWS = "rows.jsonl"
SAMPLES, SAMPLE_LENGTH = 12, 200
SHOWN_PROBLEMS, SHOWN_COPIES = 20, 10
# Of an unlabelled file so many times more texts are read than are kept: the least certain of them, and one in five at random.
READ_FOR_ONE, RANDOM_SHARE = 5, 0.2


def run_look(job: JobRun) -> Mapping[str, Any]:
    """`params`: batch, and columns once a person has said what they are. Raises JobError, JobCancelled."""
    batch, upload = _open(job)
    try:
        look = _look(job, batch, upload)
        preview = _checked(job, look, upload, job.params.get("columns"))
    except (ValueError, OSError) as error:
        change_batch(job.services, batch.id, state=FAILED)
        raise JobError(f"这个文件读不了：{in_words(str(error)).replace(upload.path.name, upload.name)}") from None
    plan = {"columns": preview.pop("columns_meant"), "labelled": preview["labelled"]}
    sealed = job.services.vault.seal(preview)
    change_batch(job.services, batch.id, state=READY, preview=sealed, plan=json.dumps(plan, ensure_ascii=False), kind=_kind(plan))
    return {"rows": preview["rows"]}


def _kind(plan: Mapping[str, Any]) -> str:
    return "labelled" if plan["labelled"] else "unlabelled"


def _open(job: JobRun) -> tuple[Row, Upload]:
    with db.reading(job.services.engine) as connection:
        batch = connection.execute(select(import_batches).where(import_batches.c.id == job.params["batch"])).first()
    if batch is None:
        raise JobError("没有这次导入，请重新上传")
    try:
        return batch, Uploads(job.services.settings.var_dir).find(batch.upload, owner=batch.username)
    except UploadError as error:
        raise JobError(str(error)) from None


# -- looking --------------------------------------------------------------------------------------------------------------


def _look(job: JobRun, batch: Row, upload: Upload) -> dict[str, Any]:
    """What does not depend on what the columns mean: read from the file the first time, from the last preview after that."""
    if batch.preview and (upload.directory / ROWS).exists():
        kept: dict[str, Any] = job.services.vault.open(batch.preview)
        return kept
    job.tell(0.0, "读取文件")
    table = open_table(upload.path)
    if table.count > MAX_ROWS:
        raise ValueError(f"有 {table.count} 行，一次最多 {MAX_ROWS} 行，请分成几份")
    with db.reading(job.services.engine) as connection:
        meanings = load_meanings(connection, job.services)
        remembered = find_columns(connection, table.headings.values())
    part = upload.directory / f"{ROWS}.part"
    with open(part, "w", encoding="utf-8") as file:

        def keep(number: int, cells: dict[str, str]) -> None:
            file.write(json.dumps([number, cells], ensure_ascii=False) + "\n")
            if number % 1000 == 0:
                job.tell(0.6 * number / max(table.count, 1), "读取各行")

        look = look_at(table, meanings, keep)
    part.replace(upload.directory / ROWS)
    digest = digest_of_file(upload.path, job.services)
    change_batch(job.services, batch.id, digest=digest)
    with db.reading(job.services.engine) as connection:
        same = find_same_file(connection, batch.id, digest)
    return _shown(look, remembered) | {"same_file": {"id": same.id, "at": same.at, "username": same.username} if same else None}


def _shown(look: Look, remembered: Mapping[str, str] | None) -> dict[str, Any]:
    columns = [{"key": key, "heading": column.heading, "filled": column.filled} for key, column in look.columns.items()]
    guessed = {key: role for key, role in (remembered or look.roles).items() if key in look.columns}
    return {"rows": look.rows, "columns": columns, "first": look.first, "guessed": guessed, "remembered": remembered is not None}


def _checked(job: JobRun, look: dict[str, Any], upload: Upload, told: Mapping[str, str] | None) -> dict[str, Any]:
    """The look, with what comes of its rows when the columns mean this."""
    meant = dict(told) if told is not None else look["guessed"]
    labelled = bool({*LABELLED, LOCATION} & set(meant.values()))
    result = {**look, "columns_meant": meant, "labelled": labelled, "check": None}
    if TEXT not in meant.values():
        return result
    job.tell(0.6, "核对各行")
    with db.reading(job.services.engine) as connection:
        meanings = load_meanings(connection, job.services)
    counts: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    unknown: Counter[tuple[str, str]] = Counter()
    samples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    problems: list[tuple[int, str]] = []
    repeats = Repeats()
    for number, read in enumerate(read_orders(rows_of(upload), Plan(meant), meanings, labelled=labelled)):
        if number % 1000 == 0:
            job.tell(0.6 + 0.35 * number / max(look["rows"], 1), "核对各行")
        if isinstance(read, Problem):
            if read.unknown:
                unknown[read.unknown] += 1
                samples[read.unknown] += [read.text[:SAMPLE_LENGTH]] * (len(samples[read.unknown]) < SAMPLES)
            else:
                counts["problems"] += 1
                problems += [(read.row, read.sentence)] * (len(problems) < SHOWN_PROBLEMS)
            continue
        counts["left_out" if read.left_out else "good"] += 1
        counts["unplaced"] += read.unplaced
        first_level = str(read.labels.get("category", ""))[:2]
        classes[first_level] += 1
        repeats.add(read.row, read.text, first_level)
    job.tell(0.96, "猜测不认识的标签")
    copies = [{**vars(one), "text": one.text[:SAMPLE_LENGTH]} for one in repeats.large()[:SHOWN_COPIES]]
    doubts = [one.sentence for one in _lacking(job.services, classes, str(upload.name))] if labelled else []
    check = {**counts, "first_problems": problems, "classes": dict(classes.most_common()), "copies": copies, "doubts": doubts}
    return {**result, "check": {**check, "unknown": _with_guesses(job.services, unknown, samples)}}


def _lacking(services: Services, classes: Mapping[str, int], file_name: str) -> list[Suspicion]:
    """Classes that the imports of before are full of and this file is not."""
    with db.reading(services.engine) as connection:
        known = [one.labels for one in effective_annotations(connection) if one.source.startswith(IMPORT)]
    before = Counter(str(labels[CATEGORY])[:2] for labels in known if CATEGORY in labels)
    own = {code: count for code, count in classes.items() if code}
    return emptied_classes({"before": before, "": own}, [""], {"": file_name}, first_level_names(services))


def _with_guesses(
    services: Services, unknown: Counter[tuple[str, str]], samples: Mapping[tuple[str, str], list[str]]
) -> list[dict[str, Any]]:
    if not unknown:
        return []
    from bot.nlu.corpus import read_lexicon  # Rasa comes with it: seconds that only unknown labels cost
    from bot.nlu.lexicon import Lexicon

    lexicon = Lexicon(read_lexicon(DATA_DIR))
    found = []
    for (name, label), count in unknown.most_common():
        guess = guess_label(name, label, samples[name, label], services.catalogue, lexicon)
        found.append({"field": name, "label": label, "count": count, "guess": guess})
    return found


def rows_of(upload: Upload) -> Iterator[tuple[int, TableRow]]:
    with open(upload.directory / ROWS, encoding="utf-8") as file:
        for line in file:
            number, cells = json.loads(line)
            yield number, cells


# -- bringing in ----------------------------------------------------------------------------------------------------------


def run_import(job: JobRun) -> Mapping[str, Any]:
    """`params`: batch. Its plan says what the columns mean. Raises JobError, JobCancelled."""
    batch, upload = _open(job)
    if batch.state == DONE:  # a process died after the import and before it could say so
        return dict(json.loads(batch.outcome))
    plan = json.loads(batch.plan)
    try:
        outcome, _ = import_rows(
            job.services, rows_of(upload), Plan(plan["columns"], bool(plan.get("keep_twins"))),
            batch_id=batch.id, username=batch.username, tell=job.tell,
        )  # fmt: skip
    except JobCancelled:
        change_batch(job.services, batch.id, state=READY)
        raise
    except ImportRefused as error:
        change_batch(job.services, batch.id, state=READY)
        raise JobError(str(error)) from None
    Uploads(job.services.settings.var_dir).remove(upload)
    return outcome.as_dict()


def run_review_import(job: JobRun) -> Mapping[str, Any]:
    """`params`: batch. A sample of a file without labels is read by the serving model and waits for reviewers, the doubtful first."""
    batch, upload = _open(job)
    if batch.state == DONE:
        return dict(json.loads(batch.outcome))
    plan = json.loads(batch.plan)
    most = int(plan.get("most", 1000))
    change_batch(job.services, batch.id, state=STAGING)
    job.tell(0.0, "读取各行")
    orders, outcome, problems = _fresh_orders(job.services, upload, Plan(plan["columns"]), most * READ_FOR_ONE)
    from bot.embedded import open_embedded  # takes seconds and 400 MB
    from bot.models import models_to_serve

    job.tell(0.05, "加载模型")
    try:
        outcome["items"] = _keep_doubtful(job, open_embedded(models_to_serve(job.services)), batch, orders, most)
    except JobCancelled:
        change_batch(job.services, batch.id, state=READY)
        raise
    kept = {"outcome": json.dumps(outcome), "problems": json.dumps(problems, ensure_ascii=False), "preview": None}
    change_batch(job.services, batch.id, state=DONE, **kept)
    Uploads(job.services.settings.var_dir).remove(upload)
    return outcome


def _fresh_orders(services: Services, upload: Upload, plan: Plan, most: int) -> tuple[list[Order], dict[str, int], list[tuple[int, str]]]:
    """Up to `most` orders whose words are new here, drawn by their digests; counts; bad rows."""
    with db.reading(services.engine) as connection:
        meanings = load_meanings(connection, services)
        known = set(connection.execute(select(review_items.c.digest)).scalars())
        known |= set(connection.execute(select(annotation_rows.c.digest)).scalars())
    orders: dict[str, Order] = {}
    problems: list[tuple[int, str]] = []
    counts: Counter[str] = Counter()
    for read in read_orders(rows_of(upload), plan, meanings, labelled=False):
        if isinstance(read, Problem):
            problems.append((read.row, read.sentence))
            continue
        digest = text_digest(services.vault, read.text)
        counts["rows"] += 1
        counts["repeated"] += digest in known or digest in orders
        if digest not in known:
            orders.setdefault(digest, read)
    drawn = [orders[digest] for digest in sorted(orders)[:most]]
    return drawn, {"rows": counts["rows"], "repeated": counts["repeated"], "refused": len(problems), "read": len(drawn)}, problems


def _keep_doubtful(job: JobRun, assistant: Assistant, batch: Row, orders: list[Order], most: int) -> int:
    from bot.parse import parse_text
    from bot.review_index import ReviewIndex
    from bot.review_labels import certainty, slim_prediction
    from bot.reviews import Reviews, Utterance

    services, read = job.services, []
    for number, order in enumerate(orders):
        job.tell(0.1 + 0.7 * number / len(orders), "模型阅读")
        parse = parse_text(order.text, assistant, services.catalogue, services.gazetteer)
        read.append((certainty(slim_prediction(parse)), order, parse))
    at_random = int(most * RANDOM_SHARE)  # they are in the order of their digests, which is no order at all
    chosen = read[:at_random] + sorted(read[at_random:], key=lambda one: one[0])[: most - at_random]
    reviews = Reviews(services, assistant, ReviewIndex(services))
    job.tell(0.8, "排入审核")
    reviews.index.refresh()
    for number, (_, order, parse) in enumerate(chosen):
        job.tell(0.8 + 0.2 * number / len(chosen), "排入审核")
        subject = order.number or f"{IMPORT}{batch.id}:{order.row}"
        reviews.keep(Utterance(order.text, "import", subject, None, db.iso(order.at or services.now())), parse)
    return len(chosen)
