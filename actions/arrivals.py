"""What arrives that is not words: a map point, a picture, a scanned code."""
from __future__ import annotations

from dataclasses import replace

from actions.answers import answer_nearest
from actions.talk import Talk, TalkAction
from bot.tickets import TicketClosed


class ActionTakeLocation(TalkAction):
    """A map point for what is being asked: the draft's place, the emergency's address, the nearest service point."""

    action = "action_take_location"

    def act(self, talk: Talk) -> None:
        point = talk.metadata.get("location")
        if not point:
            talk.say("utter_clarify")
        elif talk.drafts:
            talk.drafts = [talk.with_point(draft, point) if n == 0 or draft.place is None else draft for n, draft in enumerate(talk.drafts)]
            talk.ask_next(changed=talk.asked == "confirm")
        elif talk.asked == "near":
            answer_nearest(talk)
        elif talk.asked == "address" and talk.slot("recent_tickets"):
            _add_to_ticket(talk, point)
        else:
            talk.remember(point=dict(point))
            talk.say("utter_location_kept", label=f"：{point['label']}" if point.get("label") else "")


def _add_to_ticket(talk: Talk, point: dict[str, object]) -> None:
    number = talk.slot("recent_tickets")[0]
    ticket = talk.services.tickets.get_ticket(number)
    placed = talk.with_point(ticket.petition, point)
    try:
        talk.services.tickets.correct(number, placed)
        numbers = "、".join(talk.catalogue.emergency(ticket.petition.emergency_kind).numbers)
        talk.say("utter_address_kept", place=(placed.place or {}).get("text"), numbers=numbers)
    except TicketClosed:
        talk.say("utter_ticket_closed", title=ticket.title, number=number, status=ticket.state_label)
    talk.remember(asked=None)


class ActionTakePicture(TalkAction):
    """A picture joins the draft, else the ticket being supplemented, else waits for the matter to be told."""

    action = "action_take_picture"

    def act(self, talk: Talk) -> None:
        attachment = talk.metadata.get("attachment")
        numbers = talk.slot("recent_tickets") or []
        if not attachment:
            talk.say("utter_picture_kept")
        elif talk.drafts:
            first = talk.drafts[0]
            talk.drafts[0] = replace(first, attachments=(*first.attachments, str(attachment)))
            talk.say("utter_picture_added")
            talk.ask_again()
        elif talk.asked in ("note", "address", "phone") and numbers:
            try:
                talk.services.tickets.supplement(numbers[0], "", attachment_ids=[str(attachment)])
                talk.say("utter_picture_added")
            except TicketClosed:
                ticket = talk.services.tickets.get_ticket(numbers[0])
                talk.say("utter_ticket_closed", title=ticket.title, number=ticket.number, status=ticket.state_label)
        else:
            talk.remember(pictures=[*(talk.slot("pictures") or []), str(attachment)][-9:])
            talk.say("utter_picture_kept")


class ActionOpenScene(TalkAction):
    """A scanned code names a place or a deliberation room; the code is untrusted input and only looked up."""

    action = "action_open_scene"

    def act(self, talk: Talk) -> None:
        code = str(talk.metadata.get("scene") or "")
        scene = talk.catalogue.scenes.get(code)
        if scene is None:
            talk.say("utter_scene_unknown")
            return
        scanned = {"code": scene.code, "kind": scene.kind, "name": scene.name, "place": scene.place}
        talk.remember(scene=scanned)
        talk.say("utter_scene", name=scene.name)
        # Who is asked where it is may scan the code on the wall.
        talk.drafts = [talk.with_scene(draft, scanned) for draft in talk.drafts]
        talk.ask_again()
