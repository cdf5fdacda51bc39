"""HTTP to the platform: calls in JSON, downloads, and errors that never carry an address. Knows no endpoint and no token.

Addresses hold tokens, secrets and codes of logins, so the original exceptions are dropped on purpose.
"""
from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import requests
from urllib3.exceptions import NewConnectionError

TIMEOUT_SECONDS = 5
BUSY = -1


class WeChatError(Exception):
    """A request that is not acceptable, or a call that failed. Never carries secrets, tokens, openids or text.

    `code` is the platform's errcode when it answered with one; `unsure` means that the call may have taken effect all the same.
    """

    def __init__(self, reason: str, *, code: int | None = None, unsure: bool = False) -> None:
        super().__init__(reason)
        self.code, self.unsure = code, unsure


# For who runs a command. https://developers.weixin.qq.com/doc/offiaccount/Getting_Started/Global_Return_Code.html
_MEANINGS = (
    ((40013, 40125), "app id or app secret is wrong"),
    ((40164,), "the address of this machine is not in the account's IP white list (IP 白名单)"),
    ((48001,), "the account has no permission for this; it has to be a verified service account (认证服务号)"),
    ((45009,), "the day's calls are used up; try again tomorrow"),
    ((40015, 40017, 40024), "a button is of a type that this account may not use"),
    ((40016,), "there must be one to three main buttons"),
    ((40018,), "the name of a main button is too long (16 bytes, five Chinese characters) or empty"),
    ((40025,), "the name of a sub-button is too long (60 bytes, twenty Chinese characters) or empty"),
    ((40019, 40026), "the key of a button is too long (128 bytes) or empty"),
    ((40020, 40027), "the address of a button is too long (1024 bytes) or empty"),
    ((40022,), "sub-buttons cannot have buttons of their own"),
    ((40023,), "a main button has more than five sub-buttons"),
    ((40054, 40055), "the address of a button is not one that the account may open"),
    ((-1,), "the platform is busy; try again in a minute"),
)


def explain(error: WeChatError) -> str:
    """The error, with what its code means to the owner of the account."""
    meaning = next((text for codes, text in _MEANINGS if error.code in codes), "")
    return f"WeChat: {error}" + (f" ({meaning})" if meaning else "")


class PlatformHttp:
    """One session for all threads of a process."""

    def __init__(self, base: str) -> None:
        self._base, self._session = base.rstrip("/"), requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=16))
        logging.getLogger("urllib3.connectionpool").addFilter(_redact_secrets)  # its debug lines carry whole URLs

    def ask(self, path: str, payload: Mapping[str, Any] | None = None, **params: str) -> Mapping[str, Any]:
        """The platform's JSON to a POST, or to a GET without payload. Raises WeChatError."""
        failure = None
        try:
            answer = self._session.request(
                "GET" if payload is None else "POST",
                self._base + path,
                params=params,
                # Escaped characters would reach the resident as \uXXXX.
                data=None if payload is None else json.dumps(payload, ensure_ascii=False).encode(),
                headers={"Content-Type": "application/json; charset=utf-8"},
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
            data = answer.json()
        except requests.exceptions.JSONDecodeError:
            failure = WeChatError(f"{path} answered {answer.status_code} without JSON", unsure=answer.status_code == 504)
        except requests.RequestException as error:
            failure = WeChatError(f"{path} failed: {type(error).__name__}", unsure=not _never_left(error))
        if failure is None and not (answer.ok and isinstance(data, dict)):
            # A gateway's error page: only with 504 may the request have gone through behind it.
            failure = WeChatError(f"{path} answered {answer.status_code}", unsure=answer.status_code == 504)
        if failure is not None:
            raise failure
        found: Mapping[str, Any] = data
        return found

    def download(self, path: str, *, limit: int, **params: str) -> bytes | dict[str, Any]:
        """A file, or the JSON that came instead. Raises WeChatError, with code 45001 when it is larger than `limit` bytes."""
        return self.download_from(self._base + path, limit=limit, **params)

    def download_from(self, url: str, *, limit: int, **params: str) -> bytes | dict[str, Any]:
        failure = None
        try:
            with self._session.get(url, params=params, timeout=TIMEOUT_SECONDS, stream=True, allow_redirects=False) as answer:
                status, kind, body = answer.status_code, answer.headers.get("Content-Type", ""), b""
                for chunk in answer.iter_content(65536):
                    body += chunk
                    if len(body) > limit:
                        break
        except requests.RequestException as error:
            failure = WeChatError(f"media/get failed: {type(error).__name__}")
        if failure is None and status != 200:
            failure = WeChatError(f"media/get answered {status}")
        if failure is None and len(body) > limit:
            failure = WeChatError("media is too large", code=45001)
        if failure is not None:
            raise failure
        if "json" in kind or kind.startswith("text/"):
            return _json_object(body)
        return body


def code_of(answer: Mapping[str, Any]) -> int:
    """The errcode; 0 when there is none."""
    code = answer.get("errcode", 0)
    return code if isinstance(code, int) else BUSY


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"errcode": BUSY}


def _never_left(error: requests.RequestException) -> bool:
    """Whether the request certainly did not reach the platform."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)


_SECRET_PARAMETER = re.compile(r"((?:access_token|media_id|secret|code)=)[^&\s]+")


def _redact_secrets(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_SECRET_PARAMETER.sub(r"\1***", value) if isinstance(value, str) else value for value in record.args)
    return True
