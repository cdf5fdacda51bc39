"""Understanding beside its peers, in one run: category, cold start, gold messages and their places, address parts, calibration, speed.

`python -m tests.bench_nlu` writes reports/bench-nlu.json, bench-nlu.md and pictures; docs/benchmarks.md says how to read them.
Every figure is measured in this run; a reader that did not run is named with the reason. The data is not part of the project.
"""
from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.model_selection import StratifiedKFold

from bot.evaluation import _LABEL_TASKS, Judged, _score_labels, _score_places
from bot.settings import load_settings
from tests.bench_nlu_peers import Row, read_rows
from tests.bench_nlu_report import GOLD, REPORTS, Answers, calibration_report, draw, report_text
from tests.servers import PROJECT_ROOT, Server, ServerError, clean_environment

PEERS_FILE = PROJECT_ROOT / "tests" / "bench_nlu_peers.py"
PEERS_PYTHON = PROJECT_ROOT / ".venv-bench" / "bin" / "python"
OWN_ENVIRONMENT = {"ours", "rasa-lr", "rasa-diet", "parses", "corpus", "command", "styles"}  # jobs of the product's own packages
FOLDS = 4
PLACE_PEERS = ("jieba", "jionlp words", "jionlp divisions", "cpca divisions", "suffix pattern")
LABEL_PEERS = ("tfidf-svm", "fasttext")
# A row that shares this many of its character pairs with a test message is that message again; between 0.5 and 0.9 there is hardly any.
TWIN = 0.7


class BenchError(RuntimeError):
    """One of our own jobs failed; the text says which, and its last line."""


@dataclass
class Bench:
    """One run: its options, its working directory, and what the pictures are drawn from."""

    options: argparse.Namespace
    work: Path
    models: Path
    started: float = field(default_factory=time.monotonic)
    skipped: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, Answers] = field(default_factory=dict)  # reliability diagram
    coverage: dict[str, Answers] = field(default_factory=dict)  # coverage and accuracy, all on the same rows
    confusion: dict[str, Answers] = field(default_factory=dict)
    jobs: int = 0

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def path(self, *parts: str) -> Path:
        return self.options.data.joinpath(*parts)

    def cut(self, rows: list[Any]) -> list[Any]:
        return rows[: self.options.rows]

    @cached_property
    def environment(self) -> dict[str, str]:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return clean_environment(MINSHENG_VAR_DIR=str(self.work / "var"), MINSHENG_MODELS_DIR=str(self.models), **one_thread)

    def run(self, job: str, *arguments: Path | str) -> dict[str, Any] | None:
        """The job's result; None for a peer that cannot run, whose reason then stands in the report. Raises BenchError for ours."""
        python = Path(sys.executable) if job in OWN_ENVIRONMENT else PEERS_PYTHON
        if not python.exists():
            self.skipped[job] = ".venv-bench is missing: sh scripts/bench-environment.sh .venv-bench .venv"
            return None
        self.jobs += 1
        out = self.work / f"job-{self.jobs}.json"
        command = [str(python), str(PEERS_FILE), job, str(out), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.work, env=self.environment, capture_output=True, text=True, errors="replace")
        if done.returncode == 0 and out.exists():
            result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return result
        why = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:200]
        if job in OWN_ENVIRONMENT and not job.startswith("rasa"):
            raise BenchError(f"{job}: {why}")
        self.skipped[job] = why
        self.say(f"{job} did not run: {why}")
        return None

    def bot(self, *arguments: Path | str) -> dict[str, Any]:
        """`python -m bot …`: its seconds and its peak memory."""
        result = self.run("command", *arguments)
        assert result is not None
        return result

    def reports(self, name: str, *arguments: Path | str) -> dict[str, Any]:
        """The JSON that `python -m bot … --json` writes."""
        out = self.work / f"{name}.json"
        self.bot(*arguments, "--json", out)
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return report


# -- rows -----------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def without_twins(rows: Sequence[Row], test: Sequence[Row]) -> list[Row]:
    """`rows` that are none of the test messages again, be it as raw text or as words without stop words."""
    ours, theirs = [pairs_of(row) for row in rows], [pairs_of(row) for row in test]
    numbers = {pair: number for number, pair in enumerate(set().union(*ours, *theirs))}

    def matrix(sets: Sequence[set[str]]) -> csr_matrix:
        columns = [numbers[pair] for pairs in sets for pair in pairs]
        ends = np.cumsum([0, *map(len, sets)])
        return csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), len(numbers)))

    shared = (matrix(ours) @ matrix(theirs).T).toarray()
    sizes = np.minimum.outer([max(1, len(pairs)) for pairs in ours], [max(1, len(pairs)) for pairs in theirs])
    alike = (shared / sizes).max(axis=1)
    return [row for row, share in zip(rows, alike) if share < TWIN]


def pairs_of(row: Row) -> set[str]:
    pieces = row["tokens"].split() if "tokens" in row else ["".join(row["text"].split())]
    return {piece[i : i + 2] for piece in pieces for i in range(len(piece) - 1)}


def answers_of(result: Mapping[str, Any], truth: Sequence[str], among: set[str] | None = None) -> Answers:
    """The likeliest class for each row, of all classes or only of those in `among`."""
    if "predicted" in result:
        return Answers(list(truth), result["predicted"], result["confidences"], True)
    kept = [number for number, name in enumerate(result["classes"]) if among is None or name in among]
    scores = np.array(result["scores"], float)[:, kept]
    ordered = np.sort(scores, axis=1)
    margin, share = ordered[:, -1] - ordered[:, -2], ordered[:, -1] / np.maximum(ordered.sum(axis=1), 1e-9)
    sureness = share if result["probabilities"] else margin
    predicted = [result["classes"][kept[int(best)]] for best in scores.argmax(axis=1)]
    return Answers(list(truth), predicted, sureness.tolist(), bool(result["probabilities"]))


# -- sections -------------------------------------------------------------------------------------------------------------


def measure_category(bench: Bench) -> dict[str, Any]:
    """The platform's own messages, held out fold by fold; without and with the tokenised file."""
    raw, tokenised = (bench.cut(read_rows(str(bench.path("petitions", name)))) for name in ("train.csv", "train_tokenised.csv"))
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(raw, [row["label"] for row in raw])
    folds: dict[str, list[dict[str, Any]]] = {}
    said: dict[str, list[Answers]] = {}
    count = 1 if bench.options.quick else FOLDS
    for number, (train, test) in zip(range(count), splits):
        held_out = [raw[i] for i in test]
        own, words = without_twins([raw[i] for i in train], held_out), without_twins(tokenised, held_out)
        test_file, own_file = write_csv(bench.work / "test.csv", held_out), write_csv(bench.work / "train.csv", own)
        words_file = write_csv(bench.work / "tokens.csv", words, ("tokens", "label"))
        twins = f"{len(train) - len(own)} and {len(tokenised) - len(words)} twins removed"
        bench.say(f"category, fold {number + 1} of {count}: {len(held_out)} test messages, {twins}")
        for name, job, files in category_readers(bench, number, own_file, words_file):
            result = bench.run(job, test_file, *files)
            if result is None:
                continue
            answers = answers_of(result, [row["label"] for row in held_out])
            costs = {key: result[key] for key in ("train_seconds", "predict_ms_p50", "predict_ms_p99", "peak_mb")}
            scores = {**answers.scores(), **costs, "train_rows": len(own) + (len(words) if len(files) > 1 else 0)}
            folds.setdefault(name, []).append(scores)
            said.setdefault(name, []).append(answers)
            bench.say(f"  {name:<22} macro-F1 {scores['macro_f1']:.4f}  training {scores['train_seconds']:.0f} s")
    bench.coverage.update({name: answers[0] for name, answers in said.items()})
    for name in ("ours", "ours + tokenised"):
        pooled = bench.calibration[f"{name}, platform's own data"] = pool(said[name])
        bench.confusion[f"{name}, platform's own data"] = pooled
    return {name: {"folds": scores, "mean": mean_of(scores)} for name, scores in folds.items()}


def category_readers(bench: Bench, fold: int, own: Path, words: Path) -> list[tuple[str, str, list[Path]]]:
    """(name in the report, job, training files) of one fold. Rasa's pipelines take minutes each: the first fold only."""
    readers = [(name, name, [own]) for name in ("ours", *LABEL_PEERS)]
    readers += [(f"{name} + tokenised", name, [own, words]) for name in ("ours", *LABEL_PEERS)]
    for name, wanted, why in (
        ("rasa-lr", not bench.options.quick, "--quick"),
        ("rasa-diet", bench.options.diet, "takes about 25 minutes: only with --diet"),
    ):
        if not wanted:
            bench.skipped[name] = f"not run: {why}"
        elif fold == 0:
            readers.append((name, name, [own]))
    return readers


def pool(parts: Sequence[Answers]) -> Answers:
    truth, predicted, sureness = ([item for part in parts for item in getattr(part, name)] for name in ("truth", "predicted", "sureness"))
    return Answers(truth, predicted, sureness, parts[0].probabilities)


def mean_of(folds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = [name for name, value in folds[0].items() if isinstance(value, (int, float))]
    return {name: round(float(np.mean([scores[name] for scores in folds])), 4) for name in names}


def measure_cold_start(bench: Bench) -> dict[str, Any]:
    """The shipped model, which has seen no message of the platform, on all of them; peers learn from the same texts of ours."""
    rows = bench.cut(read_rows(str(bench.path("petitions", "train.csv"))))
    truth, texts = [row["label"] for row in rows], write_jsonl(bench.work / "petitions.jsonl", rows)
    bench.say(f"cold start: {len(rows)} messages")
    parsed = bench.run("parses", texts)
    assert parsed is not None
    read = parsed["files"][str(texts)]
    ours = {
        "predicted": [row["parse"]["categories"][0]["path"][0] for row in read["rows"]],
        "confidences": [row["confidence"] for row in read["rows"]],
    }
    free = answers_of(ours, truth)
    restricted = answers_of(first_level_scores(read["rows"]), truth, set(truth))
    bench.calibration["shipped, cold start"] = bench.confusion["shipped, cold start"] = free
    report = {"ours": {"all": free.scores(), "among_given": restricted.scores(), **times(read)}}
    corpus = bench.work / "corpus-category.csv"
    bench.run("corpus", f"category={corpus}")
    for name in LABEL_PEERS:
        result = bench.run(name, write_csv(bench.work / "cold.csv", rows), corpus)
        if result:
            both = {"all": answers_of(result, truth), "among_given": answers_of(result, truth, set(truth))}
            report[name] = {**{key: answers.scores() for key, answers in both.items()}, **times(result)}
    for name, scores in report.items():
        given, free_choice = scores["among_given"]["macro_f1"], scores["all"]["macro_f1"]
        bench.say(f"  {name:<22} macro-F1 {free_choice:.4f}, among the given classes {given:.4f}")
    return report


def measure_styles(bench: Bench) -> dict[str, Any]:
    """Our own texts, one manner of writing left out at a time: does what is learned from others carry over to it?"""
    bench.say("our own texts, one style left out at a time")
    result = bench.run("styles")
    assert result is not None
    return {name: scores for name, scores in result.items() if name != "peak_mb"}


def first_level_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    classes = sorted(rows[0]["firsts"])
    return {"classes": classes, "scores": [[row["firsts"][name] for name in classes] for row in rows], "probabilities": True}


def times(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("train_seconds", "predict_ms_p50", "predict_ms_p99") if key in result}


def measure_gold(bench: Bench) -> dict[str, Any]:
    """Messages labelled by hand: each file's `evaluate` report, then the same rows for the peers."""
    files = {name: write_jsonl(bench.work / file, bench.cut(read_jsonl(bench.path("gold", file)))) for name, file in GOLD.items()}
    bench.say("gold messages: " + ", ".join(f"{len(read_jsonl(path))} of {path.name}" for path in files.values()))
    parsed = bench.run("parses", *files.values())
    assert parsed is not None
    report: dict[str, Any] = {}
    for name, file in files.items():
        gold, read = read_jsonl(file), parsed["files"][str(file)]
        ours = [judged(row, said["parse"]) for row, said in zip(gold, read["rows"])]
        figures = bench.reports(f"evaluate-{name}", "evaluate", file)
        figures.pop("mistakes", None)
        figures.update(score_emergencies(ours), **times(read))
        peers = {"most frequent label": constant(ours)}
        report[name] = {"ours": figures, "labels": {"ours": score_tasks(ours), **{key: score_tasks(rows) for key, rows in peers.items()}}}
        report[name]["labels"]["ours"]["category_top3"] = top_three(ours, [said["firsts"] for said in read["rows"]])
        if name == "gold":
            report[name]["places"] = measure_places(bench, file, ours)
            bench.calibration["shipped, gold"] = right_or_wrong(ours, [said["confidence"] for said in read["rows"]])
    add_label_peers(bench, files, report)
    for task, key in (("category", "category_accuracy"), ("places", "main_location_exact")):
        bench.say(f"  {task:<10} {key} {report['gold']['ours'][key]}")
    return report


def judged(gold: Mapping[str, Any], parse: Mapping[str, Any]) -> Judged:
    """As much of a judged row as the scorers of labels and places look at."""
    known: dict[str, Any] = {"id": str(gold["id"]), "gold": gold, "text": gold["text"], "parse": parse}
    return Judged(**{part.name: known.get(part.name) for part in fields(Judged)})


def score_tasks(rows: Sequence[Judged]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for task in ("category", "request_type", "urgency"):
        scores.update(_score_labels(rows, task, _LABEL_TASKS[task], {}))
    return scores


def labels_parse(**labels: str) -> dict[str, Any]:
    """As much of a parse as score_tasks() looks at."""
    return {
        "categories": [{"path": [labels.get("category", "")]}],
        "request_type": {"name": labels.get("request_type", "")},
        "urgency": {"level": labels.get("urgency", "")},
    }


def constant(rows: Sequence[Judged]) -> list[Judged]:
    common: dict[str, str] = {}
    for task in ("category", "request_type", "urgency"):
        counts = Counter(label for row in rows for label in row.labels(task))
        common[task] = counts.most_common(1)[0][0] if counts else ""
    return [judged(row.gold, labels_parse(**common)) for row in rows]


def top_three(rows: Sequence[Judged], shares: Sequence[Mapping[str, float]]) -> float | None:
    """Share of rows whose category is among the three likeliest first levels."""
    hits = [
        bool(set(sorted(given, key=lambda name: -given[name])[:3]) & set(row.labels("category")))
        for row, given in zip(rows, shares)
        if row.labels("category")
    ]
    return round(float(np.mean(hits)), 4) if hits else None


def score_emergencies(rows: Sequence[Judged]) -> dict[str, Any]:
    """Rows on whose being an emergency everybody agrees."""
    sides = [(all(row.labels("emergency")), row.parse["urgency"]["emergency"]) for row in rows if len(set(row.labels("emergency"))) == 1]
    rung = [real for real, said in sides if said]
    counts = {"emergencies": sum(real for real, _ in sides), "emergencies_rung": sum(rung), "false_alarms": len(rung) - sum(rung)}
    return {**counts, "emergency_precision": round(sum(rung) / len(rung), 4) if rung else None}


def right_or_wrong(rows: Sequence[Judged], confidences: Sequence[float]) -> Answers:
    """A category that any annotator gave is right."""
    labelled = [(row, row.parse["categories"][0]["path"][0], sure) for row, sure in zip(rows, confidences) if row.labels("category")]
    truth = [said if said in row.labels("category") else row.labels("category")[0] for row, said, _ in labelled]
    return Answers(truth, [said for _, said, _ in labelled], [sure for *_, sure in labelled], True)


def add_label_peers(bench: Bench, files: Mapping[str, Path], report: dict[str, Any]) -> None:
    """Category, request type and urgency by readers that learn from the texts the shipped model learns from."""
    corpora = {task: bench.work / f"corpus-{task}.csv" for task in ("category", "request_type", "urgency")}
    bench.run("corpus", *(f"{task}={path}" for task, path in corpora.items()))
    gold = {name: read_jsonl(file) for name, file in files.items()}
    test = write_csv(bench.work / "gold.csv", [{"text": row["text"], "label": ""} for rows in gold.values() for row in rows])
    for peer in LABEL_PEERS:
        results = {task: bench.run(peer, test, path) for task, path in corpora.items()}
        said = {task: answers_of(result, [""] * len(result["scores"])).predicted for task, result in results.items() if result}
        start = 0
        for name, rows in gold.items():
            here = slice(start, start := start + len(rows))
            parses = [labels_parse(**dict(zip(said, labels))) for labels in zip(*(labels[here] for labels in said.values()))]
            peers = [judged(row, parse) for row, parse in zip(rows, parses)]
            if peers and results["category"]:
                shares = [dict(zip(results["category"]["classes"], scores)) for scores in results["category"]["scores"][here]]
                report[name]["labels"][peer] = {**score_tasks(peers), "category_top3": top_three(peers, shares)}


def measure_places(bench: Bench, file: Path, ours: Sequence[Judged]) -> dict[str, Any]:
    """Ours and the tools people reach for; a tool that finds several places means the longest or the first, whatever suits it."""
    report = {"ours": score_places(ours)}
    for name in PLACE_PEERS:
        result = bench.run(name, file)
        if result is None:
            continue
        for rule, choose in (("longest", longest), ("first", first)):
            rows = [judged(row.gold, places_parse(row.text, spans, choose)) for row, spans in zip(ours, result["spans"])]
            report[f"{name}, {rule}"] = {**score_places(rows), **times(result)}
    return report


def longest(spans: Sequence[Sequence[int]]) -> int:
    return max(range(len(spans)), key=lambda number: spans[number][1] - spans[number][0])


def first(spans: Sequence[Sequence[int]]) -> int:
    return 0


def places_parse(text: str, spans: Sequence[Sequence[int]], choose: Callable[[Sequence[Sequence[int]]], int]) -> dict[str, Any]:
    locations = [{"text": text[start:end], "start": start, "end": end} for start, end in spans]
    return {"locations": locations, "main_location": choose(spans) if spans else None}


def score_places(rows: Sequence[Judged]) -> dict[str, Any]:
    """The scores of `evaluate`, and how often silence met a message in which nobody sees a place."""
    silent = [row.parse["main_location"] is None for row in rows if "main_location" in row.gold and not any(row.labels("main_location"))]
    return {**_score_places(rows, {}), "no_place": round(float(np.mean(silent)), 4) if silent else None, "rows_without_place": len(silent)}


def measure_address(bench: Bench) -> dict[str, Any]:
    """Parts of postal addresses, tagged character by character."""
    usage = subprocess.run([sys.executable, "-m", "bot", "benchmark", "--help"], cwd=bench.work, env=bench.environment, capture_output=True, text=True)
    if "address" not in usage.stdout:
        bench.skipped["address parts"] = "not run: this version has no `benchmark address`"
        return {}
    files = {name: bench.path("address", f"{name}.jsonl") for name in ("train", "dev")}
    if bench.options.rows:
        files = {name: write_jsonl(bench.work / f"address-{name}.jsonl", bench.cut(read_jsonl(path))) for name, path in files.items()}
    bench.say("address parts")
    return bench.reports("address", "benchmark", "address", "--train", files["train"], "--test", files["dev"])


def measure_speed(bench: Bench) -> dict[str, Any]:
    """What the shipped model costs. One process at a time; `parse` times are in the sections that parse."""
    archive = newest(bench.models)
    rows = read_rows(str(bench.path("petitions", "train.csv")))[: min(bench.options.rows or 1000, 200 if bench.options.quick else 1000)]
    bench.say(f"speed: start, then {len(rows)} messages in one batch")
    started = time.perf_counter()
    with Server(bench.work / "server" / "var", models_dir=str(bench.models)) as server:
        ready, memory = time.perf_counter() - started, server.rss_mb()
    one, many = (write_csv(bench.work / f"batch-{len(part)}.csv", part) for part in (rows[:1], rows))
    seconds = [bench.bot("classify", path, "--out", bench.work / "classified.jsonl") for path in (one, many)]
    reading = seconds[1]["seconds"] - seconds[0]["seconds"]
    return {
        "start_seconds": round(ready, 2),
        "start_rss_mb": round(memory),
        "classify_messages_per_second": round((len(rows) - 1) / reading, 1),
        "classify_rows": len(rows),
        "classify_peak_mb": seconds[1]["peak_mb"],
        "archive_mb": round(archive.stat().st_size / 2**20, 1),
    }


def newest(models: Path) -> Path:
    found = sorted(models.glob("*.tar.gz"), key=lambda path: path.name)
    if not found:
        raise BenchError(f"no model in {models}: run `python -m bot train`")
    return found[-1]


def measure_training(bench: Bench) -> dict[str, Any]:
    """A fresh model of this checkout, which every section then reads with; what it cost."""
    bench.say("training the shipped model")
    cost = bench.bot("train")
    return {"train_seconds": round(cost["seconds"], 1), "train_peak_mb": cost["peak_mb"]}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "training": measure_training,
    "category": measure_category,
    "cold-start": measure_cold_start,
    "styles": measure_styles,
    "gold": measure_gold,
    "address": measure_address,
    "speed": measure_speed,
}


# -- run ------------------------------------------------------------------------------------------------------------------


def run_of(bench: Bench) -> dict[str, Any]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT_ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit or None,
        "model": newest(bench.models).name.removesuffix(".tar.gz") if list(bench.models.glob("*.tar.gz")) else None,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "quick": bench.options.quick,
        "first_rows_only": bench.options.rows,
    }


def measure(bench: Bench, names: Sequence[str]) -> dict[str, Any]:
    """A section that fails is named and the others go on; the file is complete after each of them."""
    sections: dict[str, Any] = {}
    report = {"run": run_of(bench), "sections": sections, "skipped": bench.skipped}
    for name in names:
        try:
            sections[name] = SECTIONS[name](bench)
        except (BenchError, ServerError) as error:
            sections[name] = {"failed": str(error)}
            bench.say(f"{name} failed: {error}")
        sections["calibration"] = calibration_report(bench.calibration)
        report["run"] = {**run_of(bench), "load_average": report["run"]["load_average"], "seconds": round(time.monotonic() - bench.started)}
        (REPORTS / "bench-nlu.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return report


def chosen_sections(options: argparse.Namespace) -> list[str]:
    """A whole run trains its model, so that the figures are those of this checkout; other runs read with the newest model there is."""
    whole = not options.only and not options.quick
    return [name for name in SECTIONS if name in (options.only or SECTIONS) and (name != "training" or whole or options.only)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=PROJECT_ROOT.parent / "shared" / "data", help="folder with petitions/, gold/, address/")
    parser.add_argument("--quick", action="store_true", help="one fold, without Rasa's pipelines, with the newest model instead of a fresh one")
    parser.add_argument("--diet", action="store_true", help="Rasa's DIET too, about 25 minutes more")
    parser.add_argument("--only", choices=list(SECTIONS), action="append", metavar="SECTION", help=", ".join(SECTIONS) + "; may repeat")
    parser.add_argument("--rows", type=int, help="only the first rows of each file: to try the benchmark, not to measure")
    options = parser.parse_args()
    options.data = options.data.resolve()
    if not (options.data / "petitions" / "train.csv").exists():
        print(f"no data to measure with in {options.data}: name the folder that holds petitions/, gold/ and address/ with --data", file=sys.stderr)
        return 1
    REPORTS.mkdir(exist_ok=True)
    names = chosen_sections(options)
    with tempfile.TemporaryDirectory(prefix="minsheng-bench-") as directory:
        work = Path(directory)
        shipped = load_settings({**os.environ, "MINSHENG_VAR_DIR": str(work / "var")}).models_dir
        bench = Bench(options, work, work / "models" if "training" in names else shipped)
        report = measure(bench, names)
        pictures = draw(bench.confusion, bench.calibration, bench.coverage)
        (REPORTS / "bench-nlu.md").write_text(report_text(report, pictures), encoding="utf-8")
    bench.say("reports/bench-nlu.md, bench-nlu.json and pictures are written")
    return int(any("failed" in section for section in report["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
