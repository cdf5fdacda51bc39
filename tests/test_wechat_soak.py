"""The short run as a test; `make wechat-soak` is the full one."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.wechat_soak import SHORT, run


@pytest.mark.timeout(180)
def test_every_message_is_answered_once_when_the_service_is_killed(tmp_path: Path) -> None:
    assert run(replace(SHORT, seed=20261128), tmp_path) == []
