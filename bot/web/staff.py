"""Login of staff, who is logged in, and what a page needs of it. What a person may read is decided in bot/staff.py."""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from flask import Blueprint, Flask, abort, current_app, flash, jsonify, make_response, redirect, render_template, request, session, url_for
from flask_bootstrap import Bootstrap5
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from werkzeug.wrappers import Response as BaseResponse

from bot.db import StorageError
from bot.services import Services
from bot.staff import LoginRefused, Staff, StaffMember, audit
from bot.web import add_page_headers
from bot.web.errors import wants_json

View = TypeVar("View", bound=Callable[..., Any])

# A workstation left alone does not stay open overnight; an agent at work never notices.
IDLE_SECONDS = 4 * 3600
PAGES = (
    ("desk", "来电", "/desk", "telephone", "agent"),
    ("tickets", "工单", "/desk/tickets", "card-checklist", "agent"),
    ("chats", "会话", "/desk/chats", "chat-dots", "agent"),
    ("batch", "批量", "/desk/batch", "table", "agent"),
    ("review", "审核", "/studio/review", "check2-square", "supervisor"),
    ("data", "数据", "/studio/data", "database", "supervisor"),
    ("rules", "规则与词", "/studio/rules", "book", "supervisor"),
    ("models", "模型", "/studio/models", "cpu", "supervisor"),
    ("dashboard", "看板", "/studio/dashboard", "bar-chart", "supervisor"),
    ("people", "人员", "/studio/people", "people", "admin"),
    ("audit", "审计", "/studio/audit", "shield-check", "admin"),
)


class _Login(UserMixin):
    """What Flask-Login keeps of a person: the name and the epoch, so that a changed password ends every session."""

    def __init__(self, member: StaffMember) -> None:
        self.member = member

    def get_id(self) -> str:
        return f"{self.member.epoch}:{self.member.username}"


def init_staff(app: Flask, services: Services) -> Blueprint:
    """Flask-Login, Bootstrap and the login pages; returns their blueprint, already registered."""
    staff = Staff(services.engine, services.now)
    app.config.update(BOOTSTRAP_SERVE_LOCAL=True)
    Bootstrap5(app)
    manager = LoginManager(app, add_context_processor=False)  # ours, below, also draws the page that says the storage is away
    app.extensions["minsheng_services"] = services

    @manager.user_loader
    def load(identity: str) -> _Login | None:
        epoch, _, username = identity.partition(":")
        member = staff.find(username)
        if member is None or member.disabled or str(member.epoch) != epoch or _idle():
            return None
        session["staff_at"] = int(time.time())
        return _Login(member)

    @manager.unauthorized_handler
    def send_to_login() -> BaseResponse:
        if wants_json():
            return make_response(jsonify(error="登录已过期，请重新登录"), 401)
        return redirect(url_for("staff.login", next=request.full_path.rstrip("?") if request.method == "GET" else None))

    blueprint = _login_pages(services, staff)
    app.register_blueprint(blueprint)
    app.context_processor(lambda: {"member": _member_shown(), "staff_pages": PAGES})
    return blueprint


def _member_shown() -> StaffMember | None:
    """For the frame of a page; the page that says the storage is away has to be drawn without it."""
    try:
        return find_member()
    except StorageError:
        return None


def _login_pages(services: Services, staff: Staff) -> Blueprint:
    blueprint = Blueprint("staff", __name__)
    blueprint.after_request(add_page_headers)

    @blueprint.get("/login")
    def login() -> BaseResponse:
        if find_member():
            return redirect(_next_page())
        # Who was here before and is sent back is told why: after hours away, or when the account has been changed.
        expired = "_user_id" in session
        return make_response(render_template("login.html", nobody=not staff.list_members(), expired=expired))

    @blueprint.post("/login")
    def enter() -> BaseResponse:
        username, password = request.form.get("username", "").strip()[:40], request.form.get("password", "")[:200]
        try:
            member = staff.authenticate(username, password)
        except LoginRefused as refused:
            audit(services, username or "-", "login_refused", username, address=request.remote_addr or "")
            return make_response(render_template("login.html", problem=str(refused), username=username), 401)
        audit(services, username, "login", username, address=request.remote_addr or "")
        session["staff_at"] = int(time.time())
        login_user(_Login(member))
        return redirect(_next_page())

    @blueprint.post("/logout")
    def logout() -> BaseResponse:
        logout_user()
        session.pop("staff_at", None)
        flash("已退出登录。")
        return redirect(url_for("staff.login"))

    return blueprint


def find_member() -> StaffMember | None:
    return cast(StaffMember, current_user.member) if current_user and current_user.is_authenticated else None


def current_member() -> StaffMember:
    """The person logged in; for views behind staff_required()."""
    member = find_member()
    assert member is not None
    return member


def staff_required(role: str) -> Callable[[View], View]:
    """The view is for this role and those above it; others are sent to the login page, or told that it is not theirs."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            member = find_member()
            if member is None:
                return current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
            if not member.is_at_least(role):
                abort(403, "您的账号没有这一页的权限，需要时请找管理员。")
            return current_app.ensure_sync(view)(*args, **kwargs)

        return cast(View, guarded)

    return decorate


def audited(action: str, subject: str, detail: str = "") -> None:
    """Write down that the person logged in reads or changes `subject`, before it happens. Raises StorageError."""
    services: Services = current_app.extensions["minsheng_services"]
    audit(services, current_member().username, action, subject, address=request.remote_addr or "", detail=detail)


def staff_blueprint(name: str, import_name: str, **options: Any) -> Blueprint:
    """A blueprint of staff pages: nothing cached, nothing framed, nothing from elsewhere."""
    blueprint = Blueprint(name, import_name, **options)
    blueprint.after_request(add_page_headers)
    return blueprint


def _idle() -> bool:
    return time.time() - float(session.get("staff_at", 0)) > IDLE_SECONDS


def _next_page() -> str:
    """Where the person wanted to go, on this server only; else the desk."""
    wanted = request.args.get("next", "")
    parts = urlsplit(wanted)
    if wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc:
        return wanted
    return "/desk"
