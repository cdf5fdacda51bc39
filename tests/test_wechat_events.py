"""What the official account does with media, voice, taps and comings and goings of followers; a real platform on loopback."""
from __future__ import annotations

import io
import json
import struct
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from PIL import Image
from sqlalchemy import update

from bot.conversation import InboundMessage
from bot.db import iso, migrate, open_engine, transaction
from bot.pictures import PICTURE_SIDE
from bot.schema import attachments, inbound_messages, metadata, wechat_contacts, wechat_media, wechat_subscriptions
from bot.schema import conversations as conversation_table
from bot.settings import load_settings
from bot.wechat_media import BadVideo, clean_video
from bot.wechat_turns import ASK_TO_TYPE
from tests.wechat_channel import ACCOUNT, Channel, MakeChannel, wait_until
from tests.wechat_platform import RESIDENT, Platform

pytest_plugins = ("tests.wechat_channel",)


# -- pictures and videos ----------------------------------------------------------------------------------------------


def photo(side: int = 2400) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "SecretPhone"
    exif.get_ifd(0x8825)[2] = (33.0, 35.0, 24.0)  # GPS latitude
    target = io.BytesIO()
    Image.new("RGB", (side, side // 2), "red").save(target, "JPEG", exif=exif)
    return target.getvalue()


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def video() -> bytes:
    telling = box(b"udta", box(b"\xa9xyz", b"+33.59+119.02/"))
    track = box(b"trak", box(b"tkhd", b"t" * 20) + box(b"meta", b"SecretPhone"))
    return box(b"ftyp", b"isomiso2") + box(b"moov", box(b"mvhd", b"m" * 20) + track + telling) + box(b"mdat", b"pictures" * 100)


def stored(channel: Channel) -> list[Path]:
    directory = channel.services.settings.attachments_dir
    return sorted(directory.iterdir()) if directory.is_dir() else []


def test_picture_is_fetched_cleaned_and_kept_once(channel: Channel, platform: Platform) -> None:
    platform.media["m1"] = ("image/jpeg", photo())
    message = ACCOUNT.message("image", PicUrl="http://127.0.0.1:1/never", MediaId="m1")
    assert channel.heard(message) == channel.heard(message) == "收到："
    (turn,) = channel.assistant.turns
    assert platform.downloads == [], "the answer does not wait for the download"
    for _ in range(2):
        channel.turns.media.fetch_due()
    (row,) = channel.table(attachments)
    (path,) = stored(channel)
    assert (turn.kind, turn.metadata["attachment"], path.name) == ("picture", row.id, f"{row.id}.jpg")
    assert row.size == path.stat().st_size > 0 and len(row.sha256) == 64 and platform.downloads == ["m1"]
    with Image.open(path) as image:
        assert image.width == PICTURE_SIDE and not image.getexif()
    assert b"SecretPhone" not in path.read_bytes()


def test_video_is_fetched_from_where_the_platform_says_and_loses_its_metadata(channel: Channel, platform: Platform) -> None:
    platform.media["v1"] = ("video/mp4", video())
    channel.heard(ACCOUNT.message("video", MediaId="v1", ThumbMediaId="t"))
    channel.turns.media.fetch_due()
    (path,) = stored(channel)
    content = path.read_bytes()
    assert path.suffix == ".mp4" and len(content) == len(video()) and b"pictures" * 100 in content
    assert b"SecretPhone" not in content and b"119.02" not in content and content.count(b"free") == 2


@pytest.mark.parametrize("data", [b"", b"MZ" * 100, box(b"ftyp", b"isom") + struct.pack(">I4s", 9999, b"moov")])
def test_what_is_no_video_is_refused(data: bytes) -> None:
    with pytest.raises(BadVideo):
        clean_video(data)


@pytest.mark.parametrize(
    ("kind", "media"),
    [
        ("image", ("image/jpeg", b"<script>alert(1)</script>")),
        ("image", ("image/jpeg", b"\xff\xd8" + b"x" * 11_000_000)),
        ("image", None),
        ("video", ("video/mp4", b"MZ" * 100)),
    ],
)
def test_what_cannot_be_kept_is_told_to_the_resident(
    channel: Channel, platform: Platform, kind: str, media: tuple[str, bytes] | None
) -> None:
    if media is not None:
        platform.media["m1"] = media
    channel.heard(ACCOUNT.message(kind, MediaId="m1"))
    for _ in range(2):
        channel.turns.media.fetch_due()
    assert stored(channel) == [] and [row.state for row in channel.table(wechat_media)] == ["failed"]
    channel.delivery.deliver_notices()
    (told,) = platform.texts()
    assert "没能取下来" in told


def test_download_is_tried_again_until_the_platform_has_deleted_it(channel: Channel, platform: Platform) -> None:
    platform.media["m1"] = ("image/jpeg", photo(40))
    channel.heard(ACCOUNT.message("image", MediaId="m1"))
    platform.stop()
    channel.turns.media.fetch_due()
    (row,) = channel.table(wechat_media)
    assert (row.state, row.attempts) == ("waiting", 1) and row.next_attempt_at > iso(channel.services.now())
    with transaction(channel.services.engine) as connection:
        old, now = channel.services.now() - timedelta(days=3, hours=1), channel.services.now()
        connection.execute(update(wechat_media).values(created_at=iso(old), next_attempt_at=iso(now)))
    channel.turns.media.fetch_due()
    assert channel.table(wechat_media)[0].state == "failed"


# -- voice ------------------------------------------------------------------------------------------------------------


class Recogniser:
    """A city's speech recogniser: answers `words` for every audio."""

    def __init__(self) -> None:
        self.words: Any = "楼道灯坏了"
        self.status, self.heard, self.delay = 200, list[bytes](), threading.Event()
        self.delay.set()
        recogniser = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "audio/amr"
                recogniser.heard.append(self.rfile.read(int(self.headers["Content-Length"])))
                recogniser.delay.wait(5)
                answer = json.dumps({"text": recogniser.words}).encode()
                self.send_response(recogniser.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/asr"


@pytest.fixture
def recogniser() -> Iterator[Recogniser]:
    running = Recogniser()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def voice(platform: Platform) -> dict[str, Any]:
    platform.media["v16"] = ("voice/amr", b"#!AMR\nsound")
    return ACCOUNT.message("voice", MediaId="v8", MediaId16K="v16", Format="amr", Recognition="")


def test_voice_becomes_words_and_goes_on_as_text(make_channel: MakeChannel, recogniser: Recogniser, voice: dict[str, Any]) -> None:
    channel = make_channel(asr_url=recogniser.url)
    assert [channel.heard(voice) for _ in range(3)] == ["收到：楼道灯坏了"] * 3
    assert recogniser.heard == [b"#!AMR\nsound"] and len(channel.assistant.turns) == 1


def test_slow_recogniser_is_answered_by_push(
    make_channel: MakeChannel, recogniser: Recogniser, voice: dict[str, Any], platform: Platform
) -> None:
    channel = make_channel(seconds=0.3, asr_url=recogniser.url)
    recogniser.delay.clear()
    assert channel.heard(voice) is None
    assert make_channel(seconds=0.3, asr_url=recogniser.url).heard(voice) is None, "another process leaves it to the first"
    recogniser.delay.set()
    assert platform.wait_for_sends(1) == ["收到：楼道灯坏了"]
    assert channel.heard(voice) is None and len(recogniser.heard) == 1


@pytest.mark.parametrize(("status", "words"), [(200, ""), (200, None), (200, ["x"]), (500, "x")])
def test_voice_nobody_understands_is_asked_for_in_writing(
    make_channel: MakeChannel, recogniser: Recogniser, voice: dict[str, Any], status: int, words: Any
) -> None:
    channel = make_channel(asr_url=recogniser.url)
    recogniser.status, recogniser.words = status, words
    assert channel.heard(voice) == ASK_TO_TYPE
    assert channel.assistant.turns == [] and channel.rows() == []


def test_voice_left_unheard_by_a_crash_is_heard_later(
    make_channel: MakeChannel, recogniser: Recogniser, voice: dict[str, Any], platform: Platform
) -> None:
    channel = make_channel(asr_url=recogniser.url)
    incoming = channel.codec.open_request(*ACCOUNT.sign_request(voice))
    assert incoming.message is not None and incoming.media is not None
    channel.turns.media.note_voice(channel.conversation_id, incoming.message, incoming.media)  # … and the process dies
    with transaction(channel.services.engine) as connection:
        connection.execute(update(wechat_media).values(next_attempt_at=iso(channel.services.now())))
    restarted = make_channel(asr_url=recogniser.url)
    restarted.turns.resume()
    restarted.turns.resume()
    assert platform.wait_for_sends(1) == ["收到：楼道灯坏了"] and len(recogniser.heard) == 1


# -- quotas -----------------------------------------------------------------------------------------------------------


def test_five_messages_after_a_message_then_the_next_contact(channel: Channel, platform: Platform) -> None:
    platform.count_quota = True
    platform.interact(RESIDENT, "message")
    channel.say("路灯坏了")
    for number in range(7):
        channel.add_notice(f"进展{number}")
    for _ in range(3):
        channel.delivery.deliver_notices()
    assert platform.texts() == [f"进展{number}" for number in range(5)] and platform.attempts == 5, "our book knows without asking"
    assert channel.say("在吗") == "进展5\n\n进展6\n\n收到：在吗"


@pytest.mark.parametrize(
    "fields", [ACCOUNT.event("CLICK", EventKey="查进度"), ACCOUNT.event("SCAN", EventKey="c:1"), ACCOUNT.event("subscribe", EventKey="")]
)
def test_three_messages_within_a_minute_after_a_tap(channel: Channel, platform: Platform, fields: dict[str, Any]) -> None:
    platform.count_quota = True
    platform.interact(RESIDENT, "tap")
    channel.heard(fields)
    for number in range(4):
        channel.add_notice(f"进展{number}")
    channel.delivery.deliver_notices()
    assert platform.texts() == ["进展0", "进展1", "进展2"] and platform.attempts == 3
    with transaction(channel.services.engine) as connection:
        past = iso(channel.services.now() - timedelta(seconds=1))
        connection.execute(update(wechat_contacts).values(taps_left=3, taps_until=past))
    channel.delivery.deliver_notices()
    assert platform.attempts == 3 and channel.open_notices() == ["进展3"]


def test_follower_the_platform_does_not_know_any_more_is_left_alone(channel: Channel, platform: Platform) -> None:
    channel.say("路灯坏了")
    channel.add_notice("已办结。")
    platform.errcodes.append(43004)
    for _ in range(3):
        channel.delivery.deliver_notices()
    assert platform.attempts == 1 and channel.open_notices() == ["已办结。"]


# -- coming and going -------------------------------------------------------------------------------------------------


def test_unsubscribing_forgets_the_openid_and_coming_back_finds_the_talk(channel: Channel, platform: Platform) -> None:
    channel.say("路灯坏了")
    channel.heard(ACCOUNT.event("LOCATION", Latitude="33.5", Longitude="119.1"))
    channel.add_notice("已办结。")
    assert channel.heard(ACCOUNT.event("unsubscribe")) is None
    vault = channel.services.vault
    sealed = [vault.open(row.body) for row in channel.table(inbound_messages)] + [
        vault.open(row.sender) for row in channel.table(conversation_table)
    ]
    assert RESIDENT not in str(sealed) and "路灯坏了" in str(sealed), "what was said stays, who said it goes"
    assert channel.table(conversation_table)[0].state is None and channel.table(wechat_contacts)[0].point is None
    channel.delivery.deliver_notices()
    assert platform.attempts == 0
    assert channel.heard(ACCOUNT.event("subscribe", EventKey="")) == "已办结。\n\n收到：你好"
    channel.add_notice("请评价。")
    channel.delivery.deliver_notices()
    assert [(send["touser"], send["text"]["content"]) for send in platform.sends] == [(RESIDENT, "请评价。")]


def test_cancelling_the_authorisation_forgets_too(channel: Channel) -> None:
    channel.say("路灯坏了")
    event = ACCOUNT.event("user_authorization_cancellation", OpenID=RESIDENT)
    assert channel.heard({**event, "FromUserName": "oPlatform"}) is None
    assert channel.services.vault.open(channel.table(conversation_table)[0].sender) == {"sender": "", "account": ""}


def test_answer_to_somebody_who_left_meanwhile_is_not_sent(make_channel: MakeChannel, platform: Platform) -> None:
    channel = make_channel()
    channel.conversations.receive(InboundMessage("wechat", RESIDENT, "m1", "路灯坏了", account=ACCOUNT.name))
    channel.heard(ACCOUNT.event("unsubscribe"))
    for recovered in channel.conversations.recover(older_than=timedelta(0)):
        channel.delivery.deliver_recovered(*recovered)
    channel.turns.resume()
    assert platform.wait_for_sends(0) == []


def test_position_is_remembered_sealed_and_revocable(channel: Channel) -> None:
    for latitude in ("33.5", "33.6"):
        channel.heard(ACCOUNT.event("LOCATION", Latitude=latitude, Longitude="119.1", Precision="20"))
    (contact,) = channel.table(wechat_contacts)
    assert channel.services.vault.open(contact.point) == {"lat": 33.6, "lng": 119.1}
    channel.heard(ACCOUNT.event("user_authorization_revoke", OpenID=RESIDENT, RevokeInfo="301"))
    assert channel.table(wechat_contacts)[0].point is None


def test_last_word_on_a_subscription_counts(channel: Channel) -> None:
    for state in ("accept", "reject", "accept"):
        items = [{"TemplateId": "t1", "SubscribeStatusString": state}, {"TemplateId": "t2", "SubscribeStatusString": "reject"}]
        channel.heard(ACCOUNT.event("subscribe_msg_popup_event", SubscribeMsgPopupEvent={"List": items}))
    assert {(row.template_id, row.state) for row in channel.table(wechat_subscriptions)} == {("t1", "accept"), ("t2", "reject")}


def test_event_that_cannot_be_kept_is_not_acknowledged(channel: Channel) -> None:
    with channel.services.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE conversation RENAME TO gone")
    assert channel.post(ACCOUNT.event("unsubscribe")).status_code == 503


# -- typing -----------------------------------------------------------------------------------------------------------


def test_resident_sees_typing_only_when_it_takes_longer(channel: Channel, platform: Platform) -> None:
    channel.say("快的")
    channel.assistant.seconds = 2.0
    channel.say("慢的")
    wait_until(lambda: platform.typing == [RESIDENT])


# -- the tables -------------------------------------------------------------------------------------------------------


def test_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path)})
    migrate(settings)
    engine = open_engine(settings)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = [item for item in compare_metadata(context, metadata) if "wechat" in str(item) or "inbound" in str(item)]
    engine.dispose()
    assert differences == []
