"""Training on a small slice of the texts: the same data gives the same model, a correction is learned, a kill leaves nothing behind."""
from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.dataset import (
    PICKED,
    SAMPLED,
    Annotation,
    Dataset,
    dataset_hash,
    newest_of_each_class,
    usable_labels,
    without,
    write_dataset,
)
from bot.embedded import EmbeddedAssistant
from bot.importing import open_batch
from bot.jobs import JobRun, find_job, submit_job
from bot.models import find_archives, register_model
from bot.nlu.corpus import read_annotations
from bot.services import Services
from bot.settings import PROJECT_ROOT, Settings, load_settings
from bot.train_job import check_data
from bot.training import remove_leftovers
from tests.small_corpus import small_root

SAID = "巷口那家棺材铺天天敲敲打打，木屑飞得到处都是"
CORRECTION = Annotation(SAID, "d1", {"category": "130103", "request_type": "投诉", "places": [[0, 2]]}, "review", 1.0, "2026-11-20")
DATA = Dataset((CORRECTION,), {"used": 1})
TRAIN = """
import json, sys
from pathlib import Path
from bot.dataset import Annotation, Dataset
from bot.settings import settings_from_environment
from bot.training import train_model
rows = [Annotation(**row) for row in json.loads(sys.argv[3])]
tell = lambda share, step: print(share, step, flush=True)
train_model(settings_from_environment(), Dataset(tuple(rows), {}), version=sys.argv[1], root=Path(sys.argv[2]), tell=tell)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_root(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("trained")
    return load_settings({"MINSHENG_VAR_DIR": str(home / "var"), "MINSHENG_MODELS_DIR": str(home / "models")})


def start_training(place: Settings, root: Path, version: str, *, seed: int = 0) -> subprocess.Popen[str]:
    """In a process of its own, whose sets are in an order of their own."""
    homes = {"MINSHENG_VAR_DIR": str(place.var_dir), "MINSHENG_MODELS_DIR": str(place.models_dir)}
    environment = {**os.environ, **homes, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(PROJECT_ROOT)}
    rows = json.dumps([vars(row) for row in DATA.annotations])
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, version, str(root), rows]
    return subprocess.Popen(command, cwd=place.var_dir, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.fixture(scope="module")
def archives(place: Settings, root: Path) -> Iterator[list[Path]]:
    """Two trainings of the same data."""
    running = [start_training(place, root, f"2026010{number}-000000", seed=number) for number in (1, 2)]
    for process in running:
        process.communicate(timeout=550)
    yield find_archives(place.models_dir)[::-1]


def states(archive: Path) -> dict[str, bytes]:
    """What each part of our component keeps in the archive."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.name.endswith(".pkl.gz")]
        return {member.name: gzip.decompress(tar.extractfile(member).read()) for member in members}  # type: ignore[union-attr]


def test_same_data_gives_the_same_model(archives: list[Path]) -> None:
    first, second = map(states, archives)
    assert len(first) == 3 and first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_correction_is_learned(archives: list[Path]) -> None:
    reading = EmbeddedAssistant(archives[0]).parse(SAID)["reading"]
    assert reading["categories"][0]["code"] == "130103"


def test_nothing_is_left_of_a_finished_training(archives: list[Path], place: Settings) -> None:
    assert sorted(path.name for path in place.models_dir.iterdir()) == [path.name for path in archives]
    assert list((place.var_dir / "training").iterdir()) == []


def test_killed_training_leaves_the_archives_alone_and_is_swept_away(archives: list[Path], place: Settings, root: Path) -> None:
    process = start_training(place, root, "20260103-000000")
    assert process.stdout is not None and process.stdout.readline()  # it has begun to learn
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert find_archives(place.models_dir)[::-1] == archives
    leftovers = [place.models_dir / ".training-20260103-000000", place.var_dir / "training" / "20260103-000000"]
    assert all(path.exists() for path in leftovers)
    remove_leftovers(place)  # another one may be at work: only what is old goes
    assert all(path.exists() for path in leftovers)
    for path in leftovers:
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    remove_leftovers(place)
    assert not any(path.exists() for path in leftovers)


# -- data -----------------------------------------------------------------------------------------------------------------


def test_hash_is_of_everything_that_makes_a_model(root: Path) -> None:
    first = dataset_hash(DATA, root=root)
    assert dataset_hash(Dataset((CORRECTION,), {}), root=root) == first
    changed = Annotation(**{**vars(CORRECTION), "labels": {"category": "130104"}})
    assert dataset_hash(Dataset((changed,), {}), root=root) != first
    assert dataset_hash(Dataset((CORRECTION,), {}, rules={"words": {"130103": ["木屑"]}}), root=root) != first
    text = root / "nlu_data" / "intents" / "intents.txt"
    before = text.read_bytes()
    text.write_bytes(before + b"\n")
    assert dataset_hash(DATA, root=root) != first
    text.write_bytes(before)


def test_importer_reads_what_was_written(root: Path, tmp_path: Path) -> None:
    sampled = Annotation("路灯坏了", "d2", {"category": "01"}, "import:4", 1.0, "2026-11-20")
    directory = write_dataset(Dataset((CORRECTION, sampled), {}), tmp_path / "texts", root=root)
    first, second = read_annotations(directory / "annotations.jsonl")
    assert (first.text, first.category, first.places, first.origin) == (SAID, "130103", ((0, 2),), PICKED)
    assert (second.category, second.origin, second.weight) == ("01", SAMPLED, 1.0)
    assert read_annotations(tmp_path / "nothing.jsonl") == []


def test_city_words_are_laid_over_the_shipped_ones(root: Path, tmp_path: Path) -> None:
    rules = {"words": {"130103": ["棺材铺"]}, "places": [], "categories": [], "routes": {}, "limits": []}
    directory = write_dataset(Dataset((), {}, "huaian", rules, 3), tmp_path / "texts", root=root)
    assert "棺材铺" in (directory / "nlu_data" / "lexicon" / "13.txt").read_text(encoding="utf-8")
    assert "棺材铺" not in (root / "nlu_data" / "lexicon" / "13.txt").read_text(encoding="utf-8")


def test_labels_that_teach_nothing_are_left_out(services: Services) -> None:
    given = {"category": "99", "request_type": "求爷爷", "urgency": "紧急", "intent": "sing", "places": [[0, 99]], "order": {"channel": "电话"}}
    known = services.catalogue, frozenset({"inform"})
    assert usable_labels(given, "路灯坏了", *known) == {"urgency": "紧急"}
    assert usable_labels({"category": "0101", "intent": "inform", "places": []}, "路灯坏了", *known) == {
        "category": "0101", "intent": "inform", "places": [],
    }  # fmt: skip


def test_beyond_the_limit_small_classes_stay_whole_and_the_newest_of_large_ones() -> None:
    rows = [Annotation(f"甲{n}", f"a{n}", {"category": "01"}, "import:1", 1.0, f"2026-01-{n:02d}") for n in range(1, 21)]
    rows += [Annotation(f"乙{n}", f"b{n}", {"category": "04"}, "import:1", 1.0, "2026-01-01") for n in range(3)]
    kept = newest_of_each_class(rows, 10)
    assert [row.text for row in kept if row.first_level == "01"] == [f"甲{n}" for n in range(14, 21)]
    assert sum(row.first_level == "04" for row in kept) == 3
    assert newest_of_each_class(rows, 100) == rows


def test_one_import_can_be_left_out() -> None:
    other = Annotation("路灯坏了", "d2", {"category": "01"}, "import:4", 1.0, "2026-11-20")
    assert without(Dataset((CORRECTION, other), {"used": 2}), ["import:4"]).annotations == (CORRECTION,)


# -- what a person looks at before -----------------------------------------------------------------------------------------


@pytest.fixture
def job(services: Services) -> JobRun:
    found = find_job(services, submit_job(services, "train", {}, username="li"))
    assert found is not None
    return JobRun(services, found)


def imported(services: Services, file_name: str, **rows: int) -> list[Annotation]:
    """So many rows of each class (`c05=30`), no two of them alike."""
    source = f"import:{open_batch(services, file_name, username='li')}"
    chance = random.Random(file_name)
    return [
        Annotation("".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(20)), f"{source}{code}{n}", {"category": code[1:]}, source, 1.0, "2026-11-19")
        for code, count in rows.items()
        for n in range(count)
    ]  # fmt: skip


def found_in(services: Services, job: JobRun, *rows: Annotation) -> list[tuple[str, str]]:
    return [(one.kind, one.sentence) for one in check_data(services, Dataset(rows, {}), job)]


def test_file_without_a_class_is_told_until_a_model_of_it_serves(services: Services, job: JobRun, tmp_path: Path) -> None:
    rows = [*imported(services, "九月.xlsx", c01=60, c05=30), *imported(services, "十月.xlsx", c01=120)]
    ((kind, sentence),) = found_in(services, job, *rows)
    assert kind == "emptied" and "“十月.xlsx”共 120 条" in sentence and "“卫生计生”0 条" in sentence and "30 条" in sentence
    register_model(services, tmp_path / "20261120-090000.tar.gz", trained_at=services.now(), metrics={})
    assert found_in(services, job, *rows) == []


def test_copies_are_told_with_their_class_and_file_and_without_their_words(services: Services, job: JobRun) -> None:
    said = "楼下的烧烤店半夜还在炒菜，油烟和噪音特别大，孩子睡不着觉"
    copies = [Annotation(said + "！" * (n % 3), f"c{n}", {"category": "06"}, "import:1", 1.0, "2026-11-19") for n in range(500)]
    ((kind, sentence),) = found_in(services, job, *imported(services, "九月.xlsx", c13=40), *copies)
    assert kind == "copies" and "500 次" in sentence and "标成“教育文体” 500 次" in sentence and "九月.xlsx" in sentence
    assert "烧烤" not in sentence
