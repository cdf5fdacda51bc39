"""Standard Webhooks signatures, out and in: https://github.com/standard-webhooks/standard-webhooks (v1, HMAC-SHA256).

Knows bytes and headers, nothing of HTTP or tickets. The reference library reads the clock itself and takes a secret
without prefix as base64 only, hence the forty lines of our own; the tests hold them against that library.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime

from bot.settings import SettingsError

TOLERANCE_SECONDS = 300
_PREFIX = "whsec_"
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
# `id.timestamp.body` is what is signed: an id free of quotes and braces cannot swallow a piece of another message's body.
_WEBHOOK_ID = re.compile(r"[A-Za-z0-9._:~+/=@-]{1,255}")


class SignatureError(ValueError):
    """The message is forged, damaged, or too old to be trusted. Callers must not tell the sender which."""


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header; `timestamp` in Unix seconds. Two signatures where the secret can be read in two ways."""
    return " ".join(_signature(key, webhook_id, str(timestamp), body) for key in signing_keys(secret))


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raises SignatureError unless one of the signatures fits and the timestamp lies within five minutes of `now`."""
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    candidates = given.get("webhook-signature", "").split(" ")
    if not _WEBHOOK_ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureError("missing or malformed headers")
    expected = [_signature(key, webhook_id, timestamp, body) for key in signing_keys(secret)]
    # Every pair is compared: the time taken says nothing about which one came close.
    fits = [hmac.compare_digest(mine.encode(), theirs.encode()) for mine in expected for theirs in candidates]
    if not any(fits):
        raise SignatureError("no signature fits")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        raise SignatureError("timestamp outside the tolerance")


def signing_keys(secret: str) -> list[bytes]:
    """The HMAC keys a secret may mean, most likely first. Raises SettingsError for one that cannot work.

    `whsec_` marks base64. Without it senders disagree: some take the text as it stands, the reference libraries decode it.
    """
    if secret.startswith(_PREFIX):
        key = _decode(secret[len(_PREFIX) :])
        if not key:
            raise SettingsError("MINSHENG_DISPATCH_SECRET must be base64 after whsec_")
        return [key]
    if not secret:
        raise SettingsError("MINSHENG_DISPATCH_SECRET must not be empty")
    raw, decoded = secret.encode(), _decode(secret)
    # Decoding skips foreign characters; a secret made mostly of those would leave a key that can be guessed.
    return [raw, decoded] if len(decoded) * 2 >= len(raw) else [raw]


def _decode(text: str) -> bytes:
    """Base64 as the reference libraries read it: padding optional, foreign characters skipped. Empty when it cannot be read."""
    try:
        return base64.b64decode(text + "==")
    except ValueError:
        return b""


def _signature(key: bytes, webhook_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
