"""All settings of a running service; the only module that reads the environment.

Values come from `MINSHENG_*` variables or a `.env` file in the working directory. `.env.example` lists every one of them
(a test keeps the two in step).
"""
from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from dotenv import dotenv_values

PREFIX = "MINSHENG_"
PROJECT_ROOT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting has a value that cannot work; the message names the variable."""


@dataclass(frozen=True)
class Settings:
    """One field per variable, lower case. Empty text means "not set"."""

    host: str = "127.0.0.1"
    port: int = 5005
    city: str = "huaian"
    database_url: str = ""
    redis_url: str = ""
    rasa_url: str = ""
    public_url: str = ""
    dispatch_url: str = ""
    dispatch_secret: str = ""
    dispatch_protocol: str = "webhook"
    dispatch_api_key: str = ""
    wechat_app_id: str = ""
    wechat_app_secret: str = ""
    wechat_token: str = ""
    wechat_aes_key: str = ""
    wechat_aes_key_previous: str = ""
    wechat_api_base: str = "https://api.weixin.qq.com"
    wechat_open_base: str = "https://open.weixin.qq.com"
    wechat_jssdk_url: str = "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"
    wechat_template: str = ""
    wechat_subscription: str = ""
    asr_url: str = ""
    secret_key: str = ""
    var_dir: Path = PROJECT_ROOT / "var"
    models_dir: Path = PROJECT_ROOT / "models"
    api_token: str = ""
    rate_limit: int = 30
    # So many minutes a resident waits for the person who has taken their conversation; then the bot goes on.
    handover_minutes: int = 5
    # Lanes of the calibrated category confidence: from `lane_file` filed as read, from `lane_suggest` the resident is shown
    # the likely other classes, below it a person checks. The curve behind them: `make bench-nlu`.
    lane_file: float = 0.6
    lane_suggest: float = 0.35

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.var_dir / 'minsheng.db'}"

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def pages_in_wechat(self) -> bool:
        """Whether pages opened inside WeChat can know who looks at them and use the phone; both hang on their public address."""
        return bool(self.wechat_app_id and self.wechat_app_secret and self.public_url)

    @property
    def sandbox(self) -> bool:
        """True when no dispatch system is configured and the built-in inbox stands in for it."""
        return not self.dispatch_url

    @property
    def attachments_dir(self) -> Path:
        return self.var_dir / "attachments"


def load_settings(environ: Mapping[str, str], *, env_file: Path | None = None) -> Settings:
    """Settings from `environ` over `env_file`. Raises SettingsError. Creates VAR_DIR and a secret key when there is none."""
    values: dict[str, str] = {}
    if env_file is not None and env_file.is_file():
        values.update({key: value or "" for key, value in dotenv_values(env_file).items()})
    values.update(environ)
    given = {
        field.name: _convert(field.name, values[PREFIX + field.name.upper()].strip())
        for field in fields(Settings)
        if values.get(PREFIX + field.name.upper(), "").strip()
    }
    settings = Settings(**given)  # type: ignore[arg-type]
    _check(settings)
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    if settings.secret_key and settings.dispatch_secret:
        return settings
    # A secret kept in VAR_DIR survives restarts: personal data encrypted yesterday must be readable today.
    secret_key = settings.secret_key or _stored_secret(settings.var_dir / "secret_key")
    dispatch_secret = settings.dispatch_secret or ("whsec_" + _stored_secret(settings.var_dir / "dispatch_secret"))
    return Settings(**{**given, "secret_key": secret_key, "dispatch_secret": dispatch_secret})  # type: ignore[arg-type]


def settings_from_environment() -> Settings:
    return load_settings(os.environ, env_file=Path(".env"))


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that is to work with these settings."""
    ours = {PREFIX + field.name.upper(): str(getattr(settings, field.name)) for field in fields(Settings)}
    return {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), **ours}


def _convert(name: str, text: str) -> object:
    if name in ("port", "rate_limit", "handover_minutes"):
        try:
            return int(text)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name.upper()} must be a whole number, not {text!r}") from None
    if name in ("lane_file", "lane_suggest"):
        try:
            return float(text)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name.upper()} must be a number between 0 and 1, not {text!r}") from None
    if name in ("var_dir", "models_dir"):
        return Path(text).expanduser().resolve()
    return text


def _check(settings: Settings) -> None:
    if settings.dispatch_protocol not in ("webhook", "open311"):
        raise SettingsError(f"{PREFIX}DISPATCH_PROTOCOL must be webhook or open311")
    if not 0 <= settings.port <= 65535:
        raise SettingsError(f"{PREFIX}PORT must lie between 0 and 65535")
    if settings.rate_limit < 0:
        raise SettingsError(f"{PREFIX}RATE_LIMIT must be 0 (off) or more")
    if settings.handover_minutes < 1:
        raise SettingsError(f"{PREFIX}HANDOVER_MINUTES must be 1 or more")
    if not 0 <= settings.lane_suggest <= settings.lane_file <= 1:
        raise SettingsError(f"{PREFIX}LANE_SUGGEST and {PREFIX}LANE_FILE must lie between 0 and 1, the first not above the second")
    for name in ("wechat_aes_key", "wechat_aes_key_previous"):
        if getattr(settings, name) and len(getattr(settings, name)) != 43:
            raise SettingsError(f"{PREFIX}{name.upper()} must have 43 characters, as shown in the account's console")
    for name in ("dispatch_url", "rasa_url", "public_url", "wechat_api_base", "wechat_open_base", "wechat_jssdk_url", "asr_url"):
        value = getattr(settings, name)
        if value and not value.startswith(("http://", "https://")):
            raise SettingsError(f"{PREFIX}{name.upper()} must start with http:// or https://")


def _stored_secret(path: Path) -> str:
    """The secret in `path`, made on first use. Two processes starting together agree on one: the first link wins."""
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)).decode())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text().strip()
