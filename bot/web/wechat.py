"""The official account's callback: one turn per message, answered inside the platform's five seconds or pushed once.

The platform sends a message again after five and ten seconds without an answer. The first request waits for its turn, up to
4.2 s; then it says `success` and the answer is pushed. A repeated request is answered from what this process remembers of the
first. At most FIRST_PLACES + RETRY_PLACES threads wait, so there is always one free to answer at once.
Where customer-service messages are not permitted, nobody says `success`: the platform's own retries fetch the answer.
What a message starts, and the push of a late answer, are bot/wechat_turns.py.
"""
from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import wait
from dataclasses import replace
from typing import Protocol

from flask import Blueprint, Response, request
from sqlalchemy import select
from werkzeug.exceptions import RequestEntityTooLarge

from bot.conversation import TOO_FAST, InboundMessage
from bot.db import reading
from bot.schema import inbound_messages
from bot.services import Services
from bot.wechat import MAX_BODY, SUCCESS, Incoming, WeChatCodec
from bot.wechat_http import WeChatError
from bot.wechat_text import passive_text
from bot.wechat_turns import ASK_TO_TYPE, Outcome, Turns, Work, log_failure

logger = logging.getLogger(__name__)

# The platform hangs up after 5 s; the rest is for the way there and back.
PASSIVE_SECONDS, HANG_UP_SECONDS = 4.2, 5.2
TYPING_SECONDS = 1.5
FIRST_PLACES, RETRY_PLACES = 56, 8  # of webhook.THREADS
_POLL_SECONDS = 0.1

NO_MEDIA = "暂时收不了图片和视频。请打字说明情况，也可以发位置；紧急情况请拨打 110、119、120。"
STILL_WORKING = "您的话已经记下，正在处理。请过一会儿随便回一个字，就能看到答复。"


class Counter(Protocol):
    def inc(self) -> None: ...


class Counters(Protocol):
    @property
    def forged_signatures(self) -> Counter: ...


class Callback:
    """Views of /wechat. After a valid signature the answer is a well-formed reply or `success`, whatever happens inside."""

    def __init__(
        self,
        services: Services,
        turns: Turns,
        counters: Counters,
        *,
        seconds: float = PASSIVE_SECONDS,
        hang_up: float = HANG_UP_SECONDS,
    ) -> None:
        """`seconds` is how long a request may wait for its reply, `hang_up` when the platform gives up on one."""
        self.services, self.turns, self.counters = services, turns, counters
        self.codec = WeChatCodec(services.settings, now=services.now)
        self._seconds, self._hang_up = seconds, hang_up
        self._first_places, self._retry_places = threading.Semaphore(FIRST_PLACES), threading.Semaphore(RETRY_PLACES)

    # -- views ----------------------------------------------------------------------------------------------------

    def check_url(self) -> Response:
        try:
            return _plain(self.codec.verify_url(request.args))
        except WeChatError as error:
            return self._refuse(403, str(error))

    def receive(self) -> Response:
        started = time.monotonic()
        request.max_content_length = MAX_BODY
        try:
            incoming = self.codec.open_request(request.args, request.get_data(cache=False))
        except RequestEntityTooLarge:
            return self._refuse(413, "body too large")
        except WeChatError as error:
            return self._refuse(403, str(error))
        incoming = self._without_unreadable(incoming)
        try:
            if incoming.message is not None:
                return self._answer(incoming, incoming.message, started)
            self.turns.note(incoming)
        except Exception as error:
            # Not stored, so not to be acknowledged: the platform will send it again.
            logger.error("message could not be kept: %s", type(error).__name__)
            return _plain("", status=503)
        return self._say(incoming, incoming.fixed)

    def _without_unreadable(self, incoming: Incoming) -> Incoming:
        """Media need the platform's API, and voice a recogniser; where there is none the resident is asked to type."""
        media, settings = incoming.media, self.services.settings
        if media is None:
            return incoming
        if media.kind == "voice" and not (settings.asr_url and settings.wechat_app_secret and media.media_id):
            return replace(incoming, message=None, media=None, fixed=ASK_TO_TYPE)
        if not settings.wechat_app_secret:
            return replace(incoming, message=None, media=None, fixed=NO_MEDIA)
        return incoming

    # -- one message ----------------------------------------------------------------------------------------------

    def _answer(self, incoming: Incoming, message: InboundMessage, started: float) -> Response:
        conversation_id = self.turns.conversations.conversation_id(message.channel, message.sender, message.account)
        work, first = self.turns.find_work(conversation_id, message.message_id, started)
        if first:
            try:
                admitted = self.turns.take_in(incoming, message, conversation_id, work)
            except BaseException:
                work.failed = True
                self.turns.forget(conversation_id, message.message_id)
                raise
            finally:
                work.kept.set()
            if not admitted:
                self.turns.forget(conversation_id, message.message_id)
                return self._say(incoming, TOO_FAST)
        elif not work.kept.wait(self._seconds) or work.failed:
            return _plain("", status=503)
        try:
            return self._reply(incoming, work, first, started)
        except Exception as error:
            log_failure("message kept but not answered", error, conversation_id)
            return _plain(SUCCESS)

    # -- the answer in time, or not -------------------------------------------------------------------------------

    def _reply(self, incoming: Incoming, work: Work, first: bool, started: float) -> Response:
        if work.said is not None:
            return self._say(incoming, work.said)
        if work.closed:
            return _plain(SUCCESS)
        pushing = self.turns.client.can_push()
        # With pushes a repeated request waits no longer than the first one; without them each waits as long as it may.
        deadline = (work.started if pushing else started) + self._seconds
        places = self._first_places if first or not pushing else self._retry_places
        seated = places.acquire(blocking=False)
        try:
            if seated:
                self._wait(incoming, work, first and pushing, deadline)
            text = self._claim(work, deadline)
            if text is not None:
                return self._say_claimed(incoming, work, text)
            if pushing or (work.turn is not None and work.turn.done()):
                self.turns.close(incoming, work)
                return _plain(SUCCESS)
            return self._let_time_out(incoming, work, started, seated)
        finally:
            if seated:
                places.release()

    def _wait(self, incoming: Incoming, work: Work, typing: bool, deadline: float) -> None:
        """Return when the turn is over, or at the deadline; after a while the resident sees that somebody is writing."""
        if typing and not self._wait_until(work, min(deadline, work.started + TYPING_SECONDS)) and time.monotonic() < deadline:
            self.turns.show_typing(incoming.openid, work)
        self._wait_until(work, deadline)

    def _wait_until(self, work: Work, deadline: float) -> bool:
        if work.turn is not None:
            return bool(wait([work.turn], max(0.0, deadline - time.monotonic())).done)
        while not self._is_answered(work):
            if time.monotonic() + _POLL_SECONDS > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _is_answered(self, work: Work) -> bool:
        assert work.receipt is not None
        with reading(self.services.engine) as connection:
            row_id = inbound_messages.c.id == work.receipt.row_id
            return connection.execute(select(inbound_messages.c.answered_at).where(row_id)).scalar_one() is not None

    def _claim(self, work: Work, deadline: float) -> str | None:
        """What this answer may say; None when there is nothing yet, or it is delivered another way."""
        if work.turn is not None and not work.turn.done():
            return None
        outcome = work.turn.result() if work.turn is not None else Outcome(work.receipt, None)
        if outcome.receipt is None:
            return outcome.fixed if self.turns.claim_unstored(work, outcome.fixed) else None
        while True:
            claim = self.turns.delivery.claim_passive(outcome.receipt)
            if claim.unanswered and outcome.reply is not None:
                return passive_text([outcome.reply])  # an apology that was not stored; the real answer follows from recovery
            if not claim.busy or time.monotonic() + _POLL_SECONDS > deadline:
                return claim.text
            time.sleep(_POLL_SECONDS)

    def _let_time_out(self, incoming: Incoming, work: Work, started: float, seated: bool) -> Response:
        """Without customer-service messages: no answer now, so that the platform asks again; at last a word of comfort."""
        last = time.monotonic() - work.started > 2 * self._hang_up
        if last or not seated:
            return self._say(incoming, STILL_WORKING)  # the answer is said with the resident's next message
        time.sleep(max(0.0, started + self._hang_up - time.monotonic()))
        return _plain("", status=503)

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def _say_claimed(self, incoming: Incoming, work: Work, text: str) -> Response:
        try:
            answer = self._render(incoming, text)
        except WeChatError as error:
            logger.error("reply not rendered: %s", error)
            if work.receipt is not None:
                self.turns.delivery.release(work.receipt)
            self.turns.close(incoming, work)
            return _plain(SUCCESS)
        work.said = text
        return answer

    def _say(self, incoming: Incoming, text: str) -> Response:
        try:
            return self._render(incoming, text)
        except WeChatError as error:
            logger.error("fixed answer not rendered: %s", error)
            return _plain(SUCCESS)

    def _render(self, incoming: Incoming, text: str) -> Response:
        body = self.codec.render(incoming, text)
        return _plain(body) if body == SUCCESS else Response(body, content_type="application/xml; charset=utf-8")

    def _refuse(self, status: int, reason: str) -> Response:
        self.counters.forged_signatures.inc()
        logger.warning("refused a request to /wechat: %s", reason)
        return _plain("", status=status)


def create_blueprint(callback: Callback) -> Blueprint:
    """GET and POST /wechat."""
    blueprint = Blueprint("wechat", __name__)
    blueprint.add_url_rule("/wechat", "check_url", callback.check_url, methods=["GET"])
    blueprint.add_url_rule("/wechat", "receive", callback.receive, methods=["POST"])
    return blueprint


def _plain(body: str, *, status: int = 200) -> Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(body, status=status, headers=headers, content_type="text/plain; charset=utf-8")
