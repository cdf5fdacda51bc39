"""One job of tests/bench_nlu.py in a process of its own: `python bench_nlu_peers.py JOB OUT.json ARGUMENTS…`.

A job is one reader, ours or a peer's, so that its time and memory are its own. Jobs import what they need themselves: most
peers live in .venv-bench, which knows nothing of ours; Rasa's own pipelines and our readers run in the product's environment.
"""
from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

csv.field_size_limit(10_000_000)

Row = dict[str, str]  # label, and text or tokens
Span = tuple[int, int]
# Classes, whether their scores are probabilities, and what gives the scores of a text.
Fitted = tuple[list[str], bool, Callable[[str], Sequence[float]]]
Fit = Callable[[Sequence[Row]], Fitted]


# -- categories: TEST.csv TRAIN.csv …, the files of `python -m bot benchmark category` --------------------------------


def words_joined(row: Row) -> str:
    return row["text"] if row.get("text") else row["tokens"].replace(" ", "")


def tfidf_svm() -> Fit:
    """Character 1–3-grams, sublinear TF-IDF, LinearSVC: the usual strong baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    def fit(rows: Sequence[Row]) -> Fitted:
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
        matrix = vectorizer.fit_transform(map(words_joined, rows))
        model = LinearSVC(random_state=0).fit(matrix, [row["label"] for row in rows])
        return list(model.classes_), False, lambda text: model.decision_function(vectorizer.transform([text]))[0]

    return fit


def fasttext() -> Fit:
    """Words of jieba; the best of the usual settings on a part of the platform's messages. One thread repeats itself."""
    import fasttext
    import jieba

    jieba.initialize()

    def words(text: str) -> str:
        return " ".join(jieba.cut(re.sub(r"\s+", " ", text)))

    def fit(rows: Sequence[Row]) -> Fitted:
        classes = sorted({row["label"] for row in rows})
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
            for row in rows:
                said = words(row["text"]) if row.get("text") else row["tokens"].replace("\n", " ")
                file.write(f"__label__{classes.index(row['label'])} {said}\n")
            file.flush()
            model = fasttext.train_supervised(file.name, epoch=25, lr=0.5, thread=1, verbose=0)

        def read(text: str) -> list[float]:
            labels, shares = model.predict(words(text), k=-1)
            found = dict(zip(labels, map(float, shares)))
            return [found.get(f"__label__{number}", 0.0) for number in range(len(classes))]

        return classes, True, read

    return fit


COUNTS = {"name": "CountVectorsFeaturizer"}
LETTERS = {**COUNTS, "analyzer": "char_wb", "min_ngram": 1, "max_ngram": 4}
RASA_PIPELINES: dict[str, list[dict[str, Any]]] = {
    "rasa-lr": [{"name": "JiebaTokenizer"}, COUNTS, LETTERS, {"name": "LogisticRegressionClassifier"}],
    # Whole petitions and an open vocabulary do not fit into memory.
    "rasa-diet": [
        {"name": "JiebaTokenizer"},
        {**COUNTS, "max_features": 50_000},
        {**LETTERS, "max_features": 50_000},
        {"name": "DIETClassifier", "epochs": 15, "batch_size": [16, 32], "entity_recognition": False, "random_seed": 0},
    ],
}
DIET_CHARACTERS = 200


def rasa(name: str) -> Fit:
    """Rasa's stock components by Rasa's own training, read through its agent as a server would."""
    import asyncio

    import jieba
    import yaml
    from rasa.core.agent import Agent
    from rasa.model_training import train_nlu

    from bot.logs import set_up_logging

    set_up_logging()  # Rasa would print every message
    jieba.initialize()
    length = DIET_CHARACTERS if name == "rasa-diet" else None
    loop = asyncio.new_event_loop()

    def fit(rows: Sequence[Row]) -> Fitted:
        examples = [{"text": plain(words_joined(row), length), "intent": row["label"], "entities": []} for row in rows]
        with tempfile.TemporaryDirectory() as directory:
            config, data = Path(directory, "config.yml"), Path(directory, "nlu.json")
            recipe = {"recipe": "default.v1", "assistant_id": "bench", "language": "zh", "pipeline": RASA_PIPELINES[name]}
            config.write_text(yaml.safe_dump(recipe))
            data.write_text(json.dumps({"rasa_nlu_data": {"common_examples": examples}}, ensure_ascii=False), encoding="utf-8")
            agent = Agent.load(train_nlu(str(config), str(data), directory))
        classes = sorted({row["label"] for row in rows})

        def read(text: str) -> list[float]:
            ranking = loop.run_until_complete(agent.parse_message(plain(text, length)))["intent_ranking"]
            found = {item["name"]: float(item["confidence"]) for item in ranking}
            return [found.get(label, 0.0) for label in classes]

        return classes, True, read

    return fit


def plain(text: str, length: int | None) -> str:
    """As Rasa can take it: a leading "/" would be an intent of its own."""
    return text.strip().lstrip("/")[:length]


def read_rows(path: str) -> list[Row]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def category(reader: Callable[[], Fit], test: str, *train: str) -> dict[str, Any]:
    """The score of every class for every row of `test`, and what it cost to learn and to read them. Imports do not count."""
    fit = reader()
    rows = [row for path in train for row in read_rows(path)]
    started = time.perf_counter()
    classes, probabilities, read = fit(rows)
    train_seconds = time.perf_counter() - started
    scores, seconds = [], []
    for row in read_rows(test):
        started = time.perf_counter()
        scores.append([float(score) for score in read(row["text"])])
        seconds.append(time.perf_counter() - started)
    return {"classes": classes, "scores": scores, "probabilities": probabilities, "train_seconds": train_seconds, **milliseconds(seconds)}


def category_ours(test: str, *train: str) -> dict[str, Any]:
    """The command's own report, and the rows behind it: what the command hands to its scorers."""
    from importlib import import_module, util
    from unittest.mock import patch

    module = import_module("bot.benchmark" if util.find_spec("bot.benchmark") else "bot.evaluation")
    scorers = {name: patch.object(module, name, wraps=getattr(module, name)) for name in ("_class_scores", "calibration_error")}
    with tempfile.TemporaryDirectory() as directory, scorers["_class_scores"] as scored, scorers["calibration_error"] as calibrated:
        out = Path(directory, "report.json")
        run_bot("benchmark", "category", *(word for path in train for word in ("--train", path)), "--test", test, "--json", str(out))
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        confidences = [float(value) for value in calibrated.call_args.args[0]]
        return {**report, "predicted": list(scored.call_args.args[1]), "confidences": confidences, "probabilities": True}


# -- places: the rows of a gold file → spans of each ------------------------------------------------------------------------


Places = Callable[[str], Iterable[Span]]


def jieba_places() -> Places:
    import jieba.posseg

    return lambda text: tagged(text, ((pair.word, pair.flag) for pair in jieba.posseg.cut(text)), ("ns", "nt"))


def jionlp_places() -> Places:
    """The words that jionlp.recognize_location counts; it names divisions only and tells no offsets."""
    import jionlp

    jionlp.recognize_location("北京市")  # sets its tagger up
    import jiojio

    return lambda text: tagged(text, jiojio.cut(text), ("ns",))


def jionlp_divisions() -> Places:
    """jionlp.parse_location takes a text for one address: its divisions are the span, what follows them is "detail"."""
    import jionlp

    def places(text: str) -> list[Span]:
        found = jionlp.parse_location(text)
        names = [found[part] for part in ("province", "city", "county") if found.get(part)]
        end = len(text) - len(found["detail"])
        short = [re.sub(r"(?:自治[区州县]|[省市区县])$", "", name) for name in names]
        starts = [start for name in names + short if len(name) > 1 and (start := text.find(name, 0, end)) >= 0]
        return [(min(starts), end)] if starts and text.endswith(found["detail"]) else []

    return places


def cpca_divisions() -> Places:
    """As above: province, city, county and where each begins, then the rest of the text."""
    import cpca

    def places(text: str) -> list[Span]:
        found = cpca.transform([text], pos_sensitive=True).iloc[0]
        starts = [int(found[part]) for part in ("省_pos", "市_pos", "区_pos") if int(found[part]) >= 0]
        return [(min(starts), len(text) - len(found["地址"] or ""))] if starts else []

    return places


def suffix_places() -> Places:
    ends = "省|市|区|县|镇|乡|街道|村|社区|小区|花园|大道|路|街|巷|弄|大厦|广场|公园|学校|医院|号楼|栋|号"
    pattern = re.compile(rf"(?:[\u4e00-\u9fffA-Za-z0-9]{{1,8}}?(?:{ends}))+")
    return lambda text: [match.span() for match in pattern.finditer(text)]


def tagged(text: str, words: Iterable[tuple[str, str]], flags: Sequence[str]) -> list[Span]:
    """Words with one of these flags; neighbours make one span, because addresses are written without gaps."""
    spans: list[Span] = []
    end = 0
    for word, flag in words:
        start = text.find(word, end)
        if start < 0:  # a tagger may normalise what it reads
            continue
        end = start + len(word)
        if flag in flags:
            spans.append((spans.pop()[0] if spans and spans[-1][1] == start else start, end))
    return spans


def places(find: Callable[[], Places], gold: str) -> dict[str, Any]:
    read, found, seconds = find(), [], []
    for text in texts_of(gold):
        started = time.perf_counter()
        found.append([list(span) for span in read(text)])
        seconds.append(time.perf_counter() - started)
    return {"spans": found, **milliseconds(seconds)}


# -- the shipped model ------------------------------------------------------------------------------------------------------


def parses(*files: str) -> dict[str, Any]:
    """The parse of every text of jsonl files, read one after another on one core, and its share for each first level."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from bot.cli import _services
    from bot.embedded import open_embedded
    from bot.models import models_to_serve
    from bot.parse import parse_text

    services = _services()
    assistant = open_embedded(models_to_serve(services))
    firsts = first_levels(assistant, {code[:2]: leaf.path[0] for code, leaf in services.catalogue.categories.items()})
    answers: dict[str, Any] = {"model": assistant.serving_model(), "files": {}}
    for file in files:
        rows, seconds = [], []
        for text in texts_of(file):
            started = time.perf_counter()
            parse = parse_text(text, assistant, services.catalogue, services.gazetteer)
            seconds.append(time.perf_counter() - started)
            shares = firsts(text)
            rows.append({"parse": parse, "confidence": shares[parse["categories"][0]["path"][0]], "firsts": shares})
        answers["files"][file] = {"rows": rows, **milliseconds(seconds)}
    return answers


def first_levels(assistant: Any, names: dict[str, str]) -> Callable[[str], dict[str, float]]:
    """The parse names five leaves; a choice among some first levels needs the share of each."""
    from bot.nlu.component import PetitionParser
    from bot.nlu.reader import PetitionReader

    nodes = assistant._model.runner._nodes.values()
    parser = next(node._component for node in nodes if isinstance(node._component, PetitionParser))
    reader = parser.parts[PetitionReader]

    def shares(text: str) -> dict[str, float]:
        found = reader.category.first.probabilities(reader.view.see(text).row)
        return {names[code]: float(share) for code, share in zip(reader.category.first.classes, found)}

    return shares


def corpus(*outputs: str) -> dict[str, Any]:
    """Our own training texts as csv files, one for each `FIELD=PATH`: what the peers learn from to read what the shipped model reads."""
    from bot.catalogue import load_catalogue
    from bot.nlu.corpus import read_corpus
    from bot.services import DATA_DIR
    from bot.settings import Settings

    catalogue = load_catalogue(DATA_DIR, Settings().city)
    examples, counts = read_corpus(DATA_DIR), {}
    for field, path in (output.split("=", 1) for output in outputs):
        labelled = [(example.text, getattr(example, field)) for example in examples if getattr(example, field)]
        rows = [(text, catalogue.get_category(label).path[0] if field == "category" else label) for text, label in labelled]
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        counts[field] = len(rows)
    return counts


LEAST_OF_A_STYLE = 60


def styles() -> dict[str, Any]:
    """First-level macro-F1 on our own petitions of each style, learned from those of all the others."""
    from sklearn.metrics import f1_score

    from bot.nlu.corpus import read_corpus, read_lexicon
    from bot.nlu.lexicon import Lexicon
    from bot.nlu.reader import CategoryReader
    from bot.nlu.view import fit_view
    from bot.services import DATA_DIR

    examples = [example for example in read_corpus(DATA_DIR) if example.category]
    counts = {style: sum(example.style == style for example in examples) for style in {example.style for example in examples}}
    found: dict[str, Any] = {}
    for style in sorted((name for name, count in counts.items() if count >= LEAST_OF_A_STYLE), key=lambda name: -counts[name]):
        own, others = ([e for e in examples if (e.style == style) is held_out] for held_out in (True, False))
        truth = [example.category[:2] for example in own]

        def score(predicted: Sequence[str], truth: Sequence[str] = truth) -> float:
            return round(float(f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)), 4)

        scores: dict[str, Any] = {"rows": len(own)}
        for name, words in (("ours", read_lexicon(DATA_DIR)), ("without_telling_words", {})):
            view, matrix, aids = fit_view([example.text for example in others], Lexicon(words))
            reader = CategoryReader.fit(matrix, [example.category for example in others], aids=aids)
            scores[name] = score([reader.first.best(view.see(example.text).row)[0] for example in own])
        classes, _, scores_of = tfidf_svm()([{"text": example.text, "label": example.category[:2]} for example in others])
        scores["tfidf_svm"] = score([classes[int(max(range(len(classes)), key=scores_of(e.text).__getitem__))] for e in own])
        found[style] = scores
    return found


def command(*arguments: str) -> dict[str, Any]:
    """`python -m bot ARGUMENTS`."""
    started = time.perf_counter()
    run_bot(*arguments)
    return {"seconds": time.perf_counter() - started}


# -- common -----------------------------------------------------------------------------------------------------------------


def run_bot(*arguments: str) -> None:
    from bot.cli import main

    if main(arguments):
        sys.exit(f"`python -m bot {' '.join(arguments)}` failed")


def texts_of(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file if line.strip())


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {share: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99)}
    return {"predict_ms_p50": round(at[0.5], 3), "predict_ms_p99": round(at[0.99], 3)}


def peak_mb() -> int:
    """Most memory this program held, in MiB. `getrusage` would count what the process that started it held before."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) // 1024


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": category_ours,
    "tfidf-svm": lambda *files: category(tfidf_svm, *files),
    "fasttext": lambda *files: category(fasttext, *files),
    "rasa-lr": lambda *files: category(lambda: rasa("rasa-lr"), *files),
    "rasa-diet": lambda *files: category(lambda: rasa("rasa-diet"), *files),
    "jieba": lambda gold: places(jieba_places, gold),
    "jionlp words": lambda gold: places(jionlp_places, gold),
    "jionlp divisions": lambda gold: places(jionlp_divisions, gold),
    "cpca divisions": lambda gold: places(cpca_divisions, gold),
    "suffix pattern": lambda gold: places(suffix_places, gold),
    "parses": parses,
    "corpus": corpus,
    "command": command,
    "styles": styles,
}


def main() -> None:
    job, out, *arguments = sys.argv[1:]
    result = JOBS[job](*arguments)
    Path(out).write_text(json.dumps({**result, "peak_mb": peak_mb()}, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
