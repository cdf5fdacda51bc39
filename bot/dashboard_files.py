"""The dashboard as a workbook and as a PDF to be printed; the same numbers as on the page."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from fpdf import FPDF
from openpyxl import Workbook
from openpyxl.styles import Font

from bot.dashboard import Bar, Dashboard
from bot.fonts import find_typeface
from bot.ticket import CHINA

BLOCKS = (("每天", "days"), ("类别", "categories"), ("区县", "districts"), ("渠道", "channels"), ("时段", "hours"), ("把握", "lanes"))


def as_workbook(board: Dashboard, target: BinaryIO) -> None:
    book = Workbook()
    sheet: Any = book.active
    sheet.title = "指标"
    _rows(sheet, ["指标", "分子", "分母", "比率", "怎么算的"], [[r.name, r.count, r.total, r.value, r.meaning] for r in board.rates])
    sheet.append([])
    sheet.append([board.title, f"诉求 {board.total} 件", f"上期 {board.total_before} 件", f"紧急求助 {board.emergencies} 件"])
    for name, attribute in BLOCKS:
        bars: Sequence[Bar] = getattr(board, attribute)
        _rows(book.create_sheet(name), [name, "件数", "占比"], [[bar.label, bar.count, round(bar.part, 4)] for bar in bars])
    accuracy = [[board.category_names.get(a.category, a.category), a.kept, a.corrected, a.value] for a in board.accuracy]
    _rows(book.create_sheet("坐席改动"), ["类别", "没有改", "改了", "准确率"], accuracy)
    words = [[word.word, word.now, word.before, word.times] for word in board.words]
    _rows(book.create_sheet("新词"), ["词", "本期件数", "以前件数", "倍数"], words)
    book.save(target)


def _rows(sheet: Any, heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    sheet.append(heading)
    for cell in sheet[sheet.max_row]:
        cell.font = Font(bold=True)
    for row in rows:
        sheet.append(row)
    sheet.column_dimensions["A"].width = 24
    sheet.freeze_panes = "A2"


def as_pdf(board: Dashboard, target: BinaryIO) -> None:
    """Raises FontError where no Chinese font is installed."""
    pdf = _Sheet(board)
    pdf.heading("主要指标")
    for rate in board.rates:
        value = f"{rate.value:.1%}" if rate.value is not None else "暂无"
        pdf.say(f"{rate.name}  {value}（{rate.count} / {rate.total}）  {rate.meaning}")
    for name, attribute in BLOCKS:
        pdf.heading(name)
        bars: Sequence[Bar] = getattr(board, attribute)
        pdf.bars([bar for bar in bars if bar.count or attribute == "days"])
    pdf.output(target)


class _Sheet(FPDF):
    """A4 pages with a head, bars and page numbers."""

    def __init__(self, board: Dashboard) -> None:
        super().__init__()
        typeface = find_typeface()
        self.add_font("han", fname=str(typeface.path), collection_font_number=typeface.number)
        self.set_title("民声 12345 运行情况")
        self.add_page()
        self.set_font("han", size=16)
        self.cell(0, 10, "民声 12345 运行情况", new_x="LMARGIN", new_y="NEXT")
        made = board.made_at.astimezone(CHINA)
        self.say(f"{board.title}    诉求 {board.total} 件，上期 {board.total_before} 件，紧急求助 {board.emergencies} 件")
        self.say(f"生成于 {made.year}年{made.month}月{made.day}日 {made:%H:%M}")

    def heading(self, text: str) -> None:
        self.ln(4)
        self.set_font("han", size=12)
        self.cell(0, 8, text, new_x="LMARGIN", new_y="NEXT")

    def say(self, text: str) -> None:
        self.set_font("han", size=9)
        self.multi_cell(0, 5.5, text, new_x="LMARGIN", new_y="NEXT")

    def bars(self, bars: Sequence[Bar]) -> None:
        self.set_font("han", size=9)
        self.set_fill_color(11, 122, 67)
        for bar in bars:
            if self.will_page_break(6):
                self.add_page()
            self.cell(42, 5.5, bar.label)
            x, y = self.get_x(), self.get_y()
            self.rect(x, y + 1, max(100 * bar.share, 0.3), 3.5, style="F")
            self.set_x(x + 103)
            self.cell(0, 5.5, f"{bar.count}  {bar.part:.1%}", new_x="LMARGIN", new_y="NEXT")
        if not bars:
            self.say("没有记录")

    def footer(self) -> None:
        self.set_y(-12)
        self.set_font("han", size=8)
        self.cell(0, 8, f"{self.page_no()}", align="C")
