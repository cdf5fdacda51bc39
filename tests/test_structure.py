"""The house rules that no type checker sees: who may import whom, settings and their example, no addresses in lock files."""
from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from bot.settings import PREFIX, Settings
from bot.web.audit_words import ACTIONS

ROOT = Path(__file__).resolve().parent.parent
MODULES = [ROOT / "webhook.py", *sorted((ROOT / "bot").rglob("*.py")), *sorted((ROOT / "actions").glob("*.py"))]
MODULES = [path for path in MODULES if "migrations" not in path.parts]


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imports_of(path))
        if any(name == prefix or name.startswith(prefix + ".") for prefix in forbidden)
    ]


def under(*parts: str) -> list[Path]:
    return [path for path in MODULES if path.is_relative_to(ROOT.joinpath(*parts))]


def test_settings_and_catalogue_import_nothing_of_ours() -> None:
    pure = [ROOT / "bot" / name for name in ("settings.py", "catalogue.py", "gazetteer.py", "vault.py")]
    names = {name for path in pure for name in imports_of(path) if name.split(".")[0] in ("bot", "actions", "webhook")}
    assert names <= {"bot.text", "bot.text.fold"}


def test_petition_imports_only_pure_modules() -> None:
    names = {name for name in imports_of(ROOT / "bot" / "petition.py") if name.startswith("bot")}
    assert {name.split(".")[1] for name in names} == {"catalogue", "gazetteer", "text"}


def test_readers_know_no_database_no_flask_no_network() -> None:
    assert offenders(under("bot", "nlu"), "flask", "requests", "sqlalchemy", "bot.db", "bot.tickets", "bot.web") == []


def test_actions_know_no_flask_and_no_wechat() -> None:
    assert offenders(under("actions"), "flask", "wechatpy", "bot.wechat", "bot.web", "webhook") == []


def test_flask_stops_at_webhook_and_web() -> None:
    others = [path for path in MODULES if path not in under("bot", "web") and path.name != "webhook.py"]
    assert offenders(others, "flask", "flask_wtf") == []


def test_rasa_stops_at_its_door() -> None:
    allowed = {*under("bot", "nlu"), *under("actions"), ROOT / "bot" / "embedded.py", ROOT / "bot" / "training.py"}
    assert offenders([path for path in MODULES if path not in allowed], "rasa", "rasa_sdk") == []


def test_wechat_xml_stops_at_wechat() -> None:
    assert offenders([path for path in MODULES if path.name != "wechat.py"], "wechatpy", "xmltodict", "xml") == []


def test_nobody_imports_actions_or_webhook() -> None:
    outside = [path for path in MODULES if path not in under("actions")]
    assert offenders([path for path in outside if path.name != "cli.py"], "actions", "webhook") == []


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_every_setting_stands_in_the_example(field: str) -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert re.search(rf"^{PREFIX}{field.upper()}=", example, re.MULTILINE)


def test_the_example_names_no_unknown_setting() -> None:
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    named = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == known


def test_the_environment_is_read_in_one_place() -> None:
    readers = [path for path in MODULES if re.search(r"os\.environ(?!\.setdefault\(\"TF_)|getenv", path.read_text(encoding="utf-8"))]
    assert [path.name for path in readers] == ["settings.py"]


def test_the_lock_file_names_no_address() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_what_the_dockerfile_uses_exists() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([\w./-]+)", text.replace("apt-get install -y --no-install-recommends make", "")):
        assert target == ".venv/.installed" or re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in ("requirements.lock", "Makefile", "scripts", "webhook.py"):
        assert path in text and (ROOT / path).exists()


def test_every_form_says_how_it_is_sent() -> None:
    """A form that its script sends is method="dialog": pressed before the script is there it does nothing. Without a method the
    browser would put what was typed, names and telephone numbers among it, into the address of the page."""
    pages = sorted((ROOT / "bot" / "web" / "templates").rglob("*.html"))
    forms = [(page.name, form) for page in pages for form in re.findall(r"<form\b[^>]*", page.read_text(encoding="utf-8"))]
    assert len(forms) > 30
    assert [found for found in forms if not re.search(r'\bmethod="(post|get|dialog)"', found[1])] == []


def actions_written_down(path: Path) -> set[str]:
    """The first plain word that a call hands to the audit, or to a helper that hands it on."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if name in ("audited", "audit", "_act", "_change", "_start"):
            plain = [argument for argument in node.args if isinstance(argument, ast.Constant | ast.IfExp)]
            words = [{part.value for part in ast.walk(one) if isinstance(part, ast.Constant) and isinstance(part.value, str)} for one in plain]
            found |= {word for word in next((some for some in words if some), set()) if re.fullmatch(r"[a-z_]{2,}", word)}
    return found


def test_every_action_in_the_audit_has_a_chinese_name() -> None:
    written = set().union(*map(actions_written_down, under("bot", "web")))
    assert {"login", "enable_person", "take_chat", "reroute_ticket", "compare_model"} <= written, "the test finds what it looks for"
    assert sorted(written - ACTIONS.keys()) == []
