"""People who work here, and what they read and changed: for administrators. Accounts are bot/staff.py's; the audit is only read."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from sqlalchemy import select
from sqlalchemy.engine import Row
from werkzeug.wrappers import Response as BaseResponse

from bot.db import iso, parse_iso, reading
from bot.services import Services
from bot.staff import MIN_PASSWORD, ROLE_NAMES, Staff, StaffError
from bot.staff_schema import audit_log
from bot.ticket import CHINA
from bot.ticket_desk import departments
from bot.web.audit_words import GROUPS, action_words, detail_words, link_of, subject_words
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

PAGE = 100


@dataclass(frozen=True)
class PeoplePages:
    services: Services

    def staff(self) -> Staff:
        return Staff(self.services.engine, self.services.now)

    # -- people ---------------------------------------------------------------------------------------------------

    def people(self) -> str:
        return self._page()

    def _page(self, *, problem: str = "", form: Mapping[str, Any] | None = None, open_for: str = "") -> str:
        return render_template(
            "studio/people.html",
            page="people",
            people=self.staff().list_members(),
            now=self.services.now(),
            roles=ROLE_NAMES,
            districts=self.services.gazetteer.home_districts(),
            departments=sorted(set(departments(self.services))),
            min_password=MIN_PASSWORD,
            problem=problem,
            form=form or {},
            open_for=open_for,
        )

    def add(self) -> BaseResponse | tuple[str, int]:
        form, username = request.form, request.form.get("username", "").strip()
        if not re.fullmatch(r"[\w.-]{2,40}", username):
            return self._page(problem="用户名用 2 到 40 个字母、数字、汉字或 . _ -。", form=form, open_for="+"), 400
        audited("add_person", username, detail=_summary(form))
        try:
            self.staff().add(username, form.get("password", ""), **self._rights(form))
        except StaffError as error:
            return self._page(problem=f"{error}。", form=form, open_for="+"), 400
        flash(f"已添加 {username}。")
        return _back()

    def change(self, username: str) -> BaseResponse | tuple[str, int]:
        form = request.form
        if username == current_member().username and form.get("role") != "admin":
            return self._page(problem="不能取消自己的管理员身份，请让另一位管理员来改。", open_for=username), 400
        audited("change_person", username, detail=_summary(form))
        try:
            self.staff().change(username, **self._rights(form))
        except StaffError as error:
            return self._page(problem=f"{error}。", open_for=username), 400
        flash(f"已修改 {username}，本人需要重新登录。")
        return _back()

    def reset_password(self, username: str) -> BaseResponse | tuple[str, int]:
        audited("reset_password", username)
        try:
            self.staff().set_password(username, request.form.get("password", ""))
        except StaffError as error:
            return self._page(problem=f"{error}。", open_for=username), 400
        flash(f"{username} 的密码已重置，锁定也已解除。")
        return _back()

    def unlock(self, username: str) -> BaseResponse | tuple[str, int]:
        audited("unlock_person", username)
        try:
            self.staff().unlock(username)
        except StaffError as error:
            return self._page(problem=f"{error}。"), 400
        flash(f"{username} 已解锁，可以用原来的密码登录。")
        return _back()

    def disable(self, username: str) -> BaseResponse | tuple[str, int]:
        off = request.form.get("disabled") == "1"
        if username == current_member().username:
            return self._page(problem="不能停用自己的账号。", open_for=username), 400
        audited("disable_person" if off else "enable_person", username)
        try:
            self.staff().set_disabled(username, off)
        except StaffError as error:
            return self._page(problem=f"{error}。"), 400
        flash(f"{username} 已{'停用' if off else '启用'}。")
        return _back()

    def _rights(self, form: Any) -> dict[str, Any]:
        """Raises StaffError for districts and departments this city does not have."""
        chosen, known = form.getlist("districts"), self.services.gazetteer.home_districts()
        department = form.get("department", "") or None
        if not set(chosen) <= set(known) or (department and department not in departments(self.services)):
            raise StaffError("区县或部门不在目录里")
        return {
            "role": form.get("role", ""),
            "districts": [name for name in known if name in chosen],
            "display_name": form.get("display_name", "").strip()[:40],
            "cleared": form.get("cleared") == "1",
            "department": department,
        }

    # -- audit ----------------------------------------------------------------------------------------------------

    def audit(self) -> str:
        given = {name: request.args.get(name, "").strip()[:120] for name in ("username", "action", "subject", "since", "until")}
        before = request.args.get("before", "")
        if not before:
            audited("read_audit", "audit", detail="，".join(f"{name}={value}" for name, value in given.items() if value))
        rows = self._audit_rows(given, int(before) if re.fullmatch(r"[0-9]{1,15}", before) else None)
        return render_template(
            "studio/audit.html",
            page="audit",
            rows=[self._audit_view(row) for row in rows[:PAGE]],
            older=rows[PAGE - 1].id if len(rows) > PAGE else None,
            given=given,
            people=[member.username for member in self.staff().list_members()],
            groups=GROUPS,
        )

    def _audit_rows(self, given: Mapping[str, str], before: int | None) -> list[Row]:
        wanted = [audit_log.c[name] == given[name] for name in ("username", "action") if given[name]]
        if given["subject"]:
            wanted.append(audit_log.c.subject.like(f"{_literal(given['subject'])}%", escape="\\"))
        if since := _midnight(given["since"]):
            wanted.append(audit_log.c.at >= since)
        if until := _midnight(given["until"], days=1):
            wanted.append(audit_log.c.at < until)
        if before is not None:
            wanted.append(audit_log.c.id < before)
        with reading(self.services.engine) as connection:
            return list(connection.execute(select(audit_log).where(*wanted).order_by(audit_log.c.id.desc()).limit(PAGE + 1)))

    def _audit_view(self, row: Row) -> dict[str, Any]:
        return {
            "at": parse_iso(row.at).astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S"),
            "username": row.username,
            "label": action_words(row.action),
            "subject": subject_words(row.action, row.subject),
            "link": link_of(row.action, row.subject),
            "address": row.address,
            "detail": detail_words(row.action, row.detail),
        }


def create_blueprint(services: Services) -> Blueprint:
    pages, admin = PeoplePages(services), staff_required("admin")
    blueprint = staff_blueprint("people", __name__, url_prefix="/studio")
    rules: dict[str, tuple[str, Callable[..., Any], str]] = {
        "/people": ("people", pages.people, "GET"),
        "/people/add": ("add", pages.add, "POST"),
        "/people/<username>": ("change", pages.change, "POST"),
        "/people/<username>/password": ("reset_password", pages.reset_password, "POST"),
        "/people/<username>/unlock": ("unlock", pages.unlock, "POST"),
        "/people/<username>/disabled": ("disable", pages.disable, "POST"),
        "/audit": ("audit", pages.audit, "GET"),
    }
    for rule, (endpoint, view, method) in rules.items():
        blueprint.add_url_rule(rule, endpoint, admin(view), methods=[method])
    return blueprint


def _summary(form: Any) -> str:
    """What rights were asked for; never the password."""
    role, department = form.get("role", ""), form.get("department")
    named = [ROLE_NAMES.get(role, role), "、".join(form.getlist("districts")) or "全市"]
    return "，".join([*named, *([department] if department else []), *(["可看保密件"] if form.get("cleared") == "1" else [])])


def _literal(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def _midnight(day: str, *, days: int = 0) -> str:
    try:
        return iso(datetime.combine(date.fromisoformat(day), time(), CHINA) + timedelta(days=days))
    except ValueError:
        return ""


def _back() -> BaseResponse:
    return redirect(url_for("people.people"), 303)
