"""Errors as plain sentences: pages for people, JSON for programs, no stack trace for either.

A view says what is wrong with abort(code, "一句话"); codes without a sentence get one here.
"""
from __future__ import annotations

import logging
import traceback

from flask import Flask, Response, current_app, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from bot.conversation import APOLOGY_STORAGE
from bot.db import StorageError
from bot.web import add_page_headers

logger = logging.getLogger(__name__)

STAFF_PATHS = ("/desk", "/studio", "/login", "/logout")
JSON_PATHS = ("/api/", "/chat/", "/dispatch", "/healthz", "/readyz", "/openapi.json")
SENTENCES = {
    400: "这个请求看不懂，请检查后再试。",
    401: "请先登录。",
    403: "您没有权限做这件事。",
    404: "没有找到这个页面。",
    405: "这个地址不支持这种请求方式。",
    408: "等得太久了，请再试一次。",
    409: "内容刚刚被改过，请刷新后再试。",
    413: "内容太大了，请减少一些再发。",
    415: "这种格式不支持。",
    429: "请求太频繁，请稍等一会儿再试。",
    500: "我们这边出了点问题，请稍后再试。",
    503: "服务暂时不可用，请稍后再试。",
}
EXPIRED = "页面打开得太久，为了安全请返回上一页刷新后再试一次。"


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(CSRFError, lambda _error: _answer(400, EXPIRED))
    app.register_error_handler(StorageError, _storage_error)
    app.register_error_handler(Exception, _unexpected)


def _http_error(error: HTTPException) -> Response | HTTPException:
    code = error.code or 500
    if error.response is not None or code < 400:  # a redirect, or a view that answered in full
        return error
    fallback = SENTENCES.get(code, "这个请求无法完成。")
    ours = error.description and error.description != type(error).description
    # Flask and Werkzeug describe a few cases in English ("Failed to decode JSON object"); residents read Chinese.
    response = _answer(code, str(error.description) if ours and not str(error.description).isascii() else fallback)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value  # Allow, Retry-After
    return response


def _storage_error(error: StorageError) -> Response:
    logger.error("storage failed: %s", error, extra={"endpoint": request.endpoint})
    return _answer(503, APOLOGY_STORAGE)


def _unexpected(error: Exception) -> Response:
    # Neither the path (it may hold a tracking token) nor str(error) (it may quote a resident) goes into the log.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request failed: %s\n%s", type(error).__qualname__, frames, extra={"endpoint": request.endpoint})
    return _answer(500, SENTENCES[500])


def wants_json() -> bool:
    """Whether a program asks, or a page's script."""
    return request.path.startswith(JSON_PATHS) or request.is_json or request.accept_mimetypes.best == "application/json"


def _page(code: int, sentence: str) -> str:
    """Staff keep their own frame and find back to their work; residents are led to the conversation."""
    staff = request.path.startswith(STAFF_PATHS) and "minsheng_services" in current_app.extensions
    back = request.referrer if request.referrer and request.referrer.startswith(request.host_url) else None
    if not staff:
        return render_template("error.html", code=code, sentence=sentence)
    return render_template("staff_error.html", code=code, sentence=sentence, back=back if back != request.url else None)


def _answer(code: int, sentence: str) -> Response:
    page = None if wants_json() else _page(code, sentence)
    response = jsonify(error=sentence) if page is None else make_response(page)
    response.status_code = code
    return add_page_headers(response)
