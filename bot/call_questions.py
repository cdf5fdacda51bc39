"""What an agent asks next, in words to read aloud: where in an emergency first, then what the category needs, then how to reach the caller. Pure."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bot.call import Call
from bot.call_appeals import Appeal
from bot.catalogue import Catalogue, Matter
from bot.petition import APPEAL, Petition, facts_in, missing_slots

FACTS, CONTACT = ("when", "persons", "amount"), ("phone", "name")


def next_questions(
    call: Call, appeal: Appeal, matter: Matter | None, draft: Mapping[str, Any], catalogue: Catalogue
) -> Iterator[dict[str, str]]:
    """{"slot", "text"}, most important first; only what is missing for this category, and nobody is asked for a name they withhold."""
    petition = Petition(
        id="draft", texts=(call.said.text,), category=appeal.category, request_type=appeal.request_type,
        kind=(matter.kind if matter and matter.kind else APPEAL), matter=matter.id if matter else None,
        place=_known_place(appeal), facts=_known_facts(call, draft),
    )  # fmt: skip
    asked = missing_slots(petition, catalogue)
    if draft["anonymous"] is None:
        asked += [slot for slot in CONTACT if draft[slot] is None]
    emergency = appeal.reading["urgency"]["emergency"]
    for slot in sorted(asked, key=lambda slot: emergency and slot != "location"):
        words = "location_now" if emergency and slot == "location" else slot
        yield {"slot": slot, "text": catalogue.question_aloud(words, appeal.category)}


def _known_place(appeal: Appeal) -> dict[str, Any] | None:
    if appeal.resolved is None:
        return None
    among = {"among": list(appeal.resolved.ambiguous)} if appeal.resolved.ambiguous else {}
    return {**appeal.resolved.as_dict(), **among}


def _known_facts(call: Call, draft: Mapping[str, Any]) -> dict[str, str]:
    told = {slot: str(draft[slot]["value"]) for slot in FACTS if draft[slot]}
    return {**facts_in(call.said.text.replace("\n", "")), **told}
