"""A resident's own tickets in one list: those of the official account, and those told on the chat page of this browser."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, make_response, render_template, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from bot.services import Services
from bot.ticket import FINAL_STATES, Ticket
from bot.web import china_time, guard_secret
from bot.web.tracking import EXPLAINED, title_of
from bot.web.wechat_login import FRESH, WebLogin

MOST = 50


@dataclass(frozen=True)
class MyPages:
    services: Services
    login: WebLogin

    def show(self) -> BaseResponse:
        known = self.login.find_viewer(FRESH)
        if known is None and self.login.possible():
            return self.login.begin(url_for("my.show"))
        found = [ticket for owner in (known, self._browser()) if owner for ticket in self._tickets_of(owner)]
        newest = sorted(found, key=lambda ticket: ticket.number, reverse=True)
        return self._page(newest, known=known is not None)

    def _tickets_of(self, conversation_id: str) -> list[Ticket]:
        return self.services.tickets.find_of_conversation(conversation_id, limit=MOST + 1)

    def _browser(self) -> str | None:
        """The conversation of the chat page in this browser."""
        return self.services.vault.pseudonym("web", "", session["browser"]) if "browser" in session else None

    def _page(self, tickets: list[Ticket], *, known: bool) -> Response:
        entries = [self._entry(ticket) for ticket in tickets[:MOST]]
        running, over = [entry for entry in entries if entry["open"]], [entry for entry in entries if not entry["open"]]
        account = self.services.settings.pages_in_wechat and not known
        return make_response(render_template("my.html", running=running, over=over, more=len(tickets) > MOST, most=MOST, elsewhere=account))

    def _entry(self, ticket: Ticket) -> dict[str, Any]:
        return {
            "number": ticket.number,
            "link": self.services.tickets.link(ticket.number, ""),
            "title": title_of(ticket),
            "state_label": ticket.state_label,
            "explained": EXPLAINED[ticket.state],
            "filed": china_time(ticket.filed_at),
            "open": ticket.state not in FINAL_STATES,
        }


def create_blueprint(services: Services, login: WebLogin) -> Blueprint:
    pages = MyPages(services, login)
    blueprint = Blueprint("my", __name__)
    blueprint.add_url_rule("/my", "show", pages.show)
    blueprint.after_request(guard_secret)
    return blueprint
