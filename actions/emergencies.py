"""Emergency before anything: the number to ring in the first sentence, then a ticket with whatever is known, and a person alerted."""
from __future__ import annotations

from dataclasses import replace

from actions.talk import Talk, TalkAction
from bot.knowledge import told_emergency
from bot.petition import place_from_answer
from bot.ticket import FINAL_STATES, Ticket

# Messages this close to an emergency of the same conversation belong to it.
SAME_EMERGENCY_SECONDS = 2 * 3600


class ActionReportEmergency(TalkAction):
    action = "action_report_emergency"

    def act(self, talk: Talk) -> None:
        urgency = talk.latest["reading"]["urgency"]
        talk.say_text(talk.catalogue.emergency(told_emergency(urgency.get("kind"), talk.text)).say)
        running = running_emergency(talk)
        if running:
            talk.services.tickets.supplement(running.number, talk.text)
            talk.say("utter_detail_kept", number=running.number)
            ticket = running
        else:
            ticket = _file(talk)
        talk.services.handovers.open(talk.conversation_id, "emergency")
        if ticket.petition.place is None:
            talk.say("utter_ask_address")
            talk.remember(asked="address")


def running_emergency(talk: Talk) -> Ticket | None:
    for ticket in talk.tickets():
        age = (talk.services.now() - ticket.filed_at).total_seconds()
        if ticket.petition.emergency and ticket.state not in FINAL_STATES and age < SAME_EMERGENCY_SECONDS:
            return ticket
    return None


def _file(talk: Talk) -> Ticket:
    """No card, no form: what is known is filed at once, together with the draft it grew out of."""
    draft = talk.drafts[0] if talk.drafts else talk.new_draft()
    kind = talk.latest["reading"]["urgency"].get("kind")
    draft = talk.extend(replace(draft, emergency=True, emergency_kind=kind), talk.text, talk.reading, talk.places)
    draft = replace(draft, urgency="特急")
    point = talk.metadata.get("location")
    if point and draft.place is None:
        draft = talk.with_point(place_from_answer(draft, str(point.get("label") or "地图定位"), talk.services.gazetteer), point)
    ticket = talk.services.tickets.open_ticket(
        draft, request_key=f"{talk.conversation_id}:{draft.id}", conversation_id=talk.conversation_id
    )
    talk.say("utter_person_alerted", number=ticket.number)
    talk.hand_over_tickets([ticket])
    talk.drafts = talk.drafts[1:]
    talk.remember(recent_tickets=[ticket.number, *(talk.slot("recent_tickets") or [])][:10], asked=None)
    return ticket
