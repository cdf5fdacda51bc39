"""Why a file cannot be read, for people at a page: the sentences of bot/tables.py, bot/batch.py and bot/transcripts.py in Chinese.

The commands keep their English, which scripts look for. What is not known here stays as it is.
"""
from __future__ import annotations

import re

_SAYINGS = (
    (r"no column or key called text or turns", "没有叫 text（诉求内容）或 turns（通话）的列，请把写着内容的那一列改名为 text，再传一次"),
    (r"is empty$", "文件是空的"),
    (r"neither UTF-8 nor GB18030", "认不出文字的编码，请另存为 xlsx，或 UTF-8 编码的 CSV"),
    (r"is not UTF-8 text", "不是 UTF-8 编码的文字"),
    (r"is not a readable xlsx workbook", "不是打得开的 Excel 文件（.xlsx）"),
    (r"is damaged", "文件损坏了，有的行读不出来，请重新导出"),
    (r"can be read$", "只能读 .xlsx、.csv 和 .jsonl"),
    (r"line (\d+) is not a JSON object", r"第 \1 行不是 JSON 对象"),
    (r"line (\d+): ", r"第 \1 行读不下去，多半是引号没有配对"),
    (r"turns is not ", "turns 一列读不懂：每行写一句，以“坐席：”或“市民：”开头"),
)


def in_words(problem: str) -> str:
    for pattern, words in _SAYINGS:
        if found := re.search(pattern, problem):
            return found.expand(words)
    return problem
