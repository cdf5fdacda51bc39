"""The sheet that is hung up at a place: an A4 page at 300 dpi with a large code and, in big type, where it is and what to do."""
from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import jieba
import qrcode
from PIL import Image, ImageDraw, ImageFont
from qrcode.constants import ERROR_CORRECT_Q

from bot.fonts import Typeface

DPI = 300
PAGE = (2480, 3508)  # A4
CODE_SIDE, CODE_TOP, QUIET = 2040, 110, 4  # pixels, pixels, modules left white around a code
TEXT_WIDTH = 2100
NAME_SIZES = (260, 230, 200, 170, 145, 125)
LEADING = 1.3
LONGEST_NAME = 60  # characters; ways to break a longer one are too many to try
INSTRUCTION = "微信扫一扫，说说这里的事"
INK, GREEN, GREY = "#111111", "#0b7a43", "#555d56"
_NAME_TOP, _NAME_BOTTOM = 2100, 2770
_OPENING, _CLOSING = "“‘（《〈【「(", "”’）》〉】」)，。、；：！？·"  # pairs, then what ends a line as well
_UNITS = ("省", "市", "区", "县", "镇", "乡", "村", "街道", "中心")
_BOUND = ("街道", "社区", "小区", "大道", "新村")  # belong to the name before them


class SheetError(ValueError):
    """Something does not fit on a sheet."""


@dataclass(frozen=True)
class Typefaces:
    bold: Typeface
    regular: Typeface


def draw_sheet(address: str, *, name: str, account: str, typefaces: Typefaces) -> bytes:
    """A PNG. Raises SheetError, FontError."""
    typefaces.bold.check(name + INSTRUCTION)
    typefaces.regular.check(account)
    page = Image.new("RGB", PAGE, "white")
    draw = ImageDraw.Draw(page)
    code = draw_code(address, CODE_SIDE)
    page.paste(code, ((PAGE[0] - code.width) // 2, CODE_TOP + (CODE_SIDE - code.height) // 2))
    lines, font = fit_lines(name.strip(), typefaces.bold)
    _write_lines(draw, lines, font, top=_NAME_TOP, bottom=_NAME_BOTTOM)
    draw.text((PAGE[0] // 2, 2960), INSTRUCTION, GREEN, typefaces.bold.at(128), anchor="mm")
    draw.line((PAGE[0] // 2 - 300, 3120, PAGE[0] // 2 + 300, 3120), "#c9cec8", 4)
    draw.text((PAGE[0] // 2, 3230), account, GREY, _fit(account, typefaces.regular, (84, 72, 60, 48)), anchor="mm")
    target = io.BytesIO()
    page.save(target, "PNG", dpi=(DPI, DPI), optimize=True)
    return target.getvalue()


def draw_code(address: str, side: int) -> Image.Image:
    """The code with its quiet zone, every module a square of the same whole number of pixels. A quarter of it may be torn off."""
    code = qrcode.QRCode(error_correction=ERROR_CORRECT_Q, border=QUIET)
    code.add_data(address)
    code.make(fit=True)
    matrix = code.get_matrix()
    small = Image.new("L", (len(matrix), len(matrix)), 255)
    small.putdata([0 if dark else 255 for row in matrix for dark in row])
    scale = side // len(matrix)
    return small.resize((len(matrix) * scale,) * 2, Image.Resampling.NEAREST)


def fit_lines(name: str, typeface: Typeface) -> tuple[list[str], ImageFont.FreeTypeFont]:
    """The name in one to three lines: in large type, unless a little smaller it breaks at a better place. Raises SheetError."""
    if len(name) > LONGEST_NAME:
        raise SheetError(f"the name is too long for a sheet: {name}")
    word_ends = frozenset(itertools.accumulate(map(len, jieba.cut(name, HMM=False))))
    costs = {at: cost for at in range(1, len(name)) if (cost := _cost_of_break(name, at, word_ends))}
    fitting = [
        (size / math.prod(costs[at] for at in places), -width, lines, font)
        for size in NAME_SIZES
        for font in [typeface.at(size)]
        for places in _ways_to_break(costs, size)
        for lines in [[name[start:end].strip() for start, end in zip((0, *places), (*places, len(name)))]]
        if (width := max(map(font.getlength, lines))) <= TEXT_WIDTH
    ]
    if not fitting:
        raise SheetError(f"the name is too long for a sheet: {name}")
    _, _, lines, font = max(fitting, key=lambda way: way[:2])
    return lines, font


def _ways_to_break(places: Collection[int], size: int) -> Iterator[tuple[int, ...]]:
    most = min(3, int((_NAME_BOTTOM - _NAME_TOP) / (size * LEADING)))
    return itertools.chain.from_iterable(itertools.combinations(places, count) for count in range(most))


def _cost_of_break(name: str, at: int, word_ends: Collection[int]) -> float:
    """How much larger the type may be for breaking here: 1 = a good place, 0 = never."""
    before, after = name[at - 1], name[at]
    inside_word = before.isascii() and after.isascii() and before.isalnum() and after.isalnum()
    if after in _CLOSING or before in _OPENING or inside_word:
        return 0.0
    open_quotes = sum(map(name[:at].count, _OPENING)) - sum(map(name[:at].count, _CLOSING[: len(_OPENING)]))
    if open_quotes > 0 or name.startswith(_BOUND, at):
        return 1.8
    if before in _CLOSING or name[:at].endswith(_UNITS) or after in _OPENING or before.isspace():
        return 1.0
    return 1.2 if at in word_ends else 1.6


def _write_lines(draw: ImageDraw.ImageDraw, lines: Sequence[str], font: ImageFont.FreeTypeFont, *, top: int, bottom: int) -> None:
    step = round(font.size * LEADING)
    first = (top + bottom) // 2 - step * (len(lines) - 1) // 2
    for number, line in enumerate(lines):
        draw.text((PAGE[0] // 2, first + number * step), line, INK, font, anchor="mm")


def _fit(text: str, typeface: Typeface, sizes: Sequence[int]) -> ImageFont.FreeTypeFont:
    fonts = [typeface.at(size) for size in sizes]
    return next((font for font in fonts if font.getlength(text) <= TEXT_WIDTH), fonts[-1])
