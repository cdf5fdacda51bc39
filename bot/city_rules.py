"""The city's own words, places, categories, routes and time limits, edited by supervisors: versions, checks, and how they take effect.

A version is whole and never changed. It is laid over a copy of nlu_data in the files' own formats, so that serving and training read it
with the same loaders as what was shipped. Words and categories teach the next model; the rest takes effect within seconds.
"""
from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.engine import Row

from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue, load_catalogue
from bot.db import iso, reading, transaction
from bot.gazetteer import Gazetteer, load_gazetteer
from bot.services import DATA_DIR, Services
from bot.staff_schema import knowledge_versions

EMPTY: Mapping[str, Any] = {"words": {}, "places": [], "categories": [], "routes": {}, "limits": []}
MOST_OF_A_KIND = 5000
MAX_WORKDAYS, MAX_HOURS = 90, 720
PLACE_KINDS = ("小区", "道路", "村", "社区", "机构", "市场", "学校", "公园", "其他")
_CODE = re.compile(r"\d{6}")
_WORD = re.compile(r"[\w·（）()]{2,16}")

Content = Mapping[str, Any]


class RulesError(ValueError):
    """The content cannot be saved; the text says what to change."""


def current_content(services: Services) -> tuple[int, dict[str, Any]]:
    """(version, content) of the newest version; (0, empty) before the first."""
    newest = select(knowledge_versions).order_by(knowledge_versions.c.id.desc()).limit(1)
    with reading(services.engine) as connection:
        row = connection.execute(newest).first()
    return (row.id, {**EMPTY, **json.loads(row.content)}) if row else (0, dict(EMPTY))


def list_versions(services: Services, *, limit: int = 50) -> list[Row]:
    """Newest first, without content."""
    columns = knowledge_versions.c.id, knowledge_versions.c.at, knowledge_versions.c.username, knowledge_versions.c.note
    with reading(services.engine) as connection:
        return connection.execute(select(*columns).order_by(knowledge_versions.c.id.desc()).limit(limit)).fetchall()


def get_content(services: Services, version: int) -> dict[str, Any]:
    """Raises RulesError."""
    with reading(services.engine) as connection:
        row = connection.execute(select(knowledge_versions.c.content).where(knowledge_versions.c.id == version)).first()
    if row is None:
        raise RulesError("没有这个版本")
    return {**EMPTY, **json.loads(row.content)}


def save_content(services: Services, content: Content, *, based_on: int, username: str, note: str) -> int:
    """A new version. Raises RulesError when it cannot work, or when somebody saved another one meanwhile."""
    checked = check_content(content, services)
    row = {"at": iso(services.now()), "username": username, "note": note.strip()[:500]}
    if not row["note"]:
        raise RulesError("请写一句为什么改，以后查起来方便")
    with transaction(services.engine) as connection:
        newest = connection.execute(select(knowledge_versions.c.id).order_by(knowledge_versions.c.id.desc()).limit(1)).scalar()
        if (newest or 0) != based_on:
            raise RulesError("别人刚刚保存过新版本，请刷新页面，在新版本上再改")
        result = connection.execute(knowledge_versions.insert().values(**row, content=json.dumps(checked, ensure_ascii=False)))
        return int(result.inserted_primary_key[0])


# -- checks ---------------------------------------------------------------------------------------------------------------


def check_content(content: Content, services: Services) -> dict[str, Any]:
    """The content in its one form. Raises RulesError with the first thing that cannot work."""
    shipped = load_catalogue(DATA_DIR, services.settings.city)
    categories = [_category(row, shipped) for row in _rows(content, "categories")]
    codes = {row["code"] for row in categories}
    if len(codes) < len(categories):
        raise RulesError("有两个类别用了同一个编码")
    known = codes | set(shipped.categories)
    return {
        "categories": categories,
        "words": {_leaf(code, known): _words(words) for code, words in _mapping(content, "words").items() if words},
        "places": [_place(row, services.gazetteer) for row in _rows(content, "places")],
        "routes": {_prefix(code, known): _route(route, shipped) for code, route in _mapping(content, "routes").items()},
        "limits": [_limit(row) for row in _rows(content, "limits")],
    }


def _rows(content: Content, name: str) -> Sequence[Mapping[str, Any]]:
    rows = content.get(name) or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or len(rows) > MOST_OF_A_KIND:
        raise RulesError("内容不完整，请刷新页面再试")
    return rows


def _mapping(content: Content, name: str) -> Mapping[str, Any]:
    found = content.get(name) or {}
    if not isinstance(found, dict) or len(found) > MOST_OF_A_KIND:
        raise RulesError("内容不完整，请刷新页面再试")
    return found


def _category(row: Mapping[str, Any], shipped: Catalogue) -> dict[str, Any]:
    code, name = str(row.get("code", "")).strip(), str(row.get("name", "")).strip()
    if not _CODE.fullmatch(code):
        raise RulesError(f"类别编码要是六位数字，不能是“{code[:20]}”")
    if code in shipped.categories:
        raise RulesError(f"编码 {code} 已经是“{shipped.get_category(code).label}”")
    if not 2 <= len(name) <= 20:
        raise RulesError(f"类别 {code} 的名称要有 2 到 20 个字")
    siblings = [category for other, category in shipped.categories.items() if other[:4] == code[:4]]
    if not siblings:
        raise RulesError(f"编码 {code} 的前四位要是已有的二级类别")
    return {"code": code, "name": name, "path": [*siblings[0].path[:2], name]}


def _leaf(code: str, known: set[str]) -> str:
    if code not in known:
        raise RulesError(f"没有类别 {code[:20]}，先添加类别再写它的词")
    return code


def _prefix(code: str, known: set[str]) -> str:
    if len(code) not in (2, 4, 6) or not any(leaf.startswith(code) for leaf in known):
        raise RulesError(f"没有类别 {code[:20]}")
    return code


def _words(words: Any) -> list[str]:
    if not isinstance(words, list):
        raise RulesError("内容不完整，请刷新页面再试")
    found = list(dict.fromkeys(str(word).strip() for word in words if str(word).strip()))
    bad = next((word for word in found if not _WORD.fullmatch(word)), None)
    if bad is not None:
        raise RulesError(f"词要有 2 到 16 个字，中间没有空格和标点：“{bad[:20]}”不行")
    return found


def _place(row: Mapping[str, Any], gazetteer: Gazetteer) -> dict[str, Any]:
    name, district = str(row.get("name", "")).strip(), str(row.get("district", "")).strip()
    if not 2 <= len(name) <= 40 or "," in name:
        raise RulesError(f"地名要有 2 到 40 个字：“{name[:20]}”不行")
    if district not in gazetteer.home_districts():
        raise RulesError(f"“{name}”要选本市的区县")
    kind = row.get("kind") if row.get("kind") in PLACE_KINDS else "其他"
    place = {"name": name, "kind": kind, "district": district, "street": str(row.get("street") or "").strip()[:40]}
    aliases = [alias.strip() for alias in re.split(r"[|、，,\s]+", str(row.get("aliases") or "")) if len(alias.strip()) > 1]
    return {**place, "lat": _degrees(row.get("lat"), 90, name), "lng": _degrees(row.get("lng"), 180, name), "aliases": "|".join(aliases)}


def _degrees(value: Any, bound: int, name: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        degrees = float(value)
    except (TypeError, ValueError):
        degrees = float("nan")
    if not abs(degrees) <= bound:  # NaN fails too
        raise RulesError(f"“{name}”的经纬度不对")
    return round(degrees, 6)


def _route(route: Any, shipped: Catalogue) -> dict[str, Any]:
    if not isinstance(route, dict):
        raise RulesError("内容不完整，请刷新页面再试")
    roles = [str(route.get("lead", "")), *map(str, route.get("co") or ())]
    unknown = next((role for role in roles if role not in shipped.city["departments"]), None)
    if unknown is not None:
        raise RulesError(f"没有部门“{unknown[:20]}”，部门在 city.yml 里")
    helpers = [role for role in dict.fromkeys(roles[1:]) if role != roles[0]]
    return {"lead": roles[0], "co": helpers, "local": bool(route.get("local", True))}


def _limit(row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("request_type") not in REQUEST_TYPES or row.get("urgency") not in URGENCIES:
        raise RulesError("时限要写明诉求类型和紧急程度")
    unit, bound = ("hours", MAX_HOURS) if row.get("hours") else ("workdays", MAX_WORKDAYS)
    value = row.get(unit)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= bound:
        raise RulesError(f"时限要是 1 到 {MAX_WORKDAYS} 个工作日，或 1 到 {MAX_HOURS} 小时")
    return {"request_type": row["request_type"], "urgency": row["urgency"], unit: value}


# -- taking effect --------------------------------------------------------------------------------------------------------


def lay_over(content: Content, data_dir: Path, city: str) -> None:
    """Write the content into a copy of nlu_data, in the formats of its files (nlu_data/README.md)."""
    home, base = data_dir / "cities" / city, data_dir / "catalogue"
    _append_rows(base / "categories.csv", ([row["code"], *row["path"]] for row in content["categories"]))
    columns = ("name", "kind", "district", "street", "lat", "lng", "aliases")
    _append_rows(home / "gazetteer.csv", ([place[column] for column in columns] for place in content["places"]))
    if content["routes"]:
        _update_yaml(base / "routing.yml", lambda rules: {**rules, **content["routes"]})
    if content["limits"]:
        stated = [{**limit, "source": "supervisors"} for limit in content["limits"]]
        _update_yaml(home / "city.yml", lambda file: {**file, "promises": [*stated, *(file.get("promises") or ())]})
    if (data_dir / "lexicon").is_dir():
        for code, words in content["words"].items():
            with open(data_dir / "lexicon" / f"{code[:2]}.txt", "a", encoding="utf-8") as file:
                file.write(f"\n# {code}\n{' '.join(words)}\n")


def _append_rows(path: Path, rows: Any) -> None:
    ends = path.read_bytes()[-1:] == b"\n" if path.exists() else True
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write("" if ends else "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)


def _update_yaml(path: Path, change: Any) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(change(content), allow_unicode=True, sort_keys=False), encoding="utf-8")


def build_with(services: Services, content: Content, directory: Path) -> tuple[Catalogue, Gazetteer]:
    """Catalogue and gazetteer as they would be with this content; `directory` is made and left. Raises CatalogueError."""
    city = services.settings.city
    shutil.rmtree(directory, ignore_errors=True)
    for part in ("catalogue", "divisions", f"cities/{city}"):
        shutil.copytree(DATA_DIR / part, directory / part)
    lay_over(content, directory, city)
    catalogue = load_catalogue(directory, city)
    return catalogue, load_gazetteer(directory, city, catalogue.city)


class RulesFollower:
    """Keeps one process's catalogue and gazetteer at the newest version. Everybody holds the same two objects; what is in them is
    exchanged in one assignment, so nobody ever sees half of a version."""

    def __init__(self, services: Services) -> None:
        self._services, self.version = services, 0

    def follow(self) -> None:
        """Raises StorageError, CatalogueError."""
        version, content = current_content(self._services)
        if version == self.version:
            return
        directory = self._services.settings.var_dir / "knowledge" / f"{version}.{id(self):x}"
        try:
            catalogue, gazetteer = build_with(self._services, content, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        object.__setattr__(self._services.catalogue, "__dict__", vars(catalogue))
        self._services.gazetteer.__dict__ = vars(gazetteer)
        self.version = version
