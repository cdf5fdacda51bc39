"""Review items for tests of pages: own texts with a reading written by hand, so that no model has to be loaded."""
from __future__ import annotations

from typing import Any, cast

from bot import db
from bot.assistant import Assistant
from bot.review_index import ReviewIndex
from bot.reviews import Reviews, Utterance
from bot.services import Services

# text, category as read, confidence
SAMPLES = [
    ("桂花新村门口的路灯坏了三天了，晚上很黑看不见路", "010204", 0.9),
    ("桂花新村门口的路灯坏了，晚上很黑看不见路", "010204", 0.8),
    ("桂花新村的路灯坏了，晚上很黑看不见路", "010204", 0.85),
    ("工地上的包工头拖欠我们三个月工资", "040305", 0.4),
    ("夜里两点还在打桩，吵得睡不着觉", "130203", 0.7),
    ("山阳小区😀3号楼电梯老是停。楼下烧烤店油烟呛人！", "010903", 0.3),
    ("医保卡丢了怎么补办，要带什么材料", "040203", 0.6),
    ("人民路上的井盖松了，骑车差点摔倒", "010204", 0.65),
    ("202路公交车晚上半小时才来一趟", "010205", 0.95),
    ("菜场里的秤不准，少了二两", "110301", 0.55),
    ("隔壁饭店的泔水桶堆在路口，味道很大", "010213", 0.5),
    ("孩子上学的学区怎么划的，想问一下", "060101", 0.45),
]


def parse_of(text: str, category: str, confidence: float) -> dict[str, Any]:
    """The parse of the contract, as far as a review item keeps it."""
    place = next((name for name in ("桂花新村", "山阳小区", "人民路") if name in text), None)
    start = text.index(place) if place else 0
    return {
        "text": text,
        "model": "m1",
        "intent": {"name": "report_problem", "confidence": 0.99},
        "request_type": {"name": "求助", "confidence": 0.8},
        "categories": [{"code": category, "confidence": confidence}, {"code": "130206", "confidence": round((1 - confidence) / 2, 3)}],
        "urgency": {"level": "一般", "confidence": 0.97, "emergency": False, "reasons": []},
        "locations": [{"text": place, "start": start, "end": start + len(place), "district": None}] if place else [],
        "main_location": 0 if place else None,
        "evidence": [{"text": text[4:6], "start": 4, "end": 6, "weight": 0.4}],
        "parts": [{"start": 0, "end": len(text)}],
    }


def keep_samples(services: Services, index: ReviewIndex, count: int = len(SAMPLES)) -> None:
    reviews = Reviews(services, cast(Assistant, None), index)  # nothing is read: every parse is given
    for number, (text, category, confidence) in enumerate(SAMPLES[:count]):
        utterance = Utterance(text, "web", f"t{number}", "清江浦区", db.iso(services.now()))
        reviews.keep(utterance, parse_of(text, category, confidence))
    index.refresh()
