"""What our pages need inside WeChat: the address of a web login, the person behind it, the signature for the JS-SDK. Knows no Flask.

That person is the one who writes to the account. A conversation's id comes from the account's name and the openid, and a login
tells the openid only: so the name is kept from the account's messages.
"""
from __future__ import annotations

import hashlib
import secrets
from urllib.parse import urlencode

from sqlalchemy import select, text

from bot.db import reading, transaction
from bot.schema import wechat_accounts
from bot.services import Services
from bot.wechat_api import WeChatClient

LOGIN_PATH = "/wechat/login"  # where the platform sends a resident back to

_NOTE_NAME = text(
    "INSERT INTO wechat_account (app_id, name) VALUES (:app, :name) ON CONFLICT (app_id) DO UPDATE SET name = :name"
)


class AccountName:
    """The account as its messages name it (gh_…), for all processes."""

    def __init__(self, services: Services) -> None:
        self._services, self._app_id, self._noted = services, services.settings.wechat_app_id, ""

    def note(self, name: str) -> None:
        """Raises StorageError."""
        if name == self._noted or not self._app_id:
            return
        with transaction(self._services.engine, durable=False) as connection:
            connection.execute(_NOTE_NAME, {"app": self._app_id, "name": name[:64]})
        self._noted = name

    def find(self) -> str:
        """Empty before the first message that ever came. Raises StorageError."""
        mine = wechat_accounts.c.app_id == self._app_id
        with reading(self._services.engine) as connection:
            return connection.execute(select(wechat_accounts.c.name).where(mine)).scalar() or ""


class WeChatPages:
    def __init__(self, services: Services, client: WeChatClient) -> None:
        self._services, self._settings, self._client = services, services.settings, client
        self._name = AccountName(services)

    def login_address(self, state: str) -> str:
        """Where WeChat says, without asking anybody anything, who looks at the page."""
        wanted = {
            "appid": self._settings.wechat_app_id,
            "redirect_uri": self._settings.base_url + LOGIN_PATH,
            "response_type": "code",
            "scope": "snsapi_base",
            "state": state,
        }  # in this order, which the platform insists on
        return f"{self._settings.wechat_open_base.rstrip('/')}/connect/oauth2/authorize?{urlencode(wanted)}#wechat_redirect"

    def fetch_openid(self, code: str) -> str:
        """Raises WeChatError, SnapshotUser."""
        return self._client.fetch_openid(code)

    def find_conversation(self, openid: str) -> str:
        """The conversation that this person has with the account; empty while nobody has one. Raises StorageError."""
        name = self._name.find()
        return self._services.vault.pseudonym("wechat", name, openid) if name else ""

    def sign(self, url: str) -> dict[str, str]:
        """What the JS-SDK is configured with on the page at `url`. Raises WeChatError."""
        nonce, timestamp = secrets.token_hex(8), str(int(self._services.now().timestamp()))
        signature = signature_of(self._client.jsapi_ticket(), nonce, timestamp, url)
        return {"appId": self._settings.wechat_app_id, "timestamp": timestamp, "nonceStr": nonce, "signature": signature}


def signature_of(ticket: str, nonce: str, timestamp: str, url: str) -> str:
    """https://developers.weixin.qq.com/doc/service/guide/h5/jssdk.html, appendix 1. What follows # is no part of the address."""
    signed = f"jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={url.partition('#')[0]}"
    return hashlib.sha1(signed.encode()).hexdigest()
