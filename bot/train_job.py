"""The jobs behind the models page: check the data, train a candidate, compare it with the serving model. The serving one is untouched.

A job that was killed starts again and goes on from what is finished: a candidate whose archive and row exist is not trained twice.
"""
from __future__ import annotations

import gc
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from bot import db
from bot.assistant import AssistantError
from bot.comparison import compare_model, first_level_names
from bot.data_checks import Reading, Suspicion, contradicted_sources, copied_texts, emptied_classes, vanished_classes
from bot.dataset import SAMPLED, Annotation, Dataset, build_dataset, dataset_hash, without
from bot.frozen import seed_shipped
from bot.jobs import ENDED, JobError, JobRun, find_job, list_jobs
from bot.likeness import find_twins
from bot.models import ModelError, archive_path, find_by_hash, find_model, gate_failures, promoted_model, register_model, report_of
from bot.services import Services
from bot.staff_schema import import_batches
from bot.training import TrainingError, remove_leftovers, train_model

TRAIN, COMPARE = "train", "compare"
# So many rows of each import tell whether its labels are to be trusted; each costs the serving model 10 ms.
SAMPLE = 300


def running_training(services: Services) -> int | None:
    """The job that trains or compares now, or waits to; one at a time, for memory and because one candidate is enough."""
    jobs = list_jobs(services, TRAIN, COMPARE, limit=20)
    return next((job.id for job in jobs if job.state not in ENDED), None)


def run_training(job: JobRun) -> Mapping[str, Any]:
    """`params`: leave_out (sources of annotations), confirmed (what is suspicious has been seen).

    The result is {"version", "passed", "same"}, or {"suspicions": [...]} when a person has to look first.
    """
    services = job.services
    remove_leftovers(services.settings)
    job.tell(0.01, "准备考题和训练数据")
    seed_shipped(services)
    dataset = without(build_dataset(services), job.params.get("leave_out", ()))
    job.log(_told(dataset.counts))
    data_hash = dataset_hash(dataset)
    version = _version(services, job.id)
    same = find_by_hash(services, data_hash)
    if same is None:
        if not job.params.get("confirmed") and (found := check_data(services, dataset, job)):
            return {"suspicions": [suspicion.as_dict() for suspicion in found]}
        _train(job, dataset, data_hash, version)
    elif same != version:
        job.log(f"数据和上次训练 {same} 时完全一样，不用重新训练")
    facts = {"leave_out": job.params.get("leave_out", ()), "dataset": _facts(dataset), **confirmed_doubts(job)}
    passed = _compare(job, same or version, 0.75, **facts)
    return {"version": same or version, "passed": passed, "same": same not in (None, version)}


def run_comparison(job: JobRun) -> Mapping[str, Any]:
    """`params`: version. Once more, because another model serves by now or the test items have changed."""
    version = str(job.params["version"])
    row = find_model(job.services, version)
    if row is None:
        raise JobError("没有这个模型")
    earlier = report_of(row) or {}
    kept = {name: earlier[name] for name in ("dataset", "confirmed") if name in earlier}
    return {"version": version, "passed": _compare(job, version, 0.0, leave_out=earlier.get("left_out", ()), **kept)}


def _version(services: Services, job_id: int) -> str:
    """The same each time this job is taken up."""
    job = find_job(services, job_id)
    assert job is not None
    return db.parse_iso(job.created_at).strftime("%Y%m%d-%H%M%S")


def _train(job: JobRun, dataset: Dataset, data_hash: str, version: str) -> None:
    try:
        path = train_model(job.services.settings, dataset, version=version, tell=lambda share, step: job.tell(0.15 + 0.6 * share, step))
    except TrainingError as error:
        raise JobError("没有训练出模型，详情在服务日志里。") from error
    except Exception:
        job.check_cancelled()  # Rasa wraps what stops it
        raise
    job.log(f"模型 {version} 训练完成，{path.stat().st_size / 2**20:.0f} MB")
    now = job.services.now()
    register_model(job.services, path, trained_at=now, metrics={}, data_hash=data_hash, trained_by=job.username, job_id=job.id)
    gc.collect()


def _compare(job: JobRun, version: str, start: float, **more: Any) -> bool:
    """Whether the gate would let it through."""
    try:
        compare_model(job.services, version, lambda share, step: job.tell(start + (1 - start) * share, step), **more)
    except (ModelError, AssistantError) as error:
        raise JobError(f"不能对比：{error}") from error
    row = find_model(job.services, version)
    assert row is not None
    failed = gate_failures(row)
    job.log("达到上线门槛" if not failed else "没有达到上线门槛：" + "；".join(failure.sentence for failure in failed))
    return not failed


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {"counts": dict(dataset.counts), "by_class": dataset.by_class, "rules_version": dataset.rules_version}


def confirmed_doubts(job: JobRun) -> dict[str, Any]:
    """What was suspicious and is trained all the same, for whoever decides on the model; {} where nothing was."""
    if not job.params.get("confirmed"):
        return {}
    before = (one.result for one in list_jobs(job.services, TRAIN, limit=20) if one.id < job.id and one.result)
    doubts = [one["sentence"] for one in next(before, {}).get("suspicions", ())]
    return {"confirmed": {"username": job.username, "sentences": doubts}} if doubts else {}


def _told(counts: Mapping[str, int]) -> str:
    parts = [f"本市标注 {counts['annotated']} 条", f"参加训练 {counts['used']} 条", f"留作考题 {counts['frozen']} 条"]
    more = (("repeats", "与考题近似"), ("unusable", "标签不能用"), ("beyond", "超出上限、取最新的"))
    parts += [f"{name} {counts[key]} 条" for key, name in more if counts[key]]
    return "，".join(parts)


# -- checks ---------------------------------------------------------------------------------------------------------------


def check_data(services: Services, dataset: Dataset, job: JobRun) -> list[Suspicion]:
    """What a person should look at before this is trained."""
    job.tell(0.05, "检查数据：有没有大量重复")
    names, named = first_level_names(services), _named_sources(services)
    found = [*_emptied(services, dataset.annotations, named, names), *_copied(dataset.annotations, named, names)]
    serving = promoted_model(services)
    path = archive_path(services.settings.models_dir, serving or "")
    if serving is None or not path.exists() or not dataset.annotations:
        return found
    job.tell(0.08, "检查数据：标注和正在使用的模型差多少")
    try:
        readings = _readings(dataset.annotations, services, job)
    except AssistantError:
        job.log(f"正在使用的 {serving} 读不出来，数据没有和它对照")
        return found
    row = find_model(services, serving)
    before = (report_of(row) or {}).get("dataset", {}).get("by_class", {}) if row else {}
    contradicted = contradicted_sources(readings, named, names)
    return [*contradicted, *vanished_classes(dataset.by_class, before, readings, names), *found]


def _emptied(
    services: Services, annotations: Sequence[Annotation], named: Mapping[str, str], names: Mapping[str, str]
) -> list[Suspicion]:
    """Asked of what came since the serving model was trained: what it learned from has been looked at."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    latest: dict[str, str] = {}
    for row in annotations:
        if row.origin == SAMPLED and row.first_level:
            counts[row.source][row.first_level] += 1
            latest[row.source] = max(row.at, latest.get(row.source, ""))
    serving = promoted_model(services)
    trained = find_model(services, serving) if serving else None
    return emptied_classes(counts, [source for source, at in latest.items() if trained is None or at > trained.trained_at], named, names)


def _copied(annotations: Sequence[Annotation], named: Mapping[str, str], names: Mapping[str, str]) -> list[Suspicion]:
    """Groups of texts that all but repeat each other; the text itself stays out of the job's row."""
    leaders = find_twins([row.text for row in annotations]).tolist()
    groups = [(leader, size) for leader, size in Counter(leaders).most_common() if size > 1]
    if not groups:
        return []
    members = [row for row, leader in zip(annotations, leaders, strict=True) if leader == groups[0][0]]
    labels = Counter(names.get(row.first_level, "没有类别") for row in members).most_common(2)
    files = Counter(named.get(row.source, "审核") for row in members).most_common(1)
    told = f"{'、'.join(f'标成“{label}” {count} 次' for label, count in labels)}，多数来自“{files[0][0]}”"
    return copied_texts([size for _, size in groups], len(annotations), of_largest=told)


def _readings(annotations: Sequence[Annotation], services: Services, job: JobRun) -> list[Reading]:
    """The serving model's reading of some rows of each import; the same ones each time."""
    from bot.embedded import EmbeddedAssistant  # takes seconds and 400 MB, so only where it is used

    groups: defaultdict[str, list[Annotation]] = defaultdict(list)
    for row in annotations:
        if row.first_level:
            groups[row.source].append(row)
    chosen = [row for rows in groups.values() for row in random.Random(0).sample(rows, min(SAMPLE, len(rows)))]
    serving = promoted_model(services)
    assistant = EmbeddedAssistant(archive_path(services.settings.models_dir, str(serving)))
    readings = []
    for number, row in enumerate(chosen):
        if number % 50 == 0:
            job.check_cancelled()
        best = assistant.parse(row.text)["reading"]["categories"][0]
        readings.append(Reading(row.source, row.first_level, best["code"][:2], float(best["confidence"])))
    return readings


def _named_sources(services: Services) -> dict[str, str]:
    """What people call an import: its file."""
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(import_batches.c.id, import_batches.c.file_name)).fetchall()
    return {f"import:{row.id}": row.file_name for row in rows}
