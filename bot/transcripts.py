"""Written-down calls: lines such as `坐席：…` and `市民：…`, lists of turns, and files of both. Pure but for reading a file."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bot.tables import cell_text, encodable, open_table

Turns = list[dict[str, str]]

# Recorders write the time before the name or behind it: "[00:12] 坐席：", "市民 00:15：".
_CLOCK = r"[\[（(]?(?:\d{1,2}:)?\d{1,2}:\d{2}(?:\.\d+)?[\]）)]?"
_SPEAKER = re.compile(
    rf"^\s*(?:{_CLOCK}\s*)?(坐席|座席|话务员|接线员|客服|热线|市民|来电人|群众|居民|用户|agent|citizen)\s*(?:{_CLOCK}\s*)?[：:]\s*",
    re.IGNORECASE,
)
_AGENTS = frozenset({"坐席", "座席", "话务员", "接线员", "客服", "热线", "agent"})
_SPEAKER_COLUMNS, _TEXT_COLUMNS = ("speaker", "说话人", "角色", "发言人"), ("text", "内容", "文本", "话术")
FILES = (".txt", ".csv", ".xlsx", ".json", ".jsonl")


class TranscriptError(ValueError):
    """A file that is no transcript; the text is what the person who sent it reads."""


def turns_of(value: Any) -> Turns:
    """A list of {"speaker","text"}, that list as JSON, or lines such as `坐席：…` and `市民：…`. Raises ValueError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("turns is not valid JSON") from None
    if isinstance(value, str):
        return turns_of_lines(value)
    if not isinstance(value, list) or not all(isinstance(turn, dict) and isinstance(turn.get("text"), str) for turn in value):
        raise ValueError('turns is not a list of {"speaker","text"}')
    return [{"speaker": speaker_of(str(turn.get("speaker", ""))), "text": encodable(turn["text"])} for turn in value]


def turns_of_lines(text: str) -> Turns:
    """A line without a speaker goes on with the turn before it; the first one then is the citizen's."""
    turns: Turns = []
    for line in filter(str.strip, text.splitlines()):
        match = _SPEAKER.match(line)
        if match or not turns:
            said = line[match.end() :] if match else line
            turns.append({"speaker": speaker_of(match.group(1)) if match else "citizen", "text": encodable(said.strip())})
        else:
            turns[-1]["text"] += "\n" + encodable(line.strip())
    return turns


def speaker_of(name: str) -> str:
    return "agent" if name.strip().lower() in _AGENTS else "citizen"


def read_transcript(path: Path) -> Turns:
    """The turns of an uploaded file, by its suffix. Raises TranscriptError."""
    suffix = path.suffix.lower()
    if suffix not in FILES:
        raise TranscriptError(f"只能上传 {'、'.join(FILES)} 文件；Word 文档请复制文字后用“粘贴”。")
    try:
        turns = _read_text(path) if suffix in (".txt", ".json") else _read_table(path)
    except ValueError as error:
        raise TranscriptError("这个文件读不出通话：需要“说话人”和“内容”两列，或“坐席：…”“市民：…”这样的行。") from error
    turns = [turn for turn in turns if turn["text"].strip()]
    if not turns:
        raise TranscriptError("文件里没有内容。")
    return turns


def _read_text(path: Path) -> Turns:
    text = _decode(path.read_bytes())
    if path.suffix.lower() == ".txt":
        return turns_of_lines(text)
    value = json.loads(text)
    return turns_of(value["turns"] if isinstance(value, dict) and "turns" in value else value)


def _decode(data: bytes) -> str:
    for encoding in ("utf-16", "utf-8-sig", "gb18030") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("neither UTF-8 nor GB18030")


def _read_table(path: Path) -> Turns:
    table = open_table(path)
    speaker = next(filter(None, map(table.key, _SPEAKER_COLUMNS)), None)
    text = next(filter(None, map(table.key, _TEXT_COLUMNS)), None)
    if speaker is None or text is None:
        raise ValueError("no columns of speaker and text")
    return turns_of([{"speaker": cell_text(row.get(speaker)), "text": cell_text(row.get(text))} for _, row in table.open_rows()])
