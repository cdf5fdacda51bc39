"""After filing: progress, more information, urging, withdrawing, rating."""
from __future__ import annotations

import re
from dataclasses import replace

from actions.talk import Talk, TalkAction
from bot.db import iso
from bot.nlu.context import AMENDS, TICKET_NUMBER
from bot.petition import Petition, add_places, correct_place
from bot.text import fold
from bot.ticket import CHINA, FINAL_STATES, Ticket
from bot.tickets import TicketClosed, TicketNotFound

_COMMAND_ONLY = re.compile(r"^(?:我要|帮我|我想|请)?(?:再)?(?:补充(?:情况|说明|一下|一点)?|催办|催一下|催一催|撤回|撤销)(?:工单|一下)?[。！!]?$")


def find_ticket(talk: Talk) -> Ticket | None:
    """The ticket meant: by number, by words of its title and description, else the newest of this conversation."""
    match = TICKET_NUMBER.search(fold(talk.text))
    if match:
        try:
            return talk.services.tickets.get_ticket(f"{match.group(1)}-{match.group(2)}")
        except TicketNotFound:
            return None
    own = talk.tickets()
    if not own:
        return None
    return max(own, key=lambda ticket: (_shared(talk.text, ticket), ticket.state not in FINAL_STATES, ticket.number))


def _shared(text: str, ticket: Ticket) -> int:
    told = ticket.title + ticket.petition.description
    pairs = {text[i : i + 2] for i in range(len(text) - 1)} - {"上次", "那个", "怎么", "么样", "样了", "工单", "进度", "一下", "我的", "反映"}
    return sum(pair in told for pair in pairs)


def tell_missing(talk: Talk) -> None:
    match = TICKET_NUMBER.search(fold(talk.text))
    if match:
        talk.say("utter_ticket_unknown", number=f"{match.group(1)}-{match.group(2)}")
    else:
        talk.say("utter_no_ticket")


class ActionReportProgress(TalkAction):
    """State, department and promised time; by number from any conversation too, because it tells nothing personal."""

    action = "action_report_progress"

    def act(self, talk: Talk) -> None:
        ticket = find_ticket(talk)
        if ticket is None:
            tell_missing(talk)
        else:
            _tell_progress(talk, ticket)
        talk.ask_again()


def _tell_progress(talk: Talk, ticket: Ticket) -> None:
    own = ticket.conversation_id == talk.conversation_id
    filed = ticket.filed_at.astimezone(CHINA)
    done = ticket.state in FINAL_STATES
    due = ticket.due_at.astimezone(CHINA) if ticket.due_at else None
    talk.say(
        "utter_progress",
        date=f"{filed.month} 月 {filed.day} 日",
        title=ticket.title if own else "一件诉求",
        number=ticket.number,
        status=_status_sentence(talk, ticket, own),
        due="" if done or due is None or ticket.state == "replied" else f"承诺 {due.month} 月 {due.day} 日 {due:%H:%M} 前处理答复。",
        buttons=() if done or not own else ("补充情况", "催办", "撤回"),
    )


def _status_sentence(talk: Talk, ticket: Ticket, own: bool) -> str:
    who = ticket.status_department or ticket.lead_department
    entries = talk.services.tickets.timeline(ticket.number)
    note = next((entry.note for entry in reversed(entries) if entry.actor == "dispatch" and entry.note), "")
    sentence = {
        "filed": f"已登记，转给{ticket.lead_department}，等待签收。",
        "accepted": f"{who}已签收，会安排处理。",
        "in_progress": f"{who}正在办理。",
        "extended": f"{who}申请了延期。",
        "replied": f"{who}已经答复。",
        "closed": "已办结。",
        "returned": "正在重新派单。",
        "rejected": "没有受理。",
        "withdrawn": "您已经撤回。",
    }[ticket.state]
    return f"{sentence}{note.rstrip('。')}。" if own and note and note not in sentence else sentence


class ActionSupplementTicket(TalkAction):
    """More facts for a filed ticket; new danger raises its urgency."""

    action = "action_supplement_ticket"

    def act(self, talk: Talk) -> None:
        ticket = find_ticket(talk)
        if ticket is None:
            tell_missing(talk)
            return
        bare = TICKET_NUMBER.sub("", fold(talk.text)).strip()
        if _COMMAND_ONLY.match(bare):
            talk.remember(asked="note", recent_tickets=[ticket.number, *(n for n in talk.slot("recent_tickets") or [] if n != ticket.number)])
            talk.say("utter_ask_note")
            return
        supplement(talk, ticket)


def supplement(talk: Talk, ticket: Ticket) -> None:
    if not _own(talk, ticket):
        return
    moved = _moved(talk, ticket)
    level = str(talk.latest["reading"]["urgency"]["level"])
    raised = level != "一般" and ticket.petition.urgency == "一般"
    try:
        if moved is not None:
            told = replace(moved, texts=(*moved.texts, talk.text), urgency=level if raised else moved.urgency)
            talk.services.tickets.correct(ticket.number, told, note=talk.text)
            talk.say("utter_place_corrected", title=ticket.title, number=ticket.number, place=(moved.place or {})["text"])
            return
        changed = talk.services.tickets.supplement(ticket.number, talk.text, urgency=level if raised else None)
    except TicketClosed:
        talk.say("utter_ticket_closed", title=ticket.title, number=ticket.number, status=ticket.state_label)
        return
    response = "utter_supplemented_raised" if raised else "utter_supplemented"
    talk.say(response, title=ticket.title, number=ticket.number, urgency=changed.petition.urgency, lead=ticket.lead_department)


def _moved(talk: Talk, ticket: Ticket) -> Petition | None:
    """The petition at the place that the message puts right; None when it corrects none."""
    petition, gazetteer = ticket.petition, talk.services.gazetteer
    corrected = correct_place(petition, talk.text, gazetteer)
    if corrected is None and AMENDS.match(fold(talk.text)) and talk.places:
        corrected = add_places(petition, talk.places, talk.text, gazetteer)
    return corrected if corrected and (corrected.place or {}).get("text") != (petition.place or {}).get("text") else None


def _own(talk: Talk, ticket: Ticket) -> bool:
    """Only whoever filed a ticket changes it; a number alone is no proof."""
    if ticket.conversation_id == talk.conversation_id:
        return True
    tell_missing(talk)
    return False


class ActionUrgeTicket(TalkAction):
    action = "action_urge_ticket"

    def act(self, talk: Talk) -> None:
        ticket = find_ticket(talk)
        if ticket is None:
            tell_missing(talk)
        elif _own(talk, ticket):
            try:
                talk.services.tickets.urge(ticket.number)
                talk.say("utter_urged", title=ticket.title, number=ticket.number, lead=ticket.lead_department, status=ticket.state_label)
            except TicketClosed:
                talk.say("utter_ticket_closed", title=ticket.title, number=ticket.number, status=ticket.state_label)


class ActionWithdrawTicket(TalkAction):
    """Asks once, then withdraws: a slip of the finger must not end a case."""

    action = "action_withdraw_ticket"

    def act(self, talk: Talk) -> None:
        numbers = talk.slot("recent_tickets") or []
        confirmed = talk.asked == "withdraw" and bool(numbers)
        ticket = talk.services.tickets.get_ticket(numbers[0]) if confirmed else find_ticket(talk)
        if ticket is None:
            tell_missing(talk)
        elif _own(talk, ticket):
            if ticket.state in FINAL_STATES:
                talk.say("utter_ticket_closed", title=ticket.title, number=ticket.number, status=ticket.state_label)
                talk.remember(asked=None)
            elif confirmed:
                talk.services.tickets.withdraw(ticket.number)
                talk.say("utter_withdrawn", title=ticket.title, number=ticket.number)
                talk.remember(asked=None)
            else:
                talk.say("utter_ask_withdraw", title=ticket.title, number=ticket.number, buttons=("确定撤回", "不撤"))
                talk.remember(asked="withdraw", recent_tickets=[ticket.number, *(n for n in numbers if n != ticket.number)])


class ActionKeepTicket(TalkAction):
    action = "action_keep_ticket"

    def act(self, talk: Talk) -> None:
        talk.say("utter_kept")
        talk.remember(asked=None)


class ActionRateTicket(TalkAction):
    """A verdict on the newest ticket that has a reply; without one it is just a friendly or an unhappy word."""

    action = "action_rate_ticket"

    def act(self, talk: Talk) -> None:
        rated = [ticket for ticket in talk.tickets() if ticket.state in ("replied", "closed")]
        satisfied = talk.intent == "satisfied"
        if rated:
            newest = max(rated, key=lambda ticket: iso(ticket.updated_at))
            talk.services.tickets.rate(newest.number, satisfied=satisfied, note=talk.text)
        talk.say("utter_rated_good" if satisfied else "utter_rated_bad")
        talk.remember(asked=None)
