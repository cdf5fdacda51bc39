"""The card: what a resident checks before a petition is filed, only what is known, in their own words. Pure."""
from __future__ import annotations

from bot.catalogue import Catalogue
from bot.petition import Petition, mask

MOST_SAID = 160


def card_of(draft: Petition, catalogue: Catalogue) -> str:
    lines = [f"〔类别〕{catalogue.get_category(draft.category).label}（{draft.request_type}）"]
    place = str(draft.place["text"]) if draft.place else "未提及"
    lines.append(f"〔地点〕{place}")
    lines.append(f"〔紧急程度〕{draft.urgency}")
    said = mask("；".join(text.replace("\n", " ") for text in draft.texts))
    lines.append(f"〔诉求〕{said if len(said) <= MOST_SAID else said[: MOST_SAID - 2] + '……'}")
    if draft.anonymous or draft.confidential:
        lines.append("〔身份〕" + ("匿名" if draft.anonymous else "") + ("保密" if draft.confidential else ""))
    if draft.attachments:
        lines.append(f"〔照片〕{len(draft.attachments)} 张")
    return "\n".join(lines)
