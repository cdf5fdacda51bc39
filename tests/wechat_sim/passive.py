"""The platform's strict reading of what an account answers inside the callback."""
from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from tests.wechat_platform import Account, signature

MAX_TEXT_BYTES = 2048
_ENVELOPE = ("Encrypt", "MsgSignature", "Nonce", "TimeStamp")
_REPLY = ("Content", "CreateTime", "FromUserName", "MsgType", "ToUserName")


class BadAnswer(Exception):
    """The resident sees the fault sentence. The text is the reason, without words of the resident."""


def read_answer(account: Account, openid: str, body: bytes, content_type: str, *, encrypted: bool, optional: bool = False) -> str | None:
    """The words of the passive reply; None for `success` or nothing. With `optional` the reply may be plain as well."""
    text = _utf8(body)
    plain = content_type.partition(";")[0].strip() == "text/plain"
    if text in ("", "success"):
        _demand(plain or not text, "success is not sent as plain text")
        return None
    _demand("xml" in content_type, "a reply without an XML content type")
    fields = _elements(text)
    if encrypted and not (optional and "Encrypt" not in fields):
        fields = _elements(_opened(account, fields))
    return _words(account, openid, fields)


def _opened(account: Account, fields: Mapping[str, str]) -> str:
    _demand(tuple(sorted(fields)) == _ENVELOPE, "not an encrypted envelope")
    signed = signature(account.token, fields["TimeStamp"], fields["Nonce"], fields["Encrypt"])
    _demand(signed == fields["MsgSignature"], "wrong MsgSignature")
    try:
        return account.decrypt(fields["Encrypt"])
    except Exception:  # whatever a wrong key makes of it
        raise BadAnswer("cannot be decrypted") from None


def _words(account: Account, openid: str, fields: Mapping[str, str]) -> str:
    _demand(tuple(sorted(fields)) == _REPLY, "elements of a text reply are missing, or there are others")
    _demand(fields["ToUserName"] == openid, "ToUserName is not the resident")
    _demand(fields["FromUserName"] == account.name, "FromUserName is not the account")
    _demand(fields["CreateTime"].isdecimal(), "CreateTime is no number")
    _demand(fields["MsgType"] == "text", "MsgType is not text")
    _demand(bool(fields["Content"].strip()), "empty Content")
    _demand(len(fields["Content"].encode()) <= MAX_TEXT_BYTES, "Content is longer than 2048 bytes")
    return fields["Content"]


def _elements(text: str) -> dict[str, str]:
    _demand("<!DOCTYPE" not in text, "DOCTYPE")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        raise BadAnswer("malformed XML") from None
    _demand(root.tag == "xml" and not any(len(child) for child in root), "not the XML of a reply")
    names = [child.tag for child in root]
    _demand(len(names) == len(set(names)), "an element occurs twice")
    return {child.tag: child.text or "" for child in root}


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadAnswer("not UTF-8") from None


def _demand(condition: bool, reason: str) -> None:
    if not condition:
        raise BadAnswer(reason)
