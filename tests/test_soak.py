"""The short soak as a test; `make soak` is the full one."""
from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak import SHORT, run


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_filed_twice_when_the_server_is_killed(tmp_path: Path) -> None:
    assert asyncio.run(run(replace(SHORT, seed=20261121), tmp_path)) == []
