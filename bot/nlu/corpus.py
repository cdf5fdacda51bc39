"""Reads the project's own training texts (nlu_data/petitions, nlu_data/intents) and a city's annotations into Rasa messages.

The formats are described in nlu_data/README.md. A line that does not fit raises CorpusError with file and line number.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rasa.shared.nlu.constants import INTENT, TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData

from bot.text import strip_marks

REPORT_PROBLEM = "report_problem"
PART_SEPARATOR, LINE_BREAK = "∥", "⏎"

# Keys of a training message beside Rasa's own.
PLACE_NAMES, TELLING_WORDS = "place_names", "telling_words"
CATEGORY, REQUEST_TYPE, URGENCY, EMERGENCY, PLACES, PARTS = "category", "request_type", "urgency", "emergency", "places", "parts"
MAIN_PLACE = "main_place"
# Of a city's annotations: how much the text counts, and whether it is one of a fair sample of what the city gets (SAMPLED) or
# was picked by somebody because a model was unsure or wrong. The project's own texts have neither.
WEIGHT, ORIGIN, SAMPLED = "weight", "origin", "sampled"


class CorpusError(ValueError):
    """A training text cannot be read; the message names file and line."""


@dataclass(frozen=True)
class Example:
    """One training text and what is known of it; a label that is not known is None."""

    text: str
    intent: str | None = None
    category: str | None = None
    request_type: str | None = None
    urgency: str | None = None
    emergency: bool | None = None
    places: tuple[tuple[int, int], ...] | None = None
    parts: tuple[tuple[int, int], ...] | None = None
    style: str | None = None
    source: str = field(default="", compare=False)
    main_place: int | None = None  # which of `places` somebody would be sent to, where that has been marked
    weight: float | None = None
    origin: str | None = None

    def to_message(self) -> Message:
        data: dict[str, object] = {TEXT: self.text}
        for key, value in (
            (INTENT, self.intent),
            (CATEGORY, self.category),
            (REQUEST_TYPE, self.request_type),
            (URGENCY, self.urgency),
            (EMERGENCY, self.emergency),
            (PLACES, self.places),
            (PARTS, self.parts),
            (MAIN_PLACE, self.main_place),
            (WEIGHT, self.weight),
            (ORIGIN, self.origin),
        ):
            if value is not None:
                data[key] = [list(pair) for pair in value] if isinstance(value, tuple) else value
        return Message(data=data)


def texts_in(training_data: TrainingData) -> list[Message]:
    """The messages that are texts; Rasa adds messages of its own that stand for rules."""
    return [message for message in training_data.training_examples if message.get(TEXT)]


def read_corpus(data_dir: Path) -> list[Example]:
    """Every training text under `data_dir`, in the order of the files."""
    examples: list[Example] = []
    for path in sorted((data_dir / "petitions").glob("*.txt")):
        examples += read_petitions(path)
    examples += read_intents(data_dir / "intents" / "intents.txt")
    for path in sorted((data_dir / "intents").glob("urgency*.txt")):
        examples += read_urgency(path)
    for path in sorted((data_dir / "intents").glob("splits*.txt")):
        examples += read_parts(path)
    for path in sorted((data_dir / "intents").glob("places*.txt")):
        examples += read_places(path)
    return examples


def read_petitions(path: Path) -> list[Example]:
    """`# code path` headings, then `request_type urgency style | text` lines."""
    examples: list[Example] = []
    code: str | None = None
    for number, line in _lines(path):
        if line.startswith("#"):
            code = line.split()[1]
            continue
        head, text = _split(line, path, number)
        if code is None or len(head) != 3:
            raise CorpusError(f"{path.name}:{number}: expected a heading, then `request_type urgency style | text`")
        plain, places = _unmark(text, path, number)
        examples.append(
            Example(plain, REPORT_PROBLEM, code, head[0], head[1], None, places, None, head[2], f"{path.name}:{number}")
        )
    return examples


def read_intents(path: Path) -> list[Example]:
    examples: list[Example] = []
    intent: str | None = None
    for number, line in _lines(path):
        if line.startswith("#"):
            intent = line.split()[1]
        elif intent is None:
            raise CorpusError(f"{path.name}:{number}: a text before the first `# intent` heading")
        else:
            examples.append(Example(line.strip(), intent, source=f"{path.name}:{number}"))
    return examples


def read_urgency(path: Path) -> list[Example]:
    """`request_type urgency style emergency | text` lines; emergency is 是 or 否."""
    examples: list[Example] = []
    for number, line in _lines(path):
        head, text = _split(line, path, number)
        if len(head) != 4 or head[3] not in ("是", "否"):
            raise CorpusError(f"{path.name}:{number}: expected `request_type urgency style 是|否 | text`")
        plain, places = _unmark(text, path, number)
        examples.append(
            Example(plain, None, None, head[0], head[1], head[3] == "是", places, None, head[2], f"{path.name}:{number}")
        )
    return examples


def read_places(path: Path) -> list[Example]:
    """`style main | text` lines; main is the number of the mark somebody would be sent to, counted from 1, or - without marks."""
    examples: list[Example] = []
    for number, line in _lines(path):
        head, text = _split(line, path, number)
        plain, places = _unmark(text, path, number)
        if len(head) != 2 or head[1] not in ([str(n + 1) for n in range(len(places))] or ["-"]):
            raise CorpusError(f"{path.name}:{number}: expected `style main | text`, main the number of one of {len(places)} marks or -")
        main = int(head[1]) - 1 if places else None
        examples.append(Example(plain, places=places, style=head[0], source=f"{path.name}:{number}", main_place=main))
    return examples


def read_parts(path: Path) -> list[Example]:
    """One message a line, its separate appeals divided by ∥, its own line breaks written ⏎."""
    examples: list[Example] = []
    for number, line in _lines(path):
        pieces = line.replace(LINE_BREAK, "\n").split(PART_SEPARATOR)
        starts = [sum(len(piece) for piece in pieces[:i]) for i in range(len(pieces))]
        spans = tuple((start, start + len(piece)) for start, piece in zip(starts, pieces))
        examples.append(Example("".join(pieces), parts=spans, source=f"{path.name}:{number}"))
    return examples


def read_annotations(path: Path) -> list[Example]:
    """What people of a city labelled, one JSON object a line, as bot.dataset writes it; none where there is no such file."""
    if not path.exists():
        return []
    examples: list[Example] = []
    for number, line in _lines(path):
        data = json.loads(line)
        places = tuple((start, end) for start, end in data["places"]) if "places" in data else None
        labels = {key: data.get(key) for key in (INTENT, CATEGORY, REQUEST_TYPE, URGENCY, WEIGHT, ORIGIN)}
        examples.append(Example(data[TEXT], places=places, source=f"{path.name}:{number}", **labels))
    return examples


def read_lexicon(data_dir: Path) -> dict[str, list[str]]:
    """Leaf code → telling words: `# code path` headings, then lines of words separated by blanks."""
    words: dict[str, list[str]] = {}
    for path in sorted((data_dir / "lexicon").glob("*.txt")):
        code = ""
        for number, line in _lines(path):
            if line.startswith("#"):
                code = line.split()[1]
                continue
            if not code:
                raise CorpusError(f"{path.name}:{number}: words before the first `# code path` heading")
            words.setdefault(code, []).extend(line.split())
    return {code: list(dict.fromkeys(said)) for code, said in words.items()}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _split(line: str, path: Path, number: int) -> tuple[list[str], str]:
    head, separator, text = line.partition(" | ")
    if not separator or not text.strip():
        raise CorpusError(f"{path.name}:{number}: no ` | ` between labels and text")
    return head.split(), text.strip()


def _unmark(text: str, path: Path, number: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    try:
        plain, places = strip_marks(text)
    except ValueError as error:
        raise CorpusError(f"{path.name}:{number}: {error}") from None
    return plain, tuple(places)
