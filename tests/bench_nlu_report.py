"""What tests/bench_nlu.py measured, written down: tables in Markdown, pictures as SVG."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from bot.catalogue import load_catalogue
from bot.evaluation import calibration_error
from bot.services import DATA_DIR
from bot.settings import Settings
from tests.servers import PROJECT_ROOT

REPORTS = PROJECT_ROOT / "reports"
SURE = 0.95  # accuracy that a city may want before it files without a look
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
GOLD = {"gold": "dev.jsonl", "urgency": "urgency_dev.jsonl"}


@dataclass(frozen=True)
class Answers:
    """What one reader said of some messages. `sureness` orders them; it is a probability or a margin."""

    truth: list[str]
    predicted: list[str]
    sureness: list[float]
    probabilities: bool

    @property
    def right(self) -> list[bool]:
        return [truth == predicted for truth, predicted in zip(self.truth, self.predicted)]

    def scores(self) -> dict[str, Any]:
        """Macro-F1 is the mean over the classes that occur, as `benchmark category` counts it."""
        names = sorted(set(self.truth))
        by_class = f1_score(self.truth, self.predicted, labels=names, average=None, zero_division=0)
        return {
            "macro_f1": round(float(by_class.mean()), 4),
            "accuracy": round(float(accuracy_score(self.truth, self.predicted)), 4),
            "ece": calibration_error(self.sureness, self.right) if self.probabilities else None,
            "share_at_95": share_at(SURE, self),
            "rows": len(self.truth),
            "f1": {name: round(float(value), 4) for name, value in zip(names, by_class)},
        }


def curve(answers: Answers) -> tuple[list[float], list[float]]:
    """Share of messages filed, the surest first, and the accuracy over them."""
    order = np.argsort(-np.array(answers.sureness), kind="stable")
    right = np.array(answers.right, float)[order]
    filed = np.arange(1, len(right) + 1)
    return (filed / len(right)).tolist(), (np.cumsum(right) / filed).tolist()


def share_at(accuracy: float, answers: Answers) -> float:
    """The largest share of messages, the surest first, that is filed with at least this accuracy."""
    shares, accuracies = curve(answers)
    return round(max((share for share, reached in zip(shares, accuracies) if reached >= accuracy), default=0.0), 4)


def calibration_report(calibration: Mapping[str, Answers]) -> dict[str, Any]:
    """What would be filed without a look at each threshold of confidence, and how much of it rightly."""
    report = {}
    for name, answers in calibration.items():
        sureness, right = np.array(answers.sureness), np.array(answers.right, float)
        steps = []
        for threshold in THRESHOLDS:
            filed = sureness >= threshold
            accuracy = round(float(right[filed].mean()), 4) if filed.any() else None
            steps.append({"threshold": threshold, "share": round(float(filed.mean()), 4), "accuracy": accuracy})
        ece = calibration_error(answers.sureness, answers.right)
        report[name] = {"ece": ece, "rows": len(right), "share_at_95": share_at(SURE, answers), "thresholds": steps}
    return report


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def category_table(section: Mapping[str, Any]) -> str:
    headings = (
        "reader", "macro-F1, fold 1", "macro-F1, mean", "accuracy, mean", "folds", "ECE", "filed at 95 %, fold 1", "training s",
        "ms p50", "ms p99", "MiB",
    )  # fmt: skip
    rows = []
    for name, scores in section.items():
        head, mean = scores["folds"][0], scores["mean"]
        costs = [round(mean[key], 1) for key in ("train_seconds", "predict_ms_p50", "predict_ms_p99")]
        shares = (head["macro_f1"], mean["macro_f1"], mean["accuracy"], len(scores["folds"]), mean.get("ece"), head["share_at_95"])
        rows.append((name, *shares, *map(str, costs), round(mean["peak_mb"])))
    return table(headings, rows)


def cold_start_table(section: Mapping[str, Any]) -> str:
    headings = ("reader", "macro-F1, all classes open", "accuracy", "macro-F1, among the 7", "accuracy", "ECE", "filed at 95 %", "ms p50", "ms p99")
    return table(headings, (
        (
            name, scores["all"]["macro_f1"], scores["all"]["accuracy"], scores["among_given"]["macro_f1"], scores["among_given"]["accuracy"],
            scores["all"]["ece"], scores["all"]["share_at_95"], str(round(scores["predict_ms_p50"], 1)), str(round(scores["predict_ms_p99"], 1)),
        )
        for name, scores in section.items()
    ))  # fmt: skip


LABEL_COLUMNS = (
    "category_accuracy", "category_top3", "category_macro_f1", "request_type_accuracy", "request_type_macro_f1", "urgency_accuracy",
    "urgency_macro_f1",
)  # fmt: skip
PLACE_COLUMNS = (
    "main_location_exact", "main_location_overlap", "main_location_exact_named", "main_location_overlap_named", "location_precision",
    "location_recall", "location_f1", "no_place", "predict_ms_p50",
)  # fmt: skip
EMERGENCY_COLUMNS = ("emergencies", "emergencies_rung", "emergency_recall", "false_alarms", "emergency_precision", "emergency_false_alarms")


def columns_table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    kept = [name for name in columns if any(scores.get(name) is not None for scores in rows.values())]
    headings = ("", *(name.replace("_", " ") for name in kept))
    return table(headings, ((name, *(scores.get(column) for column in kept)) for name, scores in rows.items()))


def gold_text(section: Mapping[str, Any]) -> str:
    parts = []
    for name, figures in section.items():
        ours = figures["ours"]
        parts.append(f"### {GOLD[name]}, {ours['rows']} messages")
        parts.append(f"One parse takes {ours['predict_ms_p50']:.1f} ms (p50), {ours['predict_ms_p99']:.1f} ms (p99) on one core.")
        parts += [columns_table(figures["labels"], LABEL_COLUMNS)]
    parts += ["### Emergencies", columns_table({GOLD[name]: figures["ours"] for name, figures in section.items()}, EMERGENCY_COLUMNS)]
    parts += ["### Places", columns_table(section["gold"]["places"], PLACE_COLUMNS)]
    return "\n\n".join(parts)


def calibration_text(section: Mapping[str, Any]) -> str:
    shown = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
    headings = ("confidence at least", *(f"{name}: share, accuracy" for name in section))
    rows: list[Sequence[Any]] = []
    for threshold in shown:
        steps = [next(step for step in figures["thresholds"] if step["threshold"] == threshold) for figures in section.values()]
        rows.append((str(threshold), *(f"{step['share']:.3f}, {step['accuracy']:.3f}" if step["accuracy"] is not None else "–" for step in steps)))
    rows.append(("ECE", *(figures["ece"] for figures in section.values())))
    return table(headings, rows)


def plain_table(section: Mapping[str, Any]) -> str:
    return table(("", ""), ((name.replace("_", " "), str(value)) for name, value in flat(section)))


def flat(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Single figures, those of groups too; what is told by class or by row stays in the JSON."""
    for name, value in section.items():
        if isinstance(value, dict) and not name.startswith("per_"):
            yield from flat(value, f"{before}{name}: ")
        elif not isinstance(value, (dict, list)):
            yield before + name, value


def styles_table(section: Mapping[str, Any]) -> str:
    headings = ("style left out", "texts", "macro-F1, ours", "without telling words", "TF-IDF + SVM")
    return table(headings, ((name, s["rows"], s["ours"], s["without_telling_words"], s["tfidf_svm"]) for name, s in section.items()))


TEXTS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "category": ("Category, learned from the platform's own messages", category_table),
    "cold-start": ("Category, cold start", cold_start_table),
    "styles": ("Our own texts, one style left out at a time", styles_table),
    "gold": ("Messages labelled by hand", gold_text),
    "address": ("Parts of postal addresses", plain_table),
    "calibration": ("Calibration: what may be filed without a look", calibration_text),
    "training": ("Training the shipped model", plain_table),
    "speed": ("Speed", plain_table),
}


def report_text(report: Mapping[str, Any], pictures: Sequence[str]) -> str:
    parts = ["# Understanding, measured beside its peers", plain_table(report["run"]), "docs/benchmarks.md says what each figure is."]
    for name, (title, write) in TEXTS.items():
        section = report["sections"].get(name)
        if section:
            parts += [f"## {title}", f"failed: {section['failed']}" if "failed" in section else write(section)]
    if report["skipped"]:
        parts += ["## Not run", "\n".join(f"- {name}: {why}" for name, why in report["skipped"].items())]
    return "\n\n".join([*parts, *(f"![]({picture})" for picture in pictures)]) + "\n"


def draw(confusion: Mapping[str, Answers], calibration: Mapping[str, Answers], coverage: Mapping[str, Answers]) -> list[str]:
    """Pictures of what ran; names of the files in reports/."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    chinese = ("CJK", "WenQuanYi", "Source Han", "SimHei", "Noto Sans SC", "Microsoft YaHei", "PingFang")
    fonts = sorted({font.name for font in fontManager.ttflist if any(name in font.name for name in chinese)}, key=lambda name: "Sans" not in name)
    matplotlib.rcParams.update({"font.sans-serif": [*fonts[:1], "DejaVu Sans"], "axes.unicode_minus": False})
    codes = {leaf.path[0]: code[:2] for code, leaf in load_catalogue(DATA_DIR, Settings().city).categories.items()}
    names = {} if fonts else codes  # without a Chinese font classes go by their codes
    for stale in REPORTS.glob("bench-nlu-*.svg"):
        stale.unlink()
    drawn = [draw_confusion(name, answers, names) for name, answers in confusion.items()]
    if calibration:
        drawn.append(draw_reliability(calibration))
    if coverage:
        drawn.append(draw_coverage("bench-nlu-coverage-own-data.svg", "platform's own data, first fold", coverage))
    if calibration:
        drawn.append(draw_coverage("bench-nlu-coverage-ours.svg", "ours", calibration))
    return drawn


def canvas(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), constrained_layout=True)
    return figure, figure.add_subplot()


def draw_confusion(title: str, answers: Answers, names: Mapping[str, str]) -> str:
    rows = sorted(set(answers.truth))
    columns = rows + sorted(set(answers.predicted) - set(rows))
    counts = np.zeros((len(rows), len(columns)), int)
    for truth, predicted in zip(answers.truth, answers.predicted):
        counts[rows.index(truth), columns.index(predicted)] += 1
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure, axes = canvas(2.5 + 0.6 * len(columns), 2 + 0.5 * len(rows))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, count, ha="center", va="center", fontsize=8, color="white" if shares[row, column] > 0.5 else "black")
    axes.set_xticks(range(len(columns)), [names.get(name, name) for name in columns], rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), [names.get(name, name) for name in rows])
    axes.set(title=title, xlabel="read as", ylabel="labelled")
    file = f"bench-nlu-confusion-{'-'.join(''.join(c if c.isalnum() else ' ' for c in title).lower().split())}.svg"
    figure.savefig(REPORTS / file)
    return file


def draw_reliability(readers: Mapping[str, Answers]) -> str:
    """Ten bins as in the calibration error; a bin of fewer than five messages says nothing and is left out."""
    figure, axes = canvas(6, 5.5)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for name, answers in readers.items():
        sureness, right = np.array(answers.sureness), np.array(answers.right, float)
        bins = np.minimum((sureness * 10).astype(int), 9)
        kept = [number for number in range(10) if (bins == number).sum() >= 5]
        points = [(sureness[bins == number].mean(), right[bins == number].mean()) for number in kept]
        axes.plot(*zip(*points), marker="o", label=f"{name} (ECE {calibration_error(answers.sureness, answers.right):.3f})")
    axes.set(title="Reliability", xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(REPORTS / "bench-nlu-reliability.svg")
    return "bench-nlu-reliability.svg"


def draw_coverage(file: str, title: str, readers: Mapping[str, Answers]) -> str:
    figure, axes = canvas(7, 5)
    for name, answers in readers.items():
        shares, accuracies = curve(answers)
        start = min(len(shares) - 1, max(10, len(shares) // 50))  # the first few messages make any curve jump
        axes.plot(shares[start:], accuracies[start:], label=name)
    axes.axhline(SURE, color="grey", linestyle=":")
    axes.set(title=f"Filed without a look, the surest first: {title}", xlabel="share of messages", ylabel="accuracy over them", xlim=(0, 1))
    axes.legend()
    figure.savefig(REPORTS / file)
    return file
