"""Pages for residents and staff: blueprints, templates, style. Flask objects live here and in webhook.py only.

web_config() holds what these pages rely on in the app's configuration, so that webhook.py and the tests agree on it.
"""
from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from bot.services import Services
from bot.ticket import CHINA

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
BROWSER_DAYS = 180

# Everything comes from this server; `blob:` shows a picture that is still being uploaded.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def policy_with_scripts_of(address: str) -> str:
    """The same for a page inside WeChat: scripts also from where the JS-SDK is, and the frames by which it calls the app on some phones."""
    parts = urlsplit(address)
    return f"{CONTENT_POLICY}; script-src 'self' {parts.scheme}://{parts.netloc}; frame-src weixin:"


def web_config(services: Services) -> dict[str, Any]:
    """Flask settings for signed cookies and forms, for app.config.update()."""
    return {
        "SECRET_KEY": services.vault.signing_secret("session"),
        "SESSION_COOKIE_NAME": "minsheng",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": services.settings.base_url.startswith("https://"),
        # A form is good as long as the session is: an agent who has waited two hours for a call must be able to take it.
        "WTF_CSRF_TIME_LIMIT": None,
        "PERMANENT_SESSION_LIFETIME": timedelta(days=BROWSER_DAYS),
        # Flask-WTF's extra check under TLS reads the Referer, which the tracking page forbids because its address is secret.
        "WTF_CSRF_SSL_STRICT": False,
    }


class CookieSessions(SecureCookieSessionInterface):
    """Flask's own, but who sends no cookie costs no setting up of signatures: machines, above all the platform's callbacks."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if self.get_cookie_name(app) not in request.cookies:
            return self.session_class()
        return super().open_session(app, request)


def add_page_headers(response: Response) -> Response:
    """For residents' pages: nothing cached, nothing framed, nothing loaded from elsewhere. Keeps what a view set itself."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response


def guard_secret(response: Response) -> Response:
    """For pages whose address or links are keys: nothing of them in a search engine or in another site's log."""
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    response.headers["Referrer-Policy"] = "no-referrer"
    return add_page_headers(response)


def china_time(moment: datetime) -> str:
    """2026年11月21日 19:08, the way residents read time."""
    local = moment.astimezone(CHINA)
    return f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"
