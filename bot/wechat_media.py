"""Pictures, videos and voice of the official account: fetched from the platform within its three days, checked, kept or read.

A picture is painted anew, a video loses its metadata, so place and device stay unknown. What is to be fetched stands in a
table before the message is acknowledged; a crash or an unreachable platform only delays it.
"""
from __future__ import annotations

import hashlib
import logging
import struct
import uuid
from datetime import timedelta

import requests
from sqlalchemy import bindparam, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from bot.conversation import MAX_TEXT, InboundMessage, message_from_dict
from bot.db import iso, parse_iso, reading, transaction
from bot.pictures import MAX_PICTURE_BYTES, BadPicture, clean_picture, write_file
from bot.schema import attachments, notices, wechat_media
from bot.services import Services
from bot.wechat import Media
from bot.wechat_api import WeChatClient
from bot.wechat_http import WeChatError
from bot.wechat_text import clean

logger = logging.getLogger(__name__)

MAX_VIDEO_BYTES, MAX_VOICE_BYTES = 20 * 1024 * 1024, 2 * 1024 * 1024
_KEPT_BY_PLATFORM = timedelta(days=3)
_LEASE = timedelta(seconds=120)  # longer than one download may take
_LONGEST_PAUSE = 3600.0
_ASR_SECONDS = 10
_MAX_LISTENING = 3
_GONE = (40007, 45001)  # no such media any more; larger than we take
_NOT_KEPT = {
    "picture": "您发的照片没能取下来，请重新发一次（不超过 10 MB）；也可以打字说明情况。",
    "video": "您发的视频没能取下来，请发短一点的视频或几张照片；也可以打字说明情况。",
}
_CLAIM = (
    update(wechat_media)
    .where(wechat_media.c.id == bindparam("media"), wechat_media.c.state == "waiting")
    .where(wechat_media.c.next_attempt_at == bindparam("known"))
    .values(next_attempt_at=bindparam("until"), attempts=wechat_media.c.attempts + 1)
)


class MediaKeeper:
    def __init__(self, services: Services, client: WeChatClient) -> None:
        self._services, self._client, self._session = services, client, requests.Session()

    # -- noting what came -----------------------------------------------------------------------------------------

    def note_attachment(self, conversation_id: str, message: InboundMessage, media: Media) -> str:
        """The id of the attachment that a picture or video will be; the same however often the message comes."""
        media_id = self._id(conversation_id, message)
        try:
            with transaction(self._services.engine, durable=False) as connection:  # storing the message flushes
                kind = "image/jpeg" if media.kind == "picture" else "video/mp4"
                connection.execute(
                    attachments.insert().values(
                        id=media_id, conversation_id=conversation_id, media_type=kind, size=0, sha256="", created_at=self._now()
                    )
                )
                self._insert(conversation_id, media_id, media.kind, {"media_id": media.media_id})
        except IntegrityError:  # noted before
            pass
        return media_id

    def note_voice(self, conversation_id: str, message: InboundMessage, media: Media) -> tuple[str, bool]:
        """The note's id, and whether it is new. What was said is not known yet; the message is complete once it is heard."""
        media_id = self._id(conversation_id, message)
        try:
            with transaction(self._services.engine):  # on the disk before the platform hears `success`
                self._insert(conversation_id, media_id, "voice", {"media_id": media.media_id, "message": vars(message)}, leased=True)
        except IntegrityError:
            return media_id, False
        return media_id, True

    def find_voice(self, conversation_id: str, message: InboundMessage) -> timedelta | None:
        """How long ago this voice message came first."""
        with reading(self._services.engine) as connection:
            row = connection.execute(
                select(wechat_media.c.created_at).where(wechat_media.c.id == self._id(conversation_id, message))
            ).first()
        return self._services.now() - parse_iso(row.created_at) if row else None

    def _insert(self, conversation_id: str, media_id: str, kind: str, body: dict[str, object], *, leased: bool = False) -> None:
        with transaction(self._services.engine, durable=False) as connection:
            connection.execute(
                wechat_media.insert().values(
                    id=media_id,
                    conversation_id=conversation_id,
                    kind=kind,
                    body=self._services.vault.seal(body),
                    state="waiting",
                    attempts=0,
                    next_attempt_at=iso(self._services.now() + _LEASE) if leased else self._now(),
                    created_at=self._now(),
                )
            )

    @staticmethod
    def _id(conversation_id: str, message: InboundMessage) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{conversation_id}:{message.message_id}"))

    # -- pictures and videos --------------------------------------------------------------------------------------

    def fetch_due(self) -> None:
        """Fetch every picture and video whose time has come; for a thread that repeats."""
        if not self._services.settings.wechat_app_secret:
            return
        for row in self._due("picture", "video"):
            if self._claim(row):
                self._fetch(row)

    def _fetch(self, row: Row) -> None:
        """One attempt. Any failure is either final, and the resident hears of it, or tried again later."""
        media_id = self._services.vault.open(row.body)["media_id"]
        try:
            content = self._cleaned(row.kind, media_id)
            write_file(self._services.settings.attachments_dir / f"{row.id}{'.jpg' if row.kind == 'picture' else '.mp4'}", content)
        except (BadPicture, BadVideo) as error:
            return self._fail(row, type(error).__name__)
        except (WeChatError, OSError) as error:
            reason = str(error) if isinstance(error, WeChatError) else type(error).__name__
            if isinstance(error, WeChatError) and error.code in _GONE:
                return self._fail(row, reason)
            return self._postpone(row, reason)
        with transaction(self._services.engine) as connection:
            connection.execute(
                update(attachments)
                .where(attachments.c.id == row.id)
                .values(size=len(content), sha256=hashlib.sha256(content).hexdigest())
            )
            connection.execute(update(wechat_media).where(wechat_media.c.id == row.id).values(state="kept", reason=None))
        logger.info("%s kept", row.kind, extra={"conversation": row.conversation_id})

    def _cleaned(self, kind: str, media_id: str) -> bytes:
        if kind == "picture":
            return clean_picture(self._client.download_media(media_id, limit=MAX_PICTURE_BYTES))
        return clean_video(self._client.download_media(media_id, limit=MAX_VIDEO_BYTES))

    def _postpone(self, row: Row, reason: str) -> None:
        now = self._services.now()
        if now - parse_iso(row.created_at) > _KEPT_BY_PLATFORM:
            return self._fail(row, "expired")
        logger.warning("%s not fetched yet: %s", row.kind, reason, extra={"conversation": row.conversation_id})
        pause = timedelta(seconds=min(10.0 * 2**row.attempts, _LONGEST_PAUSE))
        with transaction(self._services.engine) as connection:
            connection.execute(
                update(wechat_media).where(wechat_media.c.id == row.id).values(next_attempt_at=iso(now + pause), reason=reason[:120])
            )

    def _fail(self, row: Row, reason: str) -> None:
        logger.warning("%s given up: %s", row.kind, reason, extra={"conversation": row.conversation_id})
        with transaction(self._services.engine) as connection:
            connection.execute(update(wechat_media).where(wechat_media.c.id == row.id).values(state="failed", reason=reason[:120]))
            sealed = self._services.vault.seal(_NOT_KEPT[row.kind])
            connection.execute(
                notices.insert().values(conversation_id=row.conversation_id, text=sealed, created_at=self._now())
            )

    # -- voice ----------------------------------------------------------------------------------------------------

    def due_voices(self) -> list[tuple[str, InboundMessage]]:
        """Voice messages that a crash left unheard, claimed for this process."""
        return [
            (row.id, message_from_dict(self._services.vault.open(row.body)["message"])) for row in self._due("voice") if self._claim(row)
        ]

    def listen(self, note_id: str) -> str:
        """The words of a noted voice message; empty when there is no telling. Retries a little, because the resident waits."""
        with reading(self._services.engine) as connection:
            row = connection.execute(select(wechat_media).where(wechat_media.c.id == note_id)).first()
        if row is None:
            return ""
        media_id = self._services.vault.open(row.body)["media_id"]
        for attempt in range(_MAX_LISTENING):
            try:
                return self._transcribe(self._client.download_media(media_id, limit=MAX_VOICE_BYTES))
            except WeChatError as error:
                logger.warning("voice not heard (%d): %s", attempt + 1, error, extra={"conversation": row.conversation_id})
                if error.code is not None:
                    return ""
        return ""

    def settle_voice(self, note_id: str) -> None:
        """Heard, or never to be: the sealed message is not needed any more."""
        with transaction(self._services.engine, durable=False) as connection:
            nothing = self._services.vault.seal({})
            connection.execute(update(wechat_media).where(wechat_media.c.id == note_id).values(state="kept", body=nothing))

    def _transcribe(self, audio: bytes) -> str:
        """POST the audio as it is (AMR), get {"text": …}. Raises WeChatError."""
        failure = None
        try:
            answer = self._session.post(
                self._services.settings.asr_url,
                data=audio,
                headers={"Content-Type": "audio/amr", "Accept": "application/json"},
                timeout=_ASR_SECONDS,
                allow_redirects=False,
            )
            found = answer.json() if answer.status_code == 200 else {}
            if answer.status_code != 200:
                failure = f"the recogniser answered {answer.status_code}"
        except (requests.RequestException, ValueError) as error:
            failure = f"the recogniser failed: {type(error).__name__}"
        if failure is not None:
            raise WeChatError(failure)
        text = found.get("text") if isinstance(found, dict) else None
        return clean(text).strip()[:MAX_TEXT] if isinstance(text, str) else ""

    # -- rows -----------------------------------------------------------------------------------------------------

    def _due(self, *kinds: str) -> list[Row]:
        with reading(self._services.engine) as connection:
            return list(
                connection.execute(
                    select(wechat_media)
                    .where(wechat_media.c.state == "waiting", wechat_media.c.kind.in_(kinds))
                    .where(wechat_media.c.next_attempt_at <= self._now())
                    .order_by(wechat_media.c.next_attempt_at)
                    .limit(50)
                )
            )

    def _claim(self, row: Row) -> bool:
        until = iso(self._services.now() + _LEASE)
        with transaction(self._services.engine, durable=False) as connection:
            claimed = connection.execute(_CLAIM, {"media": row.id, "known": row.next_attempt_at, "until": until})
        return bool(claimed.rowcount == 1)

    def _now(self) -> str:
        return iso(self._services.now())


# -- videos -----------------------------------------------------------------------------------------------------------


class BadVideo(ValueError):
    """Not a video file that we know."""


_WITH_BOXES_INSIDE = (b"moov", b"trak")
_TELLING = (b"udta", b"meta", b"uuid")  # place, device, names


def clean_video(data: bytes) -> bytes:
    """An MP4 with its descriptive boxes blanked; nothing moves, so the rest plays as before. Raises BadVideo."""
    if data[4:8] != b"ftyp":
        raise BadVideo("no MP4")
    cleaned = bytearray(data)
    _blank_telling(cleaned, 0, len(cleaned))
    return bytes(cleaned)


def _blank_telling(data: bytearray, start: int, end: int) -> None:
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= end:
            size, header = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:  # to the end of the file
            size = end - start
        if size < header or start + size > end:
            raise BadVideo("broken box")
        if name in _TELLING:
            data[start + header : start + size] = bytes(size - header)
            data[start + 4 : start + 8] = b"free"
        elif name in _WITH_BOXES_INSIDE:
            _blank_telling(data, start + header, start + size)
        start += size

