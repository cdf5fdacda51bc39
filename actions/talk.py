"""One turn as the actions see it: what was said, what is being written, and ways to answer and to remember."""
from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rasa_sdk import Action, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher

from bot.card import card_of
from bot.catalogue import Catalogue
from bot.petition import (
    SUGGEST,
    Petition,
    add_places,
    add_text,
    apply_reading,
    missing_slots,
    note_asked,
    petition_from_dict,
    title_of,
)
from bot.services import Services, current_services
from bot.ticket import Ticket, summary_of

CONFIRM_BUTTONS = ("确认提交", "修改", "匿名提交")
CATEGORY_BUTTON = "类别是"
MAX_SUGGESTED = 2
CHOICES = "①②③④⑤"
# Where each slot's question differs with the kind of ticket.
LOCATION_QUESTIONS = {"topic": "utter_ask_location_topic", "need": "utter_ask_location_need", "minor": "utter_ask_location_person", "relief": "utter_ask_location_person"}


class Talk:
    """Collects what an action says and remembers; events() hands it back to Rasa."""

    def __init__(self, dispatcher: CollectingDispatcher, tracker: Tracker, services: Services) -> None:
        self._dispatcher, self._slots = dispatcher, tracker.slots
        self._changes: dict[str, Any] = {}
        self.services = services
        self.conversation_id: str = tracker.sender_id
        self.latest: Mapping[str, Any] = tracker.latest_message
        self.text = str(self.latest.get("text") or "")
        self.intent = str((self.latest.get("intent") or {}).get("name"))
        self.metadata: Mapping[str, Any] = self.latest.get("metadata") or {}
        self.drafts = [petition_from_dict(draft) for draft in self.slot("drafts") or ()]

    # -- what there is --------------------------------------------------------------------------------------------

    @property
    def catalogue(self) -> Catalogue:
        return self.services.catalogue

    def slot(self, name: str) -> Any:
        return self._changes.get(name, self._slots.get(name))

    @property
    def message_id(self) -> str:
        """The sender's own id of this message; empty where the channel gives none."""
        return str(self.metadata.get("message_id") or "").removeprefix(f"{self.conversation_id}:")

    @property
    def asked(self) -> str | None:
        asked: str | None = self.slot("asked")
        return asked

    @property
    def reading(self) -> Mapping[str, Any]:
        """The reading of everything said of the one draft, or of this message alone."""
        return self.latest.get("draft_reading") or self.latest["reading"]  # type: ignore[no-any-return]

    @property
    def places(self) -> Sequence[Mapping[str, Any]]:
        return self.latest.get("place_spans") or ()

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        return self.latest.get("parts") or ()

    def tickets(self) -> list[Ticket]:
        return self.services.tickets.find_of_conversation(self.conversation_id)

    # -- saying and remembering -----------------------------------------------------------------------------------

    def say(self, response: str, *, buttons: Sequence[str] = (), **values: Any) -> None:
        """Utter a response of domain.yml; a button's title is also what a tap sends."""
        safe = {key: str(value).replace("0[", "0［") for key, value in values.items()}  # "0[" is Rasa's own placeholder mark
        self._dispatcher.utter_message(response=response, buttons=[{"title": b, "payload": b} for b in buttons], **safe)

    def say_text(self, text: str) -> None:
        self._dispatcher.utter_message(text=text)

    def hand_over_tickets(self, tickets: Sequence[Ticket]) -> None:
        """Tell the channel which tickets were filed in this turn."""
        self._dispatcher.utter_message(json_message={"tickets": [summary_of(ticket) for ticket in tickets]})

    def remember(self, **slots: Any) -> None:
        self._changes.update(slots)

    def events(self) -> list[dict[str, Any]]:
        self._changes["drafts"] = [draft.as_dict() for draft in self.drafts] or None
        self._changes.setdefault("misses", None)
        return [SlotSet(name, value) for name, value in self._changes.items()]

    # -- drafts ---------------------------------------------------------------------------------------------------

    def new_draft(self, kind: str = "appeal", *, fixed: tuple[str, ...] = ()) -> Petition:
        """An empty petition that already carries what this conversation knows: the reporter, a scanned place, pictures."""
        reporter = self.slot("reporter") or {}
        scene = self.slot("scene") or {}
        draft = Petition(
            id=uuid.uuid4().hex[:12],
            kind=kind,
            source=str(self.metadata.get("source") or "web"),
            model=str(self.metadata.get("model") or ""),
            name=reporter.get("name"),
            phone=reporter.get("phone"),
            anonymous=bool(reporter.get("anonymous")),
            confidential=bool(reporter.get("confidential")),
            attachments=tuple(self.slot("pictures") or ()),
            fixed=fixed,
        )
        draft = self.with_scene(draft, scene)
        point = self.metadata.get("location") or self.slot("point")
        self.remember(pictures=None, point=None, enquiry=None)
        return self.with_point(draft, point) if point else draft

    def with_scene(self, draft: Petition, scene: Mapping[str, Any]) -> Petition:
        """The draft with the scanned place, unless it has one already."""
        if not scene or draft.place is not None:
            return draft
        place = self.services.gazetteer.resolve(scene["place"]).as_dict() if scene.get("place") else None
        return replace(draft, scene=scene.get("code"), place=place)

    def with_point(self, draft: Petition, point: Mapping[str, Any]) -> Petition:
        """The draft with a map point (GCJ-02 as WeChat and browsers in China send it) and its label as the place."""
        place = dict(draft.place or self.services.gazetteer.resolve(str(point.get("label") or "")).as_dict())
        place.update(lat=point["lat"], lng=point["lng"])
        near = self.services.gazetteer.nearest(point["lat"], point["lng"])
        if near:
            place.update(district=place.get("district") or near.district or None, street=place.get("street") or near.street or None)
        spot = f"{near.name}附近" if near else f"地图定位 {point['lat']:.5f},{point['lng']:.5f}"
        return replace(draft, place={**place, "text": place.get("text") or point.get("label") or spot})

    def extend(self, draft: Petition, text: str, reading: Mapping[str, Any], places: Sequence[Mapping[str, Any]]) -> Petition:
        """One more message of the resident about this draft."""
        draft = add_text(draft, text)
        draft = apply_reading(draft, reading, self.catalogue)
        return add_places(draft, places, text, self.services.gazetteer)

    def ask_next(self, *, changed: bool = False) -> None:
        """Ask for the first thing missing in any draft, or show the card. Sets `asked`."""
        for number, draft in enumerate(self.drafts):
            missing = missing_slots(draft, self.catalogue)
            if missing:
                self.drafts[number] = note_asked(draft, missing[0])
                # The draft asked about leads, so that the answer is read together with its words.
                self.drafts.insert(0, self.drafts.pop(number))
                return self._ask(missing[0], draft)
        self.show_card(changed=changed)

    def _ask(self, slot: str, draft: Petition) -> None:
        again = draft.unanswered.get(slot, 0) > 0
        question = f"utter_ask_{slot}"
        if slot == "location":
            question = "utter_ask_location_again" if again else LOCATION_QUESTIONS.get(draft.kind, question)
        place = draft.place or {}
        self.say(question, echo=title_of(draft), place=place.get("text", ""), buttons=place.get("among", ()) if slot == "district" else ())
        self.remember(asked=slot)

    def ask_again(self) -> None:
        """After an aside: back to where the form was."""
        if not self.drafts:
            return
        if self.asked == "split":
            self.offer_split()
        elif self.asked == "confirm":
            self.show_card()
        else:
            number = next((n for n, draft in enumerate(self.drafts) if missing_slots(draft, self.catalogue)), None)
            if number is None:
                self.show_card()
            else:
                draft = self.drafts[number]
                slot = missing_slots(draft, self.catalogue)[0]
                self.drafts[number] = note_asked(draft, slot)
                self._ask(slot, replace(draft, unanswered={}))

    def show_card(self, *, changed: bool = False) -> None:
        self.remember(asked="confirm")
        buttons = [b for b in CONFIRM_BUTTONS if not (b == "匿名提交" and all(d.anonymous for d in self.drafts))]
        if len(self.drafts) == 1:
            suggested = [CATEGORY_BUTTON + name for name in self.suggested_classes(self.drafts[0])]
            response = "utter_confirm_changed" if changed else "utter_confirm_unsure" if suggested else "utter_confirm"
            self.say(response, card=card_of(self.drafts[0], self.catalogue), buttons=[*buttons, *suggested])
            return
        cards = [f"{CHOICES[number]}\n{card_of(draft, self.catalogue)}" for number, draft in enumerate(self.drafts)]
        self.say("utter_confirm_many", card="\n".join(cards), count=len(cards), buttons=buttons)

    def suggested_classes(self, draft: Petition) -> list[str]:
        """First-level classes that the resident may mean instead, where the reading is in the middle lane."""
        if self.services.tickets.lanes.of(draft) != SUGGEST:
            return []
        chosen = self.catalogue.get_category(draft.category).path[0]
        others = dict.fromkeys(self.catalogue.get_category(code).path[0] for code, _ in draft.alternatives)
        return [name for name in others if name != chosen][:MAX_SUGGESTED]

    def offer_split(self) -> None:
        self.remember(asked="split")
        self.drafts[0] = note_asked(self.drafts[0], "split")
        listed = "\n".join(f"{CHOICES[number]} {title_of(draft)}" for number, draft in enumerate(self.drafts))
        self.say("utter_offer_split", count=len(self.drafts), list=listed, buttons=("分开登记", "合成一件"))


class TalkAction(Action):
    """An action that works on a Talk. Subclasses are named in domain.yml by their `action` attribute."""

    action = ""

    def name(self) -> str:
        return self.action

    async def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Mapping[str, Any]) -> list[dict[str, Any]]:
        talk = Talk(dispatcher, tracker, current_services())
        self.act(talk)
        return talk.events()

    def act(self, talk: Talk) -> None:
        raise NotImplementedError
