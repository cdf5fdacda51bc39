"""Replies as the plain text that WeChat shows: bubbles joined, choices numbered, cut and split to the platform's size. Pure."""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from bot.assistant import Button
from bot.conversation import Reply

# The platform takes 2048 bytes; beyond, a passive reply shows as a fault and a customer-service message fails with 45002.
MAX_TEXT_BYTES = 2000
MENU_HEAD = "回复数字选择："
MORE_FOLLOWS = "\n……（内容较长，后面还有，这里没有显示完）"

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # not allowed in XML 1.0
_CHINESE_NUMBERS = {character: number for number, character in enumerate("一二三四五六七八九十", start=1)}


def full_text(reply: Reply) -> str:
    """All bubbles as one text, then the buttons as numbered lines."""
    return "\n".join(part for part in (_body(reply), _menu(reply)) if part)


def joined_text(replies: Sequence[Reply]) -> str:
    """Several replies as one text, in the order they were given."""
    return "\n\n".join(part for part in map(full_text, replies) if part)


def passive_text(replies: Sequence[Reply]) -> str:
    """joined_text() that fits into one HTTP answer; when it is too long the words are cut and the last choices stay."""
    text, menu = joined_text(replies), _menu(replies[-1]) if replies else ""
    if _size(text) <= MAX_TEXT_BYTES:
        return text
    tail = MORE_FOLLOWS + ("\n" + menu if menu else "")
    if _size(tail) > MAX_TEXT_BYTES // 2:
        return cut_text(text, MAX_TEXT_BYTES - _size(MORE_FOLLOWS)) + MORE_FOLLOWS
    return cut_text(text.removesuffix(menu).rstrip("\n"), MAX_TEXT_BYTES - _size(tail)) + tail


def choose_button(text: str, last_reply: Reply | None) -> str | None:
    """The payload meant by "1", "１", "一" or the button's own words; None when the text is not such a choice."""
    answer = unicodedata.normalize("NFKC", text).strip().rstrip(".。、,，")
    buttons = _buttons(last_reply) if last_reply else []
    number = int(answer) if re.fullmatch(r"[0-9]{1,2}", answer) else _CHINESE_NUMBERS.get(answer, 0)
    if 1 <= number <= len(buttons):
        return buttons[number - 1].payload
    return next((button.payload for button in buttons if button.title == text.strip()), None)


def clean(text: str) -> str:
    """Without what XML forbids, and with plain line ends (a parser would change them)."""
    return _UNFIT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def cut_text(text: str, limit: int) -> str:
    """The longest beginning of at most `limit` UTF-8 bytes, on a character boundary."""
    return text.encode()[:limit].decode(errors="ignore")


def split_text(text: str) -> list[str]:
    parts = []
    while text:
        part = cut_text(text, MAX_TEXT_BYTES)
        parts.append(part)
        text = text[len(part) :]
    return parts


def _body(reply: Reply) -> str:
    return clean("\n\n".join(bubble.text for bubble in reply.messages if bubble.text))


def _menu(reply: Reply) -> str:
    lines = [f"{number} {clean(button.title)}" for number, button in enumerate(_buttons(reply), start=1)]
    return "\n".join([MENU_HEAD, *lines]) if lines else ""


def _buttons(reply: Reply) -> list[Button]:
    return [button for bubble in reply.messages for button in bubble.buttons]


def _size(text: str) -> int:
    return len(text.encode())
