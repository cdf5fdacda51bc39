"""The measurement of repeated callbacks is one of acknowledgements: a small run of it, without its times."""
from __future__ import annotations

from collections import Counter

from tests.wechat_platform import Account
from tests.wechat_retries import as_the_platform_asks, at_once, measure


def test_repeated_requests_are_acknowledged_while_the_turn_is_slow() -> None:
    calls = at_once(Account(), "路灯坏了（想20秒）", 50, 2)
    measured, processor = measure(calls, from_when=0.0)
    assert set(measured.outcomes) == {"success"} and len(measured.waits) == 100 and processor > 0


def test_the_platform_asks_again_after_five_and_ten_seconds() -> None:
    calls = as_the_platform_asks(Account(), "路灯坏了", 30, 5)
    moments = Counter((call.at, call.retry) for call in calls if call.at in (0.0, 5.0, 10.0))
    assert moments == {(0.0, False): 1, (5.0, False): 1, (5.0, True): 1, (10.0, False): 1, (10.0, True): 2}
    assert len({call.raw for call in calls}) == len(calls), "signed anew each time"
