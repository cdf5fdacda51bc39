"""Where the printed code of a place leads: the account's permanent code, or the chat page where there is no account.

What the account made is kept in VAR_DIR: an account may have 100,000 permanent codes, for ever.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

from bot.catalogue import Scene
from bot.fonts import find_typeface
from bot.pictures import write_file
from bot.services import Services
from bot.settings import PREFIX
from bot.sheets import Typefaces, draw_sheet
from bot.wechat_api import WeChatClient

MAX_SCENE = 64  # bytes, of the platform


class CodeError(ValueError):
    """A code that cannot be made; the message says which and why."""


def make_sheets(services: Services, codes: Sequence[str], directory: Path, *, base: str | None = None) -> Iterator[Path]:
    """Writes one sheet a place and yields its path. Raises CodeError, SheetError, FontError, WeChatError."""
    chosen = choose_scenes(services.catalogue.scenes, codes)
    typefaces = Typefaces(find_typeface(bold=True), find_typeface())
    address = address_maker(services, base)
    city = services.catalogue.city
    account = str(city.get("account") or f"民声 · {city['name']}12345")
    for scene in chosen:
        sheet = draw_sheet(address(scene), name=scene.name, account=account, typefaces=typefaces)
        yield _write_sheet(directory / f"{file_stem(scene.code)}.png", sheet)


def address_maker(services: Services, base: str | None) -> Callable[[Scene], str]:
    """The account's own codes where its secret is set, unless `base` names a chat page. Raises CodeError."""
    settings = services.settings
    if base is None and settings.wechat_app_id and settings.wechat_app_secret:
        client, made = WeChatClient(services), MadeCodes(settings.var_dir / "wechat_codes.json", settings.wechat_app_id)
        return lambda scene: made.address(scene, client.create_code)
    page = base or settings.public_url
    if not page:
        account = f"{PREFIX}WECHAT_APP_ID and {PREFIX}WECHAT_APP_SECRET"
        raise CodeError(f"where should the codes lead? Set {account}, or {PREFIX}PUBLIC_URL, or give --url")
    return lambda scene: page_address(page, scene)


def file_stem(code: str) -> str:
    """The code as a file name, another one for every code; what printers and file systems dislike becomes _ and its number."""
    return re.sub(r"[^A-Za-z0-9.]", lambda odd: "-" if odd[0] == ":" else f"_{ord(odd[0]):x}", code).lstrip(".")


def _write_sheet(path: Path, sheet: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sheet)
    except OSError as error:
        raise CodeError(f"cannot write {path}: {error.strerror}") from None
    return path


def choose_scenes(scenes: Mapping[str, Scene], codes: Sequence[str]) -> list[Scene]:
    """The named ones, each once, or all of them. Raises CodeError."""
    unknown = [code for code in codes if code not in scenes]
    if unknown or not scenes:
        known = " ".join(scenes) or "nothing"
        raise CodeError(f"scenes.csv does not know {unknown[0]}; it knows {known}" if unknown else "scenes.csv has no scanned places")
    chosen = [scenes[code] for code in dict.fromkeys(codes or scenes)]
    for scene in chosen:
        if not 1 <= len(scene.code.encode()) <= MAX_SCENE or not scene.code.isprintable() or " " in scene.code:
            raise CodeError(f"scene {scene.code!r} must be 1 to {MAX_SCENE} bytes without blanks")
        if not scene.name.strip():
            raise CodeError(f"scene {scene.code} has no name to print")
    return chosen


def page_address(base: str, scene: Scene) -> str:
    """The chat page that knows the place. Raises CodeError."""
    try:
        parts = urlsplit(base)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise CodeError(f"the address {base!r} must look like https://your.host")
    return f"{base.rstrip('/')}/chat?scene={quote(scene.code, safe=':')}"


@dataclass(frozen=True)
class MadeCodes:
    """Addresses of the codes that an account has made: a JSON file, {app id: {scene: address}}."""

    path: Path
    app_id: str

    def address(self, scene: Scene, create: Callable[[str], str]) -> str:
        """What the account made before, else what `create(scene)` makes now; it is on the disk when this returns."""
        made = self._read()
        mine = made.setdefault(self.app_id, {})
        if scene.code not in mine:
            mine[scene.code] = create(scene.code)
            write_file(self.path, json.dumps(made, ensure_ascii=False, indent=1).encode())
        return mine[scene.code]

    def _read(self) -> dict[str, dict[str, str]]:
        if not self.path.exists():
            return {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        made = found.values() if isinstance(found, dict) else [None]
        if not all(isinstance(codes, dict) and all(isinstance(url, str) for url in codes.values()) for codes in made):
            raise CodeError(f"{self.path} is damaged; put it back from a backup, or remove it to have the codes made anew")
        return cast("dict[str, dict[str, str]]", found)
