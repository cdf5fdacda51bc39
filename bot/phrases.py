"""Set phrases that mean one thing however the model is trained: titles of our own buttons and words residents know. Pure."""
from __future__ import annotations

# Titles of our own buttons and the set phrases residents know; an exact hit needs no model.
PHRASES = {
    "affirm": "确认 确认提交 提交 对 对的 是 是的 没错 好 好的 可以 行 嗯 ok 👌 确认登记 确定 没问题 全部提交 嗯嗯 对对 好嘞 中 要得",
    "modify": "修改 改一下 我要修改 不对 有误 有问题",
    "anonymous": "匿名 匿名提交 匿名登记",
    "confidential": "保密 保密提交",
    "split_yes": "分开登记 分开 分开办 两件分开",
    "split_no": "合成一件 合并 一起办 不用分 合在一起",
    "cancel": "取消 算了 不报了 不投诉了 取消登记 不登记了",
    "ask_progress": "进度 查进度 查询进度 办到哪了 查一下进度",
    "supplement": "补充情况 补充 我要补充 补充说明",
    "urge": "催办 催一下 催一催",
    "withdraw": "撤回 撤回工单 确定撤回 撤销工单",
    "keep": "不撤 不撤回 先不撤",
    "ask_human": "转人工 人工 人工客服 人工服务 转人工服务",
    "no_phone": "不留 不留电话 不用留 不方便留",
    "file_enquiry": "登记 登记咨询 我要登记",
    "ask_capability": "帮助 功能 怎么用 你能做什么 ?",
    # Who only announces a matter is asked to tell it.
    "greet": "你好 您好 在吗 hi hello 喂 我要反映问题 我要反映 反映问题 我要投诉 我要举报 我要咨询 我要求助 我要提建议 我有事要说 我要说事",
    "thank": "谢谢 谢谢你 多谢 感谢 谢了 知道了 晓得了 收到 明白 明白了 好的谢谢 我知道了 了解",
}

# Of these a phrase can be said out of the blue, so a button of the account's menu may send it. Not withdrawing: a second
# tap would confirm it.
ANY_TIME = ("greet", "ask_capability", "ask_progress", "supplement", "urge", "anonymous", "confidential", "ask_human")


def menu_keys() -> tuple[str, ...]:
    """What a menu button may send, in the order of ANY_TIME."""
    return tuple(phrase for intent in ANY_TIME for phrase in PHRASES[intent].split())
