"""One label set per text: what undos, later words, votes, final words and imports come to."""
from __future__ import annotations

from typing import Any

import pytest

from bot import db
from bot.annotations import Effective, effective_annotations, new_annotation, settle, text_digest, undo_annotation
from bot.importing import DONE, STAGING, change_batch, open_batch, withdraw_batch
from bot.services import Services
from bot.staff_schema import annotation_rows

LAMP = "小区门口的路灯坏了三天"


def add(services: Services, labels: dict[str, Any], *, author: str = "li", source: str = "review", text: str = LAMP) -> int:
    row = new_annotation(services.vault, text, labels, author=author, source=source, at=services.now())
    with db.transaction(services.engine) as connection:
        return int(connection.execute(annotation_rows.insert().values(**row)).inserted_primary_key[0])


def undo(services: Services, annotation_id: int) -> None:
    with db.transaction(services.engine) as connection:
        undo_annotation(connection, annotation_id, author="li", at=services.now())


def effective(services: Services) -> list[Effective]:
    with db.reading(services.engine) as connection:
        return effective_annotations(connection)


def labels(services: Services) -> dict[str, Any]:
    found = effective(services)
    return found[0].labels if found else {}


def test_nothing_judged_gives_nothing() -> None:
    assert settle([]).labels == {} and settle([]).disputed == ()


def test_the_last_word_of_a_person_replaces_their_earlier_ones(services: Services) -> None:
    add(services, {"category": "0102", "request_type": "求助"})
    add(services, {"category": "0602", "request_type": "求助"})
    assert labels(services) == {"category": "0602", "request_type": "求助"}


def test_an_undone_row_does_not_count_and_stays_in_the_table(services: Services) -> None:
    add(services, {"category": "0102"})
    undo(services, add(services, {"category": "0602"}))
    assert labels(services) == {"category": "0102"}
    with db.reading(services.engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM annotation").scalar() == 3


def test_a_text_whose_rows_are_all_undone_is_not_there(services: Services) -> None:
    undo(services, add(services, {"category": "0102"}))
    assert effective(services) == []


def test_two_who_differ_leave_the_field_without_a_label(services: Services) -> None:
    add(services, {"category": "0102", "urgency": "一般"}, author="li")
    add(services, {"category": "0602", "urgency": "一般"}, author="wang")
    (one,) = effective(services)
    assert one.labels == {"urgency": "一般"} and one.disputed == ("category",)


def test_the_third_decides(services: Services) -> None:
    for author, category in (("li", "0102"), ("wang", "0602"), ("zhao", "0602")):
        add(services, {"category": category}, author=author)
    assert labels(services) == {"category": "0602"}


def test_a_final_word_ends_the_dispute_also_against_two(services: Services) -> None:
    add(services, {"category": "0102"}, author="li")
    add(services, {"category": "0102"}, author="wang")
    final = add(services, {"category": "0602"}, author="zhao", source="final")
    assert labels(services) == {"category": "0602"}
    undo(services, final)
    assert labels(services) == {"category": "0102"}


def test_a_higher_level_agrees_with_every_class_below_it(services: Services) -> None:
    add(services, {"category": "01"}, author="li")
    add(services, {"category": "010204"}, author="wang")
    (one,) = effective(services)
    assert one.labels == {"category": "010204"} and one.disputed == ()


def test_spans_are_never_in_dispute(services: Services) -> None:
    add(services, {"places": [[0, 4]]}, author="li")
    add(services, {"places": [[0, 2]]}, author="wang")
    assert labels(services) == {"places": [[0, 2]]}


def test_a_person_outranks_an_import_and_leaves_what_they_did_not_judge(services: Services) -> None:
    batch = open_batch(services, "orders.csv", username="li", state=DONE)
    add(services, {"category": "0102"}, author="wang")
    add(services, {"category": "0602", "request_type": "投诉"}, source=f"import:{batch}")
    assert labels(services) == {"category": "0102", "request_type": "投诉"}


def test_a_dispute_is_not_decided_by_an_import(services: Services) -> None:
    batch = open_batch(services, "orders.csv", username="li", state=DONE)
    add(services, {"category": "0102"}, source=f"import:{batch}")
    add(services, {"category": "0102"}, author="li")
    add(services, {"category": "0602"}, author="wang")
    assert labels(services) == {}


def test_an_import_counts_from_its_end_until_it_is_withdrawn(services: Services) -> None:
    batch = open_batch(services, "orders.csv", username="li", state=STAGING)
    add(services, {"category": "0102"}, source=f"import:{batch}")
    assert effective(services) == []
    change_batch(services, batch, state=DONE)
    assert labels(services) == {"category": "0102"}
    assert withdraw_batch(services, batch) and not withdraw_batch(services, batch)
    assert effective(services) == []


def test_skipping_is_no_label(services: Services) -> None:
    add(services, {}, source="skip")
    assert effective(services) == []


@pytest.mark.parametrize("same", [f" {LAMP}\n", "小區門口的路燈壞了三天"])
def test_the_same_words_have_one_digest_however_they_are_written(services: Services, same: str) -> None:
    assert text_digest(services.vault, same) == text_digest(services.vault, LAMP)


def test_a_digest_differs_with_the_words_and_with_the_key(services: Services) -> None:
    other = type(services.vault)("another key")
    assert len({text_digest(services.vault, LAMP), text_digest(services.vault, LAMP + "了"), text_digest(other, LAMP)}) == 3
