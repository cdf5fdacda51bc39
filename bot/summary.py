"""The summary of a work order from a caller's story: what happened as it was told, then what is wanted, in the third person. Pure."""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bot.call import PLACE
from bot.petition import mask
from bot.story import STRONG, Part, Story
from bot.wording import official, speaks_to_the_agent, third_person

MAX_SUMMARY = 200
# A turn whose best piece weighs less says nothing of the matter.
NOTHING_TOLD = "来电人未说明事项"
FRAME_WORDS = ("市民反映", "诉求", NOTHING_TOLD, "当地", "归其所有")
LEAST_TURN = 0.25
# What is told first is about the matter more often than not.
EARLY, LEAST_EARLY, SHORT_STORY = 2, 0.06, 60
WISH_ROOM = 60


def build_summary(story: Story, place: str, wish: str | None = None) -> str:
    """Facts first, at most 200 characters. `place`: where it is, or ""; `wish`: what the caller said yes to, for want of own words."""
    wishes = [part for part in story.parts if part.wish and _is_told(part)]
    wanted = _sentences(_dearest(wishes, WISH_ROOM)) or third_person(official(wish or ""))
    told = [part for part in _matter(story) if not part.wish]
    room = MAX_SUMMARY - len(place) - len(wanted) - 12
    facts = _sentences(_dearest(told, room))
    where = f"{place}，" if place and place not in facts else ""
    text = f"市民反映：{where}{facts}".rstrip("，；：") + "。" if where or facts else ""
    return mask(text + (f"诉求：{wanted}。" if wanted else ""))[:MAX_SUMMARY]


def _matter(story: Story) -> Iterator[Part]:
    """Pieces of the turns that are about the matter, of others too while little is told; a bare answer to "where" has its own place."""
    turns = {turn.number: turn for turn in story.call.citizen}
    told: list[int] = []
    length = sum(len(part.piece.text) for part in story.parts if part.weight >= LEAST_TURN)
    for number, parts in story.by_turn.items():
        best = max(part.weight for part in parts)
        only_place = PLACE in turns[number].asked and best < 0.4 and not any(STRONG.search(part.piece.text) for part in parts)
        early = len(told) < EARLY or length < SHORT_STORY
        if (story.praises or best >= LEAST_TURN or early and best >= LEAST_EARLY) and not only_place:
            told.append(number)
            yield from filter(_is_told, parts)


def _is_told(part: Part) -> bool:
    return not part.aside and not speaks_to_the_agent(part.piece.text)


def _dearest(parts: Sequence[Part], room: int) -> list[Part]:
    """The weightiest that fit, in the order they were told."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: -part.weight):
        if len(part.piece.text) + 1 <= room:
            room -= len(part.piece.text) + 1
            kept.append(part)
    return sorted(kept, key=lambda part: part.start)


_LEAD = re.compile(
    r"^(?:我?(?:就是|想|要|来|着急)*(?:反映|投诉|举报|咨询|请教)(?:一下|个事儿?|个问题|[一两]个事情|一个|下子|下|个)?(?=.{2})|我?(?:就是)?(?:想|要|来|着急)+(?:问|提(?![前出供取交醒]))(?:问|一下|个事儿?|个)?(?=.{2})|我?(?:问|提)(?:一下|问|个事儿?|个?小?建议)(?=.{2})|第[一二三](?:[个件点](?:事|呢)?|呢)(?:就是|是)?|还有(?:一个|就是)?|另外|打从|那(?=有无|个)|这都|结果|后来(?=.{4})|反正|(?:我|俺|咱)们?(?![们家妈爸娘爹村厂楼儿女孩]|小区|单位|的|这|那))"
)


def _sentences(parts: Sequence[Part]) -> str:
    """Pieces of a turn divided by commas, turns by semicolons; each said once."""
    text = ""
    last: Part | None = None
    for part in parts:
        said = third_person(_LEAD.sub("", official(part.piece.text)))
        if len(said) < 2 or said in text:
            continue
        text += ("" if last is None else "，" if last.piece.turn == part.piece.turn else "；") + said
        last = part
    return text
