"""Urgency and emergency: words of danger, guarded against denial, past, hypothesis and look-alike names, beside the trained reader.

The rules are for the cases a trained reader must not miss and for saying which number to ring; the reader is for
emergencies that no keyword names. Levels after the public rule of several hotlines: 特急 life or public safety now,
紧急 harm or loss soon, 一般 the rest.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.text import clauses, fold

ROUTINE, URGENT, CRITICAL = "一般", "紧急", "特急"

# (kind, pattern). The kind decides the numbers in the first sentence of the reply (nlu_data/catalogue/emergencies.yml).
DANGERS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("suicide", r"(?:想|要|准备|正|说|在|欲|嚷着)[^，。]{0,6}(?:跳楼|跳河|跳江|跳桥|跳下|轻生|自杀|寻短见|割腕|上吊|往下跳)|(?:站|坐|爬|翻)(?:在|到|上|出)[^，。]{0,10}(?:楼顶|天台|塔吊|桥栏|栏杆|护栏|窗台|窗户外|阳台外)(?:上|外)?|往下跳|不想活|不活了|活着没(?:意思|劲|啥意思|有意思)|活不下去了|活够了|想死|去死了|死了算了|一了百了|遗书|来世再|永别|(?:药|绳子)[^，。]{0,6}(?:摆好|准备好|备好|买好)|(?:照顾好|托给|交给)[^，。]{0,10}(?:别怪我|对不起|拜托)|别怪我[^，。]{0,8}(?:走|去|先)|喝了?(?:农药|百草枯|敌敌畏)|吞了?(?:一瓶|一把|半瓶|很多|好多)?(?:安眠药|药)|割(?:了)?(?:手)?腕"),
        ("minor", r"(?:正|在|又|还)[^，。]{0,4}(?:打|揍|抽|掐|烫|虐待|猥亵|性侵|强奸|关|锁|捆|绑)[^，。]{0,6}(?:孩子|小孩|娃|女童|男童|幼童|婴儿|学生|女儿|儿子)|(?:孩子|小孩|娃|女童|男童)[^，。]{0,10}(?:被打|被关|被锁|挨打|打得|打嘞|抽得|满身是伤|被猥亵|被性侵|被拐|被抱走|被带走)|(?:孩子|小孩|娃|女儿|儿子|闺女|孙子|孙女|弟弟|妹妹|女童|男童)[^，。]{0,12}(?:不见了|走丢|丢了|失踪|找不到了|找不着了|没(?:有)?回(?:来|家))"),
        ("violence", r"砍人|捅人|(?:被|拿刀|给)[^，。]{0,4}(?:砍|捅)了?|持刀|(?:拿|提|拎|举|抄)(?:着|起|把)?[^，。]{0,4}(?:刀|钢管|砍刀|菜刀|棍|锄头|铁锹|斧头)|打群架|群殴|打起来了|干起来了|干仗|正在打|往死里打|掐着?(?:我|她|他|脖子)|入室|(?:撬|砸|踹|踢)(?:我家?|我们家?|邻居|隔壁|对面)?(?:的)?(?:门|窗|锁)|抢劫|绑架|劫持|救命|家暴|打得(?:满脸|头破|鼻青)|头破血流|拖上车|尾随|跟(?:着|踪)我|不让(?:我|她|他|人)?(?:出门|走|出去|离开)[^，。]{0,8}(?:打|关|锁|手机)"),
        ("gas", r"(?:煤气|燃气|天然气|瓦斯|液化气|液化石油气)[^，。]{0,10}(?:泄漏|泄露|漏了|漏气|在漏|味|中毒|爆|挖断|挖破|断了|呲呲|嘶嘶)|煤气中毒|一氧化碳|漏(?:煤|燃)气|(?:氨气|液氨|氯气|化学品|危化品|毒气|汽油|油罐|槽罐)[^，。]{0,8}(?:泄漏|泄露|漏|侧翻|撞)|(?:黄烟|毒烟|刺鼻)[^，。]{0,14}(?:睁不开|吐|咳|晕)|(?:头晕|恶心|想吐)[^。]{0,20}(?:炉子|煤炉|炭火|烧炭|炭盆|热水器)|(?:炉子|煤炉|蜂窝煤|炭火|烧炭|炭盆|热水器)[^。]{0,24}(?:头晕|恶心|想吐|喊不|叫不|不醒|晕)"),
        ("fire", r"着火|起火|失火|着起来|烧起来|烧着了|燃起来|爆燃|自燃|火苗|浓烟|黑烟|冒(?:黑|白|浓)?烟|爆炸|炸了|火灾|大火|火光|救火|火势|火快|(?:在|还在|正)烧(?:着)?|门把手[^，。]{0,4}烫|湿毛巾|呛得[^，。]{0,8}(?:睁不开|出不来|下不去|喘不)"),
        ("medical", r"晕倒|昏迷|昏倒|昏过去|晕过去|休克|没(?:有)?(?:了)?(?:呼吸|心跳|脉搏|反应|知觉|气了)|(?:叫|喊|摇|推)(?:也|都|了)?[^，。]{0,4}不(?:醒|应|动|答应|答)|不省人事|没气|不会动|动不了了|抽搐|在抽|口吐白沫|吐白沫|大出血|血流不止|一直(?:在)?流血|流(?:了)?(?:好|很)多血|喷血|满(?:脸|头|身|地)(?:是|都是|的)?血|血泊|脸(?:都|色)?(?:发)?(?:紫|青|白得)|嘴唇(?:发|都)?(?:紫|青)|喘不(?:上|过)(?:来)?气?|呼吸困难|气都?喘不|胸口[^，。]{0,6}(?:疼|痛|闷)[^，。]{0,6}(?:冒汗|不行|要命|喘|厉害)|心梗|心脏病(?:犯|发)|中风|脑溢血|脑出血|噎住|噎着|卡(?:住)?(?:了)?[^，。]{0,4}(?:嗓子|喉咙|气管)|(?:嗓子|喉咙|嘴里)[^，。]{0,4}卡|触电|被电(?:倒|了|着|到)|电着了|溺水|要生了|羊水破|(?:食物|农药|药物)中毒|(?:误|喝|吃)(?:错|了)[^，。]{0,6}(?:老鼠药|农药|百草枯|洁厕|消毒液|毒蘑菇|一瓶药|敌敌畏)|毒蛇|被蛇咬|中暑[^，。]{0,8}(?:倒|昏|不)|热射病|烧到4[0-2]|抽(?:起来|过去|风)|救护车[^，。]{0,6}(?:快|赶紧|先|来)|(?:倒|躺|摔)(?:在|到)[^，。]{0,8}(?:地上|厕所|卫生间|路边|楼梯|床上|门口|雪地|水里)[^。]{0,12}(?:不动|不醒|没反应|叫|喊|血|抽|起不来)"),
        ("crash", r"(?:出|撞)?车祸|撞(?:到|了|飞|倒|上)[^，。]{0,6}人|连环(?:相撞|追尾)|翻车|侧翻|翻(?:到|进)[^，。]{0,6}(?:沟|河|水)|车里[^，。]{0,6}(?:被困|喊|拍|卡)|卷(?:到|进)[^，。]{0,6}(?:轮|车底)|(?:车|火车)[^，。]{0,6}轧"),
        ("trapped", r"(?:困|卡|关|埋|压|堵|锁)(?:在|住|了)[^，。]{0,10}(?:电梯|楼里|楼上|屋里|废墟|井|车里|洞|水里|土里|下面|底下|里面|里头|河滩|山上|顶上|隧道|孤岛)|电梯[^，。]{0,10}(?:困|卡住|卡在|关|坠)[^，。]{0,6}|电梯[^，。]{0,8}人[^，。]{0,6}(?:喊|拍门|哭|出不来)|里(?:头|面)(?:还)?(?:有人|关着)[^，。]{0,8}(?:喊|拍|哭|出不来)|(?:掉|落|摔|栽|滑|跌)(?:进|到|下|在|落)?(?:了)?[^，。]{0,4}(?:井|河|水里|水库|坑|湖|塘|沟|池|江|海)|落水|跌落|掉水里|被困|压(?:着|住|到)(?:人|了)|(?:底下|下面)[^，。]{0,4}(?:压|埋)|埋(?:了|住|在)|沉下去|冲走|水[^，。]{0,6}(?:到|没过|淹到|涨到)(?:了)?(?:胸口|脖子|腰|大腿|窗|车顶|床|一楼|屋顶)|(?:下井|下去)[^，。]{0,12}(?:没上来|没动静|没回应)|反锁[^，。]{0,8}(?:车里|屋里)"),
        ("collapse", r"(?:塌|垮|坍|倒)(?:了|下来|塌|方|掉)[^，。]{0,10}(?:人|车|房|户|学生|工人)|(?:正在|马上|快要|眼看)[^，。]{0,4}(?:塌|垮|倒)|(?:房|楼|桥|墙|棚)[^，。]{0,6}(?:塌|垮)(?:了|下来)|整体垮塌|山体滑坡|滑坡了|泥石流(?:来|下)|决堤|溃坝|堤(?:破|决|垮)|坝(?:破|决|垮)|山洪|山垮|高压线[^，。]{0,6}(?:断|掉|落)|(?:电线|电缆)[^，。]{0,8}(?:冒火|打火|火花|噼里啪啦)|脚手架[^，。]{0,6}(?:倒|塌)|冒顶|失联"),
    )
)

# A danger word inside one of these is part of a name, a number or an idiom.
LOOK_ALIKES = re.compile(
    r"没有困|没困|救火英雄|救火员|炸了?锅|后院起火|想死的心|防溺水|防踩踏|捅刀子|(?:急|渴|干|气|嗓子)[^，。]{0,3}冒烟|打不着火|打着火|点着火|着火点|冒烟的?(?:店|铺|摊)|火锅|火车|火化|火葬|火炉|火腿|灭火器|消防(?:栓|通道|车|队|大队|站|验收|演练|栓|证|局|设施|宣传|水)|防火|火警电话|"
    r"跳楼(?:价|大?甩卖|大?促销|机)|跳(?:绳|舞|广场舞)|爆炸头|爆炸性|信息爆炸|炸鸡|炸串|油炸|炸酱|"
    r"1(?:10|19|20|22)(?:路|平|号|元|块|米|斤|千伏|kv|分|公里|岁|人|户|多)|"
    r"(?:气|笑|累|饿|烦|吵|热|冷|急|愁|困|渴|臭|羞|难受|呛|吓|恶心|憋屈?|闷|疼|忙|冻)死|想死你|死活|要死不活|打死(?:也|都)不|煤气灶|燃气灶|燃气表|煤气费|燃气费|打架子|"
    r"(?:演|假|模拟|电影|电视剧|短视频|游戏|小说|新闻|故事)里?|演习|演练|卡(?:住|在)(?:审核|流程|这一步|网上)"
)
_DENIED = re.compile(r"(?:不是|并不是|不算|没有|没|并没|还没|并非|不曾|未|别说|又不|幸好没|好在没|也没|没人|倒没|排除)[^，。！？]{0,5}$")
_HYPOTHETICAL = re.compile(r"(?:要是|如果|假如|万一|若是|若|一旦|怕|害怕|担心|生怕|会不会|容易|可能会|早晚|迟早|随时(?:可能|会)?|难免|避免|防止|预防|假设|以防|恐怕|恐)[^，。！？]{0,12}$")
_PAST = re.compile(r"车祸(?:后|以后|之后|落下|导致|造成|致|那)|出(?:过|了)?车祸[^，。]{0,6}(?:瘫|残|一直|后)|去年|前年|大前年|上个月|上月|上周|上回|上次|以前|从前|曾经|当年|早年|那年|年前|几年前|几个月前|之前|半年前|昨天[^，。]{0,8}已经|过去|历史上|小时候")
_OVER = re.compile(r"差点|差一点|险些|已经(?:扑灭|灭了|处理|救出|出院|没事|解决|脱险|修好|抓|赔|送医院)|(?:都|现在|人)(?:没事|好了|出院|救出来)了?|后来|早就(?:灭|好|没事)|事后|回访|虚惊一场|误会|没受伤|不碍事|不用(?:叫|打)(?:救护车|120|110)|不(?:急|要紧)")
_ASKING = re.compile(r"打什么电话|打哪个电话|怎么(?:预防|办理|报销|收费|申请|算|界定|定性|赔)|收费标准|多少钱|什么(?:标准|流程|规定|手续)|有没有(?:规定|讲座|培训)|怎么报名|咨询一?下|想问一?下|请问|建议|宣传|培训|科普|演示|讲座|感谢|表扬|谢谢")

URGENT_SIGNS = re.compile(
    r"停(?:了)?[水电气暖]|断(?:了)?[水电气]|没(?:有)?(?:水|电|暖气|燃气)(?:用|了|喝)?|塌陷|空鼓|下沉|井盖[^，。]{0,6}(?:没|丢|缺|翘|坏|破|不见)|没(?:有)?井盖|外墙[^，。]{0,6}(?:脱落|掉)|(?:瓷砖|墙皮|玻璃|砖头|广告牌)[^，。]{0,6}(?:掉下|砸|脱落|要掉|快掉)|"
    r"(?:堵|占)[^，。]{0,6}(?:消防|生命)通道|(?:消防|生命)通道[^，。]{0,8}(?:堵|占)|(?:电线|线缆|电缆)[^，。]{0,6}(?:裸露|垂|掉|漏电|拖)|漏电|裸露[^，。]{0,4}(?:电线|线)|危房|裂(?:了|开)[^，。]{0,6}(?:缝|口子)[^，。]{0,6}(?:房|墙|梁)|护栏[^，。]{0,6}(?:断|倒|没|坏|缺)|"
    r"安全隐患|摔(?:倒|伤|了|跤)|砸(?:到|伤)|绊倒|掉下去|陷(?:进|下)去|差点[^，。]{0,8}(?:掉|撞|砸|摔|踩|绊|出事)|(?:井盖|盖子|盖板)[^，。]{0,6}没|没(?:有)?(?:钱|地方)(?:吃饭|住|治|看病|交学费)|揭不开锅|断(?:药|粮|顿)|吃不上饭|等(?:着|钱)(?:救命|做手术|手术|治病)|(?:癌|尿毒症|白血病|icu|透析|重病|大病|瘫痪)[^，。]{0,30}(?:没钱|借遍|掏空|交不起|治不起|欠费)|(?:没钱|借遍|掏空|交不起|治不起|欠费)[^，。]{0,30}(?:癌|尿毒症|白血病|icu|透析|手术|住院)|"
    r"(?:几十|十几|二十|三十|四十|五十|六十|上百|\d{2,})[来多几]?[个号]?(?:人|名|位|口子|农民工|工人|工友)[^，。]{0,12}(?:工资|工钱|血汗钱)|(?:工资|工钱|血汗钱)[^，。]{0,20}(?:几十|十几|二十|三十|四十|五十|上百|\d{2,})[来多几]?[个号]?(?:人|名|位|农民工|工人|工友)|"
    r"(?:明天|后天|今天|今晚|本周|这周|还有[一二两三\d]天)[^，。]{0,10}(?:截止|到期|最后|开庭|报名结束|交钱|强拆|拆)|截止[^，。]{0,6}(?:明天|后天|今天)"
)


@dataclass(frozen=True)
class Urgency:
    level: str
    confidence: float
    emergency: bool
    kind: str | None
    reasons: tuple[tuple[int, int, str], ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "confidence": round(self.confidence, 4),
            "emergency": self.emergency,
            "kind": self.kind,
            "reasons": [text for _, _, text in self.reasons],
            "spans": [[start, end] for start, end, _ in self.reasons],
        }


def judge_urgency(text: str, probabilities: Mapping[str, float]) -> Urgency:
    """Level, emergency and the words that say so. `probabilities` come from the trained reader, by level."""
    folded = fold(text)
    dangers = find_dangers(folded)
    critical = probabilities.get(CRITICAL, 0.0)
    quiet = bool(_OVER.search(folded) or _ASKING.search(folded))
    threshold = CRITICAL_WITH_SIGN if dangers else CRITICAL_ALONE if len(text) >= LEAST_TOLD else 1.1
    if any(_PLAIN_CRY.search(folded[start : end + 2]) for _, start, end in dangers) and len(text) <= SHORT_CRY and not quiet:
        threshold = 0.0
    if critical >= (max(threshold, CRITICAL_QUIET) if quiet else threshold):
        kind = dangers[0][0] if dangers else "unknown"
        return Urgency(CRITICAL, max(critical, 0.5), True, kind, tuple((s, e, text[s:e]) for _, s, e in dangers))
    signs = tuple((match.start(), match.end(), text[match.start() : match.end()]) for match in URGENT_SIGNS.finditer(folded))
    urgent = probabilities.get(URGENT, 0.0) + critical
    if urgent >= (URGENT_WITH_SIGN if signs else URGENT_ALONE):
        return Urgency(URGENT, max(urgent, 0.5), False, None, signs)
    return Urgency(ROUTINE, max(1.0 - urgent, 0.5), False, None, ())


# Without a danger word fewer characters than this tell too little ("在家").
LEAST_TOLD = 8
# A cry this short with one of these needs no reader's opinion.
SHORT_CRY = 24
_PLAIN_CRY = re.compile(r"落水|持刀|着火了|起火了|失火|救命|晕倒|昏迷|触电|溺水|跳楼|砍人|捅人|泄漏|漏气|煤气中毒|没呼吸|不想活")
# Chosen on held-out folds of our own texts so that no emergency is missed at the price of few false alarms.
CRITICAL_WITH_SIGN, CRITICAL_ALONE, CRITICAL_QUIET = 0.05, 0.35, 0.7
URGENT_WITH_SIGN, URGENT_ALONE = 0.1, 0.4


def find_dangers(folded: str) -> list[tuple[str, int, int]]:
    """(kind, start, end) of danger words in a folded text that are neither denied, past, hypothetical nor look-alikes."""
    shadows = [match.span() for match in LOOK_ALIKES.finditer(folded)]
    spans = clauses(folded)
    found: list[tuple[str, int, int]] = []
    for kind, pattern in DANGERS:
        for match in pattern.finditer(folded):
            start, end = match.span()
            if any(start < shadow_end and shadow_start < end for shadow_start, shadow_end in shadows):
                continue
            clause = next((span for span in spans if span[0] <= start < span[1]), (0, len(folded)))
            before = folded[clause[0] : start]
            if _DENIED.search(before) or _HYPOTHETICAL.search(before) or _PAST.search(folded[clause[0] : clause[1]]):
                continue
            found.append((kind, start, end))
    return found
