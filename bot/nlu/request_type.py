"""What the resident wants: 咨询 求助 投诉 举报 建议 表扬.

The words of the matter say little about it, the manner of speaking says most: how the letter opens, whether somebody is
blamed, whether the questions ask or scorn, what the last sentences want. Those cues stand as a few dense columns behind
the shared sparse row, and one linear reader weighs both.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, hstack

from bot.nlu.features import MAX_CHARACTERS, Row
from bot.nlu.linear import Floats, LinearReader
from bot.text import fold

REPORTING, PRAISE = "举报", "表扬"
NAMED_CONFIDENCE = 0.9
# To accuse somebody of breaking the law takes more than a hunch of the reader.
SURE_REPORTING = 0.45

# Whoever opens with "我要投诉" has said what it is; only the very beginning counts, later the word is part of the story.
_NAMED = re.compile(
    r"^(?:你好|您好|喂|领导|同志|请问|我们?|实名|匿名|要|想|来|再|就是|向你们?|给你们|打电话|提|几个|[一两三]个|个|点|反映|\s|[，,。!！])*"
    r"(投诉|举报|咨询|建议|表扬|感谢|求助)"
)
# Thanks in advance close every second letter; praise names a deed or a person.
_PRAISES = re.compile(
    r"表扬|夸|点赞|锦旗|感谢信|致敬|好人好事|拾金不昧|热心|贴心|暖心|感动|满意|敬业|雷锋|"
    r"^[^。！]{0,12}(?:感谢|谢谢)|(?:感谢|谢谢)(?!您?的?(?:关注|支持|配合|回复|答复|帮助|理解|百忙)|领导|政府|书记|市长)[^，。！]{4,}"
)

# Each cue gives: how often, whether in the first sentence, whether in the last two.
_CUES = {
    name: re.compile(pattern)
    for name, pattern in (
        (
            "asks",
            r"请问|请教|咨询|想问|问一下|想知道|想了解|何时|什么时候|几时|多久|哪里(?:能|可以|办)|哪个(?:部门|单位|科室)|"
            r"(?:如何|怎么)(?:办理|申请|计算|认定|领取|算|查|交|补)|需要(?:什么|哪些|带)|是否|能不能|可不可以|可以[^，。？]{0,12}吗|"
            r"有没有[^，。]{0,6}(?:规定|政策|计划|补贴|名额|办法)|望答复|盼复|请(?:予)?(?:回复|答复|解答)",
        ),
        (
            "scorns",
            r"难道|凭什么|何在|岂|怎么能|还有没有(?:王法|人管)|谁来(?:管|负责|保障)|合(?:理|法|规)吗|天理|算什么|有意思吗|良心|视而不见|"
            r"什么(?:道理|规定|态度)|何时是个头|到底(?:谁|有没有人|还|管)|谁给|就不管|是不是[^，。？]{0,8}(?:懒政|渎职|不作为|勾结)",
        ),
        (
            "blames",
            r"不作为|推诿|推脱|推来推去|互相推|踢皮球|敷衍|态度(?:恶劣|差|强硬|蛮横|不好)|欺(?:骗|诈|负|压)|霸王|不理(?:不|睬|会)|置之不理|"
            r"拒(?:绝|不)|威胁|恐吓|辱骂|乱收费|多收|扰民|强制|强行|强迫|捆绑|拖欠|克扣|忽悠|糊弄|不退|不给|偷工减料|豆腐渣|黑心|无良|"
            r"坑(?:人|害|农|老)|不兑现|一拖再拖|迟迟不|拖着不|虚假|宰客|拒载|没人管|无人管|不负责|垄断|变相|嚣张|变本加厉|苦不堪言|"
            r"忍无可忍|不满|投诉无门|不公|反对|抗议|霸占|侵(?:占|害|犯)|占道|乱停|乱扔|说话不算",
        ),
        (
            "breaks_law",
            r"违法|违规|违章|违反|违建|非法|无证|无照|没有(?:任何)?(?:营业执照|许可证?|资质|手续|证件)|未取得|未办理|"
            r"未经(?:批准|审批|许可|验收)|私自|擅自|私搭|乱搭|偷排|直排|偷倒|偷采|盗采|滥伐|涉嫌|假(?:冒|货|酒|药|证|种)|赌|嫖|毒品|传销|"
            r"高利贷|非法集资|黑(?:车|网吧|作坊|诊所|社会|恶)|套取|骗取|贪污|受贿|挪用|侵吞|以权谋私|保护伞|超载|偷税|童工",
        ),
        ("punish", r"查处|严查|彻查|取缔|严惩|严打|打击|追究|执法|依法|立案|处罚|拆除|关停|揭发|控告|举报|检举"),
        (
            "redress",
            r"严肃处理|制止|整改|整顿|责令|说法|交代|道歉|赔偿|退还|退款|退费|维权|主持公道|做主|投诉|曝光|监管|合理解释|公道|停止|管一?管",
        ),
        (
            "pleads",
            r"请求|恳请|恳求|求助|帮帮|帮助|帮忙|协助|救救|盼望|期盼|求求|跪求|困难|无助|协调|想想办法|早日|"
            r"尽快(?:修|恢复|安排|建|解决|开通|落实|派)|出行难",
        ),
        (
            "proposes",
            r"建议|增设|增加|加装|设置|设立|改为|改成|优化|调整|推广|推行|延长|应该|应当|不如|借鉴|可否|完善|改进|改善|取消|新增|开设|"
            r"意见|与其|若能|如果能|希望能(?:够)?(?:在|把|将|增|开|设|延)|呼吁|提倡|试点",
        ),
        (
            "formula",
            r"(?:望|请|麻烦)[^，。]{0,6}(?:相关|有关|政府|领导|上级|主管|各级|部门)[^，。]{0,8}(?:处理|解决|介入|重视|关注|督促|过问)|"
            r"望处理|请处理",
        ),
        (
            "accused",
            r"物业|开发商|公司|村干部|村支书|村长|村主任|老板|店主|商家|校方|施工(?:方|单位|队)|工地|城管|派出所|民警|交警|司机|邻居|楼上|"
            r"客服|工作人员|办事员|窗口|居委会|中介|教育局|房管局|住建局|镇政府|村委会|保安|酒店|餐馆|饭店|麻将",
        ),
        (
            "defect",
            r"坏(?:了|的)|破损|破烂|不亮|堵塞|积水|淤积|坑洼|坑坑|年久失修|塌|停水|停电|没有?水|漏水|渗水|老化|不通|泥泞|拥堵|黑臭|恶臭|臭|"
            r"缺(?:少|乏)|没有(?:路灯|红绿灯|公交|信号|电梯|人行道)|不便",
        ),
        ("hardship", r"残疾|低保|患(?:有|病)|重病|手术|癌|尿毒|贫困|孤儿|没钱|无力|下岗|失业|生活(?:费|无着|来源)|年迈|瘫痪|独居"),
        ("policy", r"政策|规定|文件|流程|手续|条件|标准|办理|申请|资格|材料|证明|年限|报销|补贴|计划|规划|进展|进度"),
        ("praises", _PRAISES.pattern),
    )
}
_OPENINGS = tuple(
    re.compile(pattern)
    for pattern in (
        r"^[^。！]{0,30}(?:请问|咨询|想问|问一?下)|^[^。！，]{2,45}(?:吗|呢|何时|什么时候|多久|怎么|如何|是否|能否|哪)[^。！，]{0,14}？",
        r"^[^。！，]{0,6}(?:请求|恳请|恳求|求助|盼|跪求|急求)",
        r"^[^。！，]{0,6}(?:希望|呼吁|请(?!问|求|教))",
        r"^[^。！]{0,10}(?:投诉|质疑|反对|强烈|抗议)",
        r"^[^。！]{0,10}(?:举报|控告|揭发|检举)",
        r"^[^。！]{0,6}(?:反映|关于[^。！]{0,25}问题)",
        r"^[^。！]{0,40}(?:建议|意见|增设|加装|设想|应该|可否)",
    )
)
_SENTENCE = re.compile(r"[^。！？!?；;\n]+[。！？!?；;\n]*")
_FIRST, _LAST, _OPENING = 60, 90, 90
# Beside a row of length 1: loud enough to be heard, too quiet to drown the words. Chosen on letters of a file held out.
CUE_WEIGHT = 0.05


def named_request_type(text: str) -> str | None:
    match = _NAMED.match(fold(text[:30]))
    return {"感谢": PRAISE}.get(match.group(1), match.group(1)) if match else None


def cues_of(text: str) -> Floats:
    """The manner of speaking in numbers; the same length for every text."""
    folded = fold(text[:MAX_CHARACTERS])
    sentences = [match.group().strip() for match in _SENTENCE.finditer(folded)] or [""]
    first, last = sentences[0][:_FIRST], "".join(sentences[-2:])[-_LAST:]
    count = {name: len(pattern.findall(folded)) for name, pattern in _CUES.items()}
    values: list[float] = []
    for name, pattern in _CUES.items():
        found = count[name]
        values += [np.log1p(found), found > 0, found / len(sentences), bool(pattern.search(first)), bool(pattern.search(last))]
    values += [bool(pattern.search(folded[:_OPENING])) for pattern in _OPENINGS]
    values += _sentence_kinds(sentences, folded)
    values += _together(count)
    return np.array(values, np.float32) * CUE_WEIGHT


def _sentence_kinds(sentences: Sequence[str], folded: str) -> list[float]:
    questions = [sentence for sentence in sentences if sentence.endswith(("?", "？"))]
    scornful = sum(bool(_CUES["scorns"].search(question) or _CUES["blames"].search(question)) for question in questions)
    asking = sum(bool(_CUES["asks"].search(question)) for question in questions)
    share = len(questions) / len(sentences)
    ends = [sentences[0].endswith(("?", "？")), sentences[-1].endswith(("?", "？"))]
    counted = [np.log1p(scornful), np.log1p(asking), np.log1p(folded.count("!") + folded.count("！"))]
    return [share, share >= 0.5, bool(questions), *ends, *counted, np.log1p(len(folded)) / 5, np.log1p(len(sentences)) / 3]


def _together(count: dict[str, int]) -> list[float]:
    """What a sum cannot see: a plea is help when nobody is blamed, a question asks when nobody is scorned."""
    blames, law, punish = count["blames"] > 0, count["breaks_law"] > 0, count["punish"] > 0
    scorns = count["scorns"] > 0
    return [
        count["asks"] > 0 and not blames,
        count["asks"] > 0 and (blames or scorns),
        count["defect"] > 0 and not (blames or law),
        count["pleads"] > 0 and not blames,
        count["proposes"] > 0 and not blames,
        count["proposes"] > 1 and not law,
        law and punish,
        law and not punish,
        punish and not law,
        count["formula"] > 0 and blames,
        count["formula"] > 0 and not blames,
        count["breaks_law"] > count["blames"],
    ]


@dataclass(frozen=True)
class RequestTypeReader:
    """A linear reader over the shared row and, from column `width` on, the cues."""

    linear: LinearReader
    width: int

    @classmethod
    def fit(cls, matrix: csr_matrix, texts: Sequence[str], labels: Sequence[str], counts: Floats | None = None) -> RequestTypeReader:
        cues = csr_matrix(np.vstack([cues_of(text) for text in texts]))
        return cls(LinearReader.fit(hstack([matrix, cues]).tocsr(), labels, counts=counts), matrix.shape[1])

    def probabilities(self, text: str, row: Row) -> dict[str, float]:
        cues = cues_of(text)
        numbers = np.arange(self.width, self.width + len(cues), dtype=np.int32)
        joined = np.concatenate([row[0], numbers]), np.concatenate([row[1], cues])
        return dict(zip(self.linear.classes, map(float, self.linear.probabilities(joined))))

    def best(self, text: str, row: Row) -> tuple[str, float]:
        """(request type, probability); what the resident names at the very beginning stands."""
        probabilities = self.probabilities(text, row)
        if probabilities.get(REPORTING, 0.0) < SURE_REPORTING and len(probabilities) > 1:
            probabilities.pop(REPORTING, None)
        name = max(probabilities, key=probabilities.__getitem__)
        if name == PRAISE and len(probabilities) > 1 and not _PRAISES.search(fold(text[:MAX_CHARACTERS])):
            del probabilities[PRAISE]
            name = max(probabilities, key=probabilities.__getitem__)
        named = named_request_type(text)
        return (named, NAMED_CONFIDENCE) if named and named != name else (name, probabilities[name])
