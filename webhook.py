"""Wiring only: settings in, a Flask application out. `python webhook.py` serves it."""
from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bot.logs import set_up_logging

if __name__ == "__main__":
    set_up_logging()  # before the imports below, some of which warn

import requests
import waitress
from flask import Flask, Response, g, jsonify, request
from flask_wtf.csrf import CSRFProtect
from limits import RateLimitItemPerMinute, storage, strategies

from bot import background, db
from bot.assistant import Assistant, RemoteAssistant
from bot.call_desk import CallDesk, build_desk
from bot.city_rules import RulesFollower
from bot.conversation import Conversations
from bot.cores import keep_to_one_core
from bot.jobs import JobRunner
from bot.late import LateAssistant
from bot.metrics import Metrics
from bot.models import models_to_serve
from bot.outbox import Relay, build_transport
from bot.review_index import ReviewIndex
from bot.reviews import Reviews
from bot.services import Services, build_services, install_services
from bot.settings import Settings, settings_from_environment
from bot.web import (
    STATIC,
    TEMPLATES,
    CookieSessions,
    api,
    calls,
    chat,
    desk,
    desk_batch,
    desk_chats,
    desk_tickets,
    dispatch,
    my,
    openapi,
    sandbox,
    studio_dashboard,
    studio_data,
    studio_imports,
    studio_models,
    studio_people,
    studio_review,
    studio_rules,
    tracking,
    turns,
    uploads,
    web_config,
    wechat,
    wechat_login,
)
from bot.web.errors import register_error_handlers
from bot.web.staff import find_member, init_staff
from bot.wechat_api import WeChatClient
from bot.wechat_pages import WeChatPages
from bot.wechat_turns import Turns

logger = logging.getLogger("minsheng")

# WeChat callbacks may wait 4.2 s each, and 64 pages of the call desk for news; waiting threads cost next to nothing.
THREADS = 160
MAX_REQUEST = 12 * 1024 * 1024  # a picture of 10 MB and its form


def create_app(settings: Settings, *, assistant: Assistant | None = None, threads: bool = True) -> Flask:
    """The whole service. Raises CatalogueError, ModelError, SettingsError when it could not work."""
    services = build_services(settings)
    install_services(services)
    db.migrate(settings)
    rules = RulesFollower(services)
    rules.follow()
    assistant = assistant or open_assistant(services)
    conversations, call_desk = Conversations(services, assistant), build_desk(services, assistant)
    metrics, allow = Metrics(services), rate_limiter(settings)

    app = Flask(__name__, static_folder=STATIC, template_folder=TEMPLATES)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # people read these answers too
    app.config.update(web_config(services), MAX_CONTENT_LENGTH=MAX_REQUEST)
    app.session_interface = CookieSessions()
    csrf = CSRFProtect(app)
    register_error_handlers(app)

    def allowed(sender: str, address: str) -> bool:
        if allow(sender, address):
            return True
        metrics.rate_limited.inc()
        return False

    def here(sender: str) -> bool:
        return allowed(sender, request.remote_addr or "")

    # Everybody's messages come from the platform's few addresses, so only the sender counts.
    client = WeChatClient(services)
    wechat_turns = Turns(services, conversations, client, lambda openid: allowed(openid, openid))
    inside_wechat = WeChatPages(services, client)
    signed_in = wechat_login.WebLogin(services, inside_wechat, here)
    machine = [
        api.create_blueprint(services, conversations, assistant, allowed, find_member),
        chat.create_blueprint(services, conversations, limiter_check=here, wechat=inside_wechat, media=wechat_turns.media),
        dispatch.create_blueprint(services, metrics),
        wechat.create_blueprint(wechat.Callback(services, wechat_turns, metrics)),
        turns.create_blueprint(call_desk),
        openapi.create_blueprint(),
    ]
    for blueprint in machine:  # guarded by tokens, signatures or the page's own check instead of form tokens
        csrf.exempt(blueprint)
        app.register_blueprint(blueprint)
    app.register_blueprint(wechat_login.create_blueprint(signed_in))
    app.register_blueprint(my.create_blueprint(services, signed_in))
    app.register_blueprint(tracking.create_blueprint(services, signed_in))
    reviews = Reviews(services, assistant, ReviewIndex(services))
    add_staff_pages(app, services, assistant, call_desk, reviews, rules)
    if settings.sandbox:
        app.register_blueprint(sandbox.create_blueprint(services, may_open=may_open_sandbox))
    add_operations(app, services, metrics, assistant)
    if threads:
        app.extensions["background"] = own = start_background(services, conversations, assistant, wechat_turns)
        own.repeat("rules", background.FOLLOW_RULES_EVERY, rules.follow)
        own.repeat("reviews", background.REVIEW_EVERY, reviews.make_items)
    return app


def add_staff_pages(
    app: Flask, services: Services, assistant: Assistant, call_desk: CallDesk, reviews: Reviews, rules: RulesFollower
) -> None:
    """The desk of the agents and the studio of the supervisors, behind their login."""
    init_staff(app, services)
    for pages in (uploads, desk_batch, desk_tickets, studio_dashboard, studio_data, studio_imports, studio_models, studio_people):
        app.register_blueprint(pages.create_blueprint(services))
    for pages in (desk, calls):
        app.register_blueprint(pages.create_blueprint(call_desk))
    app.register_blueprint(studio_rules.create_blueprint(services, rules))
    app.register_blueprint(desk_chats.create_blueprint(services, assistant))
    app.register_blueprint(studio_review.create_blueprint(services, reviews.index))


def may_open_sandbox() -> bool:
    """Whoever sits at this machine runs the pilot; but a member of staff sees there no more than on the desk."""
    member = find_member()
    return sandbox.comes_from_this_machine() and (member is None or (not member.districts and member.cleared))


def open_assistant(services: Services) -> Assistant:
    """Rasa inside this process, or the remote server named by RASA_URL."""
    if services.settings.rasa_url:
        return RemoteAssistant(services.settings)
    paths, started = models_to_serve(services), time.monotonic()

    def open_model() -> Assistant:
        from bot.embedded import open_embedded  # takes seconds and 400 MB, so only where it is used

        return open_embedded(paths)

    def tell() -> None:
        background.settle_memory()
        logger.info("ready after %.1f s", time.monotonic() - started)

    return LateAssistant(open_model, opened=tell)


def rate_limiter(settings: Settings) -> Callable[[str, str], bool]:
    """Messages a minute for one sender and, times ten, for one address; counted in Redis where there is one."""
    if not settings.rate_limit:
        return lambda sender, address: True
    store = storage.storage_from_string(settings.redis_url or "memory://")
    limiter = strategies.FixedWindowRateLimiter(store)  # holds the store by a weak reference only; allow() below keeps it
    one, many = RateLimitItemPerMinute(settings.rate_limit), RateLimitItemPerMinute(settings.rate_limit * 10)

    def allow(sender: str, address: str) -> bool:
        assert store is not None
        return limiter.hit(one, "sender", sender) and limiter.hit(many, "address", address)

    return allow


def start_background(
    services: Services, conversations: Conversations, assistant: Assistant, official_account: Turns
) -> background.Background:
    threads = background.Background()
    threads.run_jobs(JobRunner(services))
    threads.run_relay(Relay(services, build_transport(services, requests.Session())))
    delivery = official_account.delivery
    if services.settings.wechat_token:
        threads.repeat("wechat recovery", background.RECOVER_EVERY, official_account.resume)
    threads.repeat("recovery", background.RECOVER_EVERY, background.recovery(conversations, delivery.deliver_recovered))
    if services.settings.wechat_app_secret:
        threads.repeat("notices", background.RECOVER_EVERY, background.pushing(official_account.tell_news))
        threads.repeat("media", background.FETCH_MEDIA_EVERY, official_account.media.fetch_due)
    threads.repeat("hand-over", background.RELEASE_EVERY, background.release_idle(services))
    threads.repeat("search index", background.INDEX_EVERY, background.index_missing(services))
    threads.repeat("model watch", background.WATCH_MODELS_EVERY, background.model_watch(services, assistant))
    return threads


def add_operations(app: Flask, services: Services, metrics: Metrics, assistant: Assistant) -> None:
    """Health, readiness, metrics, and the timing of every turn."""

    @app.before_request
    def start_clock() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def count_turn(response: Response) -> Response:
        channel = {"/api/chat": "api", "/chat/messages": "web", "/wechat": "wechat"}.get(request.path)
        if channel and request.method == "POST" and response.status_code == 200:
            metrics.turns.labels(channel).inc()
            metrics.turn_seconds.observe(time.perf_counter() - g.started)
        return response

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        database, model = db.is_writable(services.engine), assistant.serving_model()
        ready = database and bool(model)
        return jsonify(status="ready" if ready else "not ready", database=database, model=model), 200 if ready else 503

    @app.get("/metrics")
    def show_metrics() -> Response:
        if not api.may_call(services.settings.api_token):
            return Response("", 401)
        return Response(metrics.render(), mimetype="text/plain; version=0.0.4")


def serve(settings: Settings) -> None:
    """Blocks until interrupted."""
    if not settings.rasa_url:  # with Rasa elsewhere this process only waits
        keep_to_one_core()
    app = create_app(settings)
    logger.info("http://%s:%d/chat takes messages; answers come as soon as the model is loaded", settings.host, settings.port)
    if settings.sandbox:
        logger.info("no DISPATCH_URL is set: the sandbox inbox is at http://%s:%d/sandbox", settings.host, settings.port)
    listen(app, settings)


def listen(app: Flask, settings: Settings) -> None:
    """Answers requests until interrupted."""
    background.settle_memory()
    waitress.serve(app, host=settings.host, port=settings.port, threads=THREADS, ident=None, max_request_body_size=MAX_REQUEST)


if __name__ == "__main__":
    serve(settings_from_environment())
