"""What a file of work orders seems to hold: its columns by name and content, and foreign labels by name and by the words around them.

Guesses only: a person confirms them, and what they confirmed is remembered by bot/importing.py.
"""
from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.annotations import CATEGORY, REQUEST_TYPE, URGENCY
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue
from bot.nlu.lexicon import Lexicon
from bot.orders import CODE, LOCATION, NUMBER, TEXT, TIME, Meanings, parse_time
from bot.petition import mask
from bot.tables import Table, cell_text, encodable
from bot.text import fold

FIRST_ROWS = 20
# A column with more different values than this, or longer ones, holds no labels.
MOST_VALUES, MOST_LENGTH = 1500, 40
SHOWN_CELL = 300

_SAYS_NOTHING = re.compile(r"(?:管理|问题|服务|工作|建设|事项|类|方面)+$")
PERSONAL = re.compile(r"电话|手机|姓名|联系人|来电人|身份证|证件|phone|mobile|^name$")
# In this order: the first that fits a heading names its role.
_HEADINGS = (
    (None, PERSONAL.pattern),
    (None, r"答复|回复|办理结果|处理结果|reply"),
    (NUMBER, r"编号|单号|流水号|序号|^(id|number|no\.?)$"),
    (TEXT, r"内容|描述|详情|正文|诉求人?诉求|^text$|content|留言$"),
    (CODE, r"(类别|分类).{0,2}(编码|代码)|category_code"),
    (URGENCY, r"紧急|缓急|urgency"),
    (REQUEST_TYPE, r"(诉求|工单|信件|来件|事件)(类型|性质)|^类型$|request_type"),
    (CATEGORY, r"类别|分类|标签|类目|领域|问题类型|事项|^(label|category)$"),
    (LOCATION, r"地址|地点|位置|事发地|location|address"),
    (TIME, r"时间|日期|time|date|received_at"),
)


@dataclass
class Column:
    """What one column holds."""

    heading: str
    filled: int = 0
    length: int = 0
    times: int = 0
    values: Counter[str] | None = field(default_factory=Counter)  # None: too many or too long to be labels

    def add(self, cell: str) -> None:
        self.filled += 1
        self.length += len(cell)
        self.times += parse_time(cell) is not None
        if self.values is not None:
            self.values[cell] += 1
            if len(cell) > MOST_LENGTH or len(self.values) > MOST_VALUES:
                self.values = None

    def within(self, allowed: Sequence[str] | Mapping[str, Any]) -> float:
        """Share of the filled cells that are one of these."""
        return sum(count for value, count in (self.values or {}).items() if value in allowed) / max(self.filled, 1)


@dataclass(frozen=True)
class Look:
    """A file looked through once. `first` are its first rows, masked and cut."""

    rows: int
    columns: Mapping[str, Column]
    first: Sequence[Sequence[str]]
    roles: Mapping[str, str]


def look_at(table: Table, meanings: Meanings, keep: Callable[[int, dict[str, str]], None]) -> Look:
    """Reads every row once and hands it on as text. Raises ValueError when the table cannot be read to its end."""
    columns = {key: Column(heading) for key, heading in table.headings.items()}
    first: list[list[str]] = []
    rows = 0
    for number, row in table.open_rows():
        cells = {key: encodable(cell_text(row.get(key))).strip() for key in columns}
        rows += 1
        keep(number, cells)
        if rows <= FIRST_ROWS:
            first.append([_shown(columns[key].heading, cell) for key, cell in cells.items()])
        for key, cell in cells.items():
            if cell:
                columns[key].add(cell)
    return Look(rows, columns, first, guess_roles(columns, rows, meanings))


def _shown(heading: str, cell: str) -> str:
    return "***" if cell and PERSONAL.search(fold(heading)) else mask(cell)[:SHOWN_CELL]


def guess_roles(columns: Mapping[str, Column], rows: int, meanings: Meanings) -> dict[str, str]:
    roles: dict[str, str] = {}
    for key, column in columns.items():
        role = _role_of(column, meanings)
        if role in (CATEGORY, None) or role not in roles.values():  # only levels of a category stand in several columns
            roles |= {key: role} if role else {}
    if TEXT not in roles.values():
        unnamed = [key for key in columns if key not in roles and columns[key].filled]
        longest = max(unnamed, key=lambda key: columns[key].length / columns[key].filled, default=None)
        roles |= {longest: TEXT} if longest is not None else {}
    return roles


def _role_of(column: Column, meanings: Meanings) -> str | None:
    """By content where content is plain, else by heading."""
    if not column.filled:
        return None
    if column.within(REQUEST_TYPES) > 0.8:
        return REQUEST_TYPE
    if column.within(URGENCIES) > 0.8:
        return URGENCY
    if column.within(meanings.names) > 0.5 and not all(value.isdigit() for value in column.values or ()):
        return CATEGORY
    heading = fold(column.heading.strip())
    named = next((role for role, pattern in _HEADINGS if re.search(pattern, heading)), TIME if column.times > 0.8 * column.filled else None)
    labels = named in (CATEGORY, REQUEST_TYPE, URGENCY)
    return None if labels and column.values is None or named == TIME and not column.times else named


# -- labels ---------------------------------------------------------------------------------------------------------------


def guess_label(name: str, label: str, samples: Sequence[str], catalogue: Catalogue, lexicon: Lexicon) -> str | None:
    """What a foreign label most likely means, from its own words and some texts that carry it; None where nothing speaks for anything."""
    if name != CATEGORY:
        return _closest(label, REQUEST_TYPES if name == REQUEST_TYPE else URGENCIES)
    return _guess_category(label, samples, _level_names(catalogue), lexicon)


def _closest(value: str, allowed: Sequence[str]) -> str | None:
    return next((one for one in allowed if one in value), None)


def _level_names(catalogue: Catalogue) -> dict[str, str]:
    """Code or prefix → the name of that level alone; 其他 says nothing."""
    named = {}
    for category in catalogue.categories.values():
        for level in (1, 2, 3):
            if category.path[level - 1] != "其他":
                named[category.code[: 2 * level]] = category.path[level - 1]
    return named


def _guess_category(label: str, samples: Sequence[str], names: Mapping[str, str], lexicon: Lexicon) -> str | None:
    """A class whose name is nearly the label, else whose telling words stand in it, else the first level that the texts speak of."""
    last = re.split(r"[>＞/／]", label)[-1].strip() or label
    code = max(names, key=lambda code: (_likeness(last, names[code]), -len(code)))  # of equal names the higher level
    if _likeness(last, names[code]) >= 0.6:
        return code
    told = _told_by(fold(last), lexicon)
    if told:
        return told
    hits = Counter(hit.first_level for text in samples for hit in lexicon.hits(fold(text)))
    return hits.most_common(1)[0][0] if hits else None


def _told_by(label: str, lexicon: Lexicon) -> str | None:
    """What all leaves have in common of whose telling words the label holds most characters."""
    held = {code: sum(len(word) for word in words if fold(word) in label) for code, words in lexicon.words.items()}
    most = max(held.values(), default=0)
    common = os.path.commonprefix([code for code, characters in held.items() if characters == most]) if most else ""
    return re.sub(r"(?:99)+$", "", common[: len(common) - len(common) % 2]) or None  # a leaf called 其他 says no more than its level


def _likeness(first: str, second: str) -> float:
    """Shared pairs of characters, against the mean number of pairs."""
    one, other = _pairs(first), _pairs(second)
    return 2 * len(one & other) / max(len(one) + len(other), 1)


def _pairs(text: str) -> set[str]:
    kept = re.sub(r"[\W_]", "", fold(text))
    kept = _SAYS_NOTHING.sub("", kept) or kept
    return {kept[i : i + 2] for i in range(len(kept) - 1)} or {kept}
