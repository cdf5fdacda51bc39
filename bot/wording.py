"""How callers' words are written down in a work order: third person, plain official words, nothing a caller did not say.

A table entry says the same thing in other words; none adds a fact. Pure.
"""
from __future__ import annotations

import re
from collections.abc import Sequence

Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# Dialect and loose talk in the common words of a work order.
_OFFICIAL = _rules(
    (r"冇得|没得(?!到|意)|么有|木有", "没有"),
    (r"(?:一个人影|一个人|半个人影)(?:都|也)?没有?(?:看到|见到)?|没有?一个人|没(?:有|得)人(?!民)|没人(?!民)", "无人"),
    (r"([津补]贴|补助|低保|养老金|退休金|抚恤金|生活费|养老钱)(?:咋|怎么|为啥|为什么|给|我|就|也|都|又)+(?:没有了?$|没了|停了?|断了|不发了|不给了)", r"\1停发"),
    (r"([津补]贴|补助|低保|养老金|退休金|抚恤金|生活费|养老钱)([^，。]{0,4}?)(?:就|也|都|给)*(?:没有了?$|没了|停了|断了|不发了|不给了)", r"\1\2停发"),
    (r"没有?(给|发|修|退|办|装|接|拉|扫|通电|通水|通过|盖章|审批|交房|到账|处理|解决|结|拿到|收到|打表|兑现|安装)(?!法)", r"未\1"),
    (r"一[分毛]钱?(?:都|也)?[没未]有?([给发得拿见])", r"一分未\1"),
    (r"(?:都|也|全)(?=[没未不无])", ""),
    (r"没办法|没得法|没法(?:子)?", "无法"),
    (r"(?:能不能|可不可以|可以不可以|能不能够)", "能否"),
    (r"是不是", "是否"),
    (r"有没有", "有无"),
    (r"算不算", "是否算"),
    (r"要不要", "是否要"),
    (r"咋个?(?=[办弄搞管说修个申交算])|啷个(?=办|弄)|怎样", "怎么"),
    (r"晓得", "知道"),
    (r"哪搭|哪达|哪疙瘩", "哪里"),
    (r"娃娃们?|娃儿?们?(?=[们上没不在掉被也都])|小孩子?|伢儿?|细伢子", "孩子"),
    (r"老婆(?!婆)|媳妇儿?", "妻子"),
    (r"老公(?!公|寓)", "丈夫"),
    (r"老爷子|老太太|老头儿?|老奶奶|老婆婆|老大爷|老大娘", "老人"),
    (r"那?男的|那个男人", "男子"),
    (r"那?女的|那个女人", "女子"),
    (r"起屋|起房子?", "建房"),
    (r"工钱|血汗钱", "工资"),
    (r"(个|上|下|这|[一二两三几])(个?)礼拜", r"\1\2星期"),
    (r"搁(?=[那这])|搁", "在"),
    (r"煤气味儿|煤气味道?", "煤气味"),
    (r"(停[水电气暖])停了?(?=[一二两三四五六七八九十半几好\d])", r"\1"),
    (r"([喊叫推摇拍])[他她它佢]+(?:都|也)?不(答应|应|醒|动|理)", r"\1不\2"),
    (r"(咚|哐|轰|嗡|呼|哗|咣|吱|滴|砰|当){2,}(?:的|地)?", ""),
    (r"亲苗费", "青苗费"),
    (r"把帐", "把账"),
    (r"黑灯瞎火(?:的)?|黑咕隆咚(?:的)?", "漆黑"),
    (r"(?<=[了着过的])(?:呢|吧|嘛|呗|哩|咧)$", ""),
    (r"咧|哩(?=$)|嘞", "了"),
)  # fmt: skip
# What weighs nothing in a written sentence.
_EMPTY = re.compile(
    r"特别(?!是|困难)|非常|实在是?|真的是?|真是|简直|根本|压根|老是|总是|居然|竟然|这个样子|什么的|之类的|的话|来着|得很$|死了$|的不得了|得不得了|(?<=[\u4e00-\u9fff])啊(?=[\u4e00-\u9fff])|(?<=[一二两三四五六七八九十])个?(?=块钱)"
)
_ENDING = re.compile(r"(?:了吧|的吧|啊|呀|吧|嘛|呢|哦|噢|哈|呗|哩|撒|诶|着呢|来着|的话|好吧|行吧|是吧|对吧)+$")
# Relatives and what is one's own, of the first person.
_PERSONS = _rules(
    (r"(?:我|俺|咱)们?(?=这?(?:小区|村|厂|单位|楼|学校|公司|工地|社区|镇|乡|街|县|院|栋|队|组|班))", "该"),
    (r"该这", "该"),
    (r"(?:我|俺|咱)(?:妈妈?|娘|老娘|母亲)", "其母亲"),
    (r"(?:我|俺|咱)爸妈", "其父母"),
    (r"(?:我|俺|咱)(?:爸爸?|爹|老爹|老爸|父亲)", "其父亲"),
    (r"(?:我|俺|咱)(?:妻子|爱人|对象|丈夫)", lambda m: "其" + m.group()[1:]),  # type: ignore[arg-type]
    (r"(?:我|俺|咱|自己)?(?:孩儿)", "其孩子"),
    (r"(?:我|俺|咱)们?[这那](?:边|里|儿(?!子))", "当地"),
    (r"(?:我|俺|咱)们?(?=[几好]个|这[几个])", ""),
    (r"(?:我们|俺们|咱们|咱|俺|我)", "其"),
    (r"是其的$", "归其所有"),
    (r"其的", "其"),
)
_OWN_PEOPLE = _rules(
    (r"(?:我|俺|咱)们?(?:妈妈?|娘|老娘|母亲)", "母亲"),
    (r"(?:我|俺|咱)们?(?:爸爸?|爹|老爹|老爸|父亲)", "父亲"),
    (r"(?:我|俺|咱)们?(?=(?:儿子|女儿|孩子|小孩|闺女|弟弟?|妹妹?|哥哥?|姐姐?|爷爷|奶奶|外婆|外公|爱人|老公|老婆|丈夫|妻子|孙子|孙女|岳父|婆婆))|(?:我|俺|咱)们?家(?!里)(?=.{2})", ""),
)
_ADDRESS = re.compile(r"恁|你们?|您")


def official(text: str) -> str:
    """The same in the common words of a work order."""
    for pattern, replacement in _OFFICIAL:
        text = pattern.sub(replacement, text)
    return _ENDING.sub("", _EMPTY.sub("", text))


def own_people(text: str) -> str:
    """The caller's people as a title names them: "我爸" is "父亲"."""
    for pattern, replacement in _OWN_PEOPLE:
        text = pattern.sub(replacement, text)
    return text


def third_person(text: str) -> str:
    """Of the caller instead of by the caller."""
    for pattern, replacement in _PERSONS:
        text = pattern.sub(replacement, text)
    return text


def speaks_to_the_agent(text: str) -> bool:
    return bool(_ADDRESS.search(text))
