"""Staff for tests: three people and an outsider, and how they log in, as a client and in a browser."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect

from bot.services import Services
from bot.staff import Staff
from bot.web import STATIC, TEMPLATES, errors, web_config
from bot.web.staff import init_staff

PASSWORD = "一个足够长的口令"
# username → role, districts, cleared
PEOPLE: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "agent": ("agent", ("清江浦区",), False),
    "outsider": ("agent", ("涟水县",), False),
    "supervisor": ("supervisor", (), True),
    "admin": ("admin", (), True),
}


def add_people(services: Services) -> None:
    # A cheap hash: what a password costs is Argon2's matter, and hundreds of tests log in.
    staff = Staff(services.engine, services.now, PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    for username, (role, districts, cleared) in PEOPLE.items():
        staff.add(username, PASSWORD, role, districts=districts, cleared=cleared)


def staff_app(services: Services, *blueprints: Blueprint) -> Flask:
    """The staff pages with these blueprints, without the rest of the service; the four people have accounts."""
    app = Flask("staff", template_folder=str(TEMPLATES), static_folder=str(STATIC))
    app.config.update(web_config(services))
    CSRFProtect(app)
    errors.register_error_handlers(app)
    init_staff(app, services)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    add_people(services)
    return app


@dataclass(frozen=True)
class StaffClient:
    """A logged-in client that sends the form token, as the pages' scripts do."""

    client: FlaskClient
    token: str

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, **options)

    def post(self, path: str, **options: Any) -> Any:
        headers = {"X-CSRFToken": self.token, "Accept": "application/json", **options.pop("headers", {})}
        return self.client.post(path, headers=headers, **options)


def log_in(app: Flask, username: str, password: str = PASSWORD) -> StaffClient:
    client = app.test_client()
    token = form_token(client.get("/login").text)
    answer = client.post("/login", data={"username": username, "password": password, "csrf_token": token})
    assert answer.status_code == 302, answer.text
    page = client.get("/login", follow_redirects=False)  # a logged-in person is sent on
    assert page.status_code == 302
    return StaffClient(client, token)


def log_in_page(page: Any, base: str, username: str, password: str = PASSWORD) -> None:
    """The same in a browser (a playwright page)."""
    page.goto(f"{base}/login")
    page.fill("#username", username)
    page.fill("#password", password)
    page.click("button.btn-primary")
    page.wait_for_url(lambda url: "/login" not in url)


def form_token(html: str) -> str:
    return html.split('name="csrf_token" value="', 1)[1].split('"', 1)[0]
