"""Stand-ins for TensorFlow let Rasa's modules be imported, and never pass for the real one."""
from __future__ import annotations

import importlib
import sys

import pytest

from bot.light_rasa import leave_out_tensorflow


def test_rasa_is_imported_without_tensorflow() -> None:
    importlib.import_module("rasa.core.policies.policy")
    assert not hasattr(sys.modules["tensorflow"], "__version__"), "the real one was loaded: half a gigabyte and five seconds"


def test_work_asked_of_a_stand_in_is_refused_with_its_name() -> None:
    tensorflow = importlib.import_module("tensorflow")
    with pytest.raises(RuntimeError, match=r"tensorflow\.nn\.softmax is not there: this service runs without TensorFlow"):
        tensorflow.nn.softmax([1.0, 2.0])


def test_names_classes_and_decorators_of_stand_ins_can_be_used() -> None:
    from tensorflow.keras import callbacks

    class Listener(callbacks.Callback):
        @callbacks.traced
        def hear(self) -> str:
            return "heard"

    assert Listener().hear() == "heard"


def test_leaving_it_out_twice_or_after_it_was_imported_changes_nothing() -> None:
    importlib.import_module("tensorflow")
    before = list(sys.meta_path)
    leave_out_tensorflow()
    assert sys.meta_path == before
