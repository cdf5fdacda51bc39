"""The account's menu as data: read and checked, compared with what the account shows, put there. Pure but for the file.

Limits: https://developers.weixin.qq.com/doc/offiaccount/Custom_Menus/Creating_Custom-Defined_Menu.html
"""
from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BUTTONS, MAX_SUB_BUTTONS = 3, 5
MAX_NAME, MAX_SUB_NAME, MAX_URL = 16, 60, 1024  # bytes
_TARGETS = ("key", "page", "url", "buttons")


class MenuError(ValueError):
    """A menu that the account would not take; the message names the file and the button."""


@dataclass(frozen=True)
class Button:
    """`kind` is click, view or another of the platform's types; empty for a button that only opens its sub-buttons."""

    name: str
    kind: str = ""
    value: str = ""
    buttons: tuple[Button, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        if self.buttons:
            return {"name": self.name, "sub_button": [button.as_dict() for button in self.buttons]}
        return {"type": self.kind, "name": self.name, ("key" if self.kind == "click" else "url"): self.value}


Menu = tuple[Button, ...]


def menu_payload(menu: Menu) -> dict[str, Any]:
    return {"button": [button.as_dict() for button in menu]}


# -- the city's file --------------------------------------------------------------------------------------------------


def load_menu(path: Path, *, keys: Collection[str], public_url: str) -> Menu:
    """The menu of a city. Buttons to our own pages are left out while there is no `public_url`. Raises MenuError."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MenuError(f"there is no menu for this city: expected {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MenuError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None
    try:
        menu = _read_buttons(entries, _Rules(frozenset(keys), public_url.rstrip("/")))
    except MenuError as error:
        raise MenuError(f"{path.name}: {error}") from None
    if not menu:
        raise MenuError(f"{path.name}: no button is left without MINSHENG_PUBLIC_URL")
    return menu


@dataclass(frozen=True)
class _Rules:
    keys: frozenset[str]
    public_url: str
    parent: str = ""  # set for sub-buttons

    @property
    def limit(self) -> int:
        return MAX_SUB_BUTTONS if self.parent else MAX_BUTTONS

    @property
    def longest_name(self) -> int:
        return MAX_SUB_NAME if self.parent else MAX_NAME


def _read_buttons(entries: object, rules: _Rules) -> Menu:
    where = f"button “{rules.parent}”" if rules.parent else "the menu"
    if not isinstance(entries, list) or not 1 <= len(entries) <= rules.limit:
        count = len(entries) if isinstance(entries, list) else "no list of"
        raise MenuError(f"{where} needs 1 to {rules.limit} buttons, and has {count}")
    buttons = [_read_button(entry, number, rules) for number, entry in enumerate(entries, start=1)]
    return tuple(button for button in buttons if button is not None)


def _read_button(entry: object, number: int, rules: _Rules) -> Button | None:
    """None for a button that has to wait for a public address."""
    within = f" under “{rules.parent}”" if rules.parent else ""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"].strip():
        raise MenuError(f"button {number}{within} needs a name (text; a number stands in quotes)")
    name = entry["name"].strip()
    try:
        _check_name(name, rules.longest_name)
        return _read_target(name, entry, rules)
    except _Mistake as mistake:
        raise MenuError(f"button “{name}”{within} {mistake}") from None


class _Mistake(Exception):
    """What is wrong with a button, as the end of a sentence."""


def _check_name(name: str, limit: int) -> None:
    if len(name.encode()) > limit:
        raise _Mistake(f"has a name of {len(name.encode())} bytes; at most {limit} fit ({limit // 3} Chinese characters)")


def _read_target(name: str, entry: Mapping[str, Any], rules: _Rules) -> Button | None:
    given = [target for target in _TARGETS if target in entry]
    odd = [str(field) for field in entry if field not in ("name", *_TARGETS)]
    if odd:
        raise _Mistake(f"has an unknown field: {odd[0]}")
    if len(given) != 1:
        raise _Mistake(f"needs exactly one of {', '.join(_TARGETS)}")
    if given[0] == "buttons":
        if rules.parent:
            raise _Mistake("is a sub-button and cannot have buttons of its own")
        below = _read_buttons(entry["buttons"], _Rules(rules.keys, rules.public_url, parent=name))
        return Button(name, buttons=below) if below else None
    if not isinstance(entry[given[0]], str):
        raise _Mistake(f"needs text as its {given[0]}")
    if given[0] == "key":
        return Button(name, "click", _known_key(entry["key"], rules.keys))
    if given[0] == "page":
        return _own_page(name, entry["page"], rules.public_url)
    return Button(name, "view", _address(entry["url"]))


def _known_key(key: str, keys: frozenset[str]) -> str:
    if key not in keys:
        raise _Mistake(f"sends “{key}”, which the service has no fixed answer to; known: {' '.join(sorted(keys))}")
    return key


def _own_page(name: str, page: str, public_url: str) -> Button | None:
    if not page.startswith("/") or page.startswith("//"):
        raise _Mistake("needs a page that begins with /, for example /chat")
    return Button(name, "view", _address(public_url + page)) if public_url else None


def _address(url: str) -> str:
    if not url.startswith(("https://", "http://")) or any(character.isspace() for character in url):
        raise _Mistake("needs an address that begins with https:// or http://")
    if len(url.encode()) > MAX_URL:
        raise _Mistake(f"has an address of more than {MAX_URL} bytes")
    return url


# -- the account's, and both side by side -----------------------------------------------------------------------------


def read_menu(answer: Mapping[str, Any]) -> Menu:
    """The buttons in an answer of menu/get, whatever types they have."""
    menu = answer.get("menu")
    return _given_buttons(menu.get("button") if isinstance(menu, dict) else None)


def _given_buttons(entries: object) -> Menu:
    return tuple(_given_button(entry) for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, dict))


def _given_button(entry: Mapping[str, Any]) -> Button:
    value = next((str(entry[field]) for field in ("key", "url", "media_id", "article_id") if entry.get(field)), "")
    return Button(str(entry.get("name", "")), str(entry.get("type", "")), value, _given_buttons(entry.get("sub_button")))


def compare_menus(account: Menu, city: Menu) -> tuple[list[str], list[str]]:
    """The lines of both, what only one of them has marked with - (goes away) and + (comes)."""
    before, after = list(_lines(account)), list(_lines(city))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    same = [block for block in matcher.get_matching_blocks() if block.size]
    kept_before = {number for block in same for number in range(block.a, block.a + block.size)}
    kept_after = {number for block in same for number in range(block.b, block.b + block.size)}
    return _marked(before, kept_before, "-"), _marked(after, kept_after, "+")


def _marked(lines: Sequence[str], kept: Collection[int], mark: str) -> list[str]:
    return [f"{' ' if number in kept else mark} {line}" for number, line in enumerate(lines)]


def _lines(menu: Menu, indent: str = "") -> Iterable[str]:
    for button in menu:
        yield f"{indent}{button.name}" + (f"  [{button.kind} {button.value}]" if button.kind else "")
        yield from _lines(button.buttons, indent + "    ")
