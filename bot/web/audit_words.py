"""What the rows of the audit read like: every action, its subject and its detail in Chinese. Rows keep their codes; only reading changes.

A test finds every action that is written down anywhere and asks for its name here.
"""
from __future__ import annotations

import re

from bot.call_view import ORIGINS
from bot.exporting import FORMATS, WHAT
from bot.statistics import RATES, SOLVED
from bot.ticket_desk import FIELDS

GROUPS: dict[str, dict[str, str]] = {
    "登录": {"login": "登录", "login_refused": "登录失败"},
    "工单": {
        "search": "搜索工单", "read_ticket": "查看工单", "list_tickets": "查看指标背后的工单", "reveal_person": "显示反映人",
        "reveal_refused": "显示反映人被拒", "read_picture": "查看照片", "correct_ticket": "更正工单", "reroute_ticket": "重新派单",
        "supplement_ticket": "补充工单", "resend_delivery": "重发投递",
    },
    "来电": {
        "open_call": "打开通话", "read_call": "查看通话", "take_call": "接手来电", "file_ticket": "登记工单", "undo_merge": "撤销并入",
        "drop_call": "不立单",
    },
    "会话": {
        "read_chat": "查看会话", "take_chat": "接手会话", "write_chat": "会话留言", "file_chat": "会话登记", "give_back_chat": "交还助手",
        "close_chat": "结束会话", "dismiss_chat": "移出等待",
    },
    "批量和数据": {
        "batch": "批量分类", "batch_download": "下载批量结果", "import": "上传历史工单", "import_start": "导入历史工单",
        "import_withdraw": "撤回导入", "export": "导出数据", "export_dashboard": "导出看板",
    },
    "审核、规则和模型": {
        "review_final": "审核定夺", "review_bulk": "成组审核", "save_rules": "保存规则", "train_model": "训练模型",
        "compare_model": "对比模型", "cancel_training": "取消训练", "promote_model": "模型上线", "rollback_model": "模型退回",
        "delete_model": "删除模型", "retire_test_item": "停用考题", "retire_test_items": "停用一批考题",
    },
    "人员和审计": {
        "add_person": "添加人员", "change_person": "修改人员", "reset_password": "重置密码", "unlock_person": "解锁账号",
        "disable_person": "停用账号", "enable_person": "启用账号", "read_audit": "查看审计",
    },
}  # fmt: skip
ACTIONS = {action: label for group in GROUPS.values() for action, label in group.items()}

_COUNTED = {"item": "审核条目", "cluster": "同类组", "batch": "导入批次", "job": "任务", "version": "规则版本"}
_RATES = {SOLVED[0]: SOLVED[1], **{key: name for key, (name, _, _) in RATES.items()}}
_WHOLE = {"tickets": "工单", "audit": "审计", "-": ""}
_FILTERS = {"username": "人员", "action": "动作", "subject": "对象", "since": "从", "until": "到"}


def action_words(action: str) -> str:
    return ACTIONS.get(action, action)


def subject_words(action: str, subject: str) -> str:
    """`batch 4` → 导入批次 4; a number, a name or an id stays what it is."""
    if action == "export":
        what, _, form = subject.partition(".")
        return f"{WHAT.get(what, what)}（{FORMATS.get(form, form)}）"
    kind, _, rest = subject.partition(" ")
    if kind == "rate":
        return _RATES.get(rest, rest)
    if rest and kind in _COUNTED:
        return f"{_COUNTED[kind]} {rest}"
    return _WHOLE.get(subject, subject)


def detail_words(action: str, detail: str) -> str:
    if action in ("correct_ticket", "reroute_ticket"):
        return "、".join(FIELDS.get(name, name) for name in detail.split("、"))
    if action == "read_audit":
        return re.sub(r"(\w+)=(\w*)", lambda part: f"{_FILTERS.get(part[1], part[1])} {ACTIONS.get(part[2], part[2])}", detail)
    if action == "open_call":
        return ORIGINS.get(detail, detail)
    if action == "list_tickets":
        return f"{detail} 件"
    if action == "review_bulk":
        return detail.replace(" items", " 条")
    return "没有过关，强制上线" if detail == "override" else detail


def link_of(action: str, subject: str) -> str:
    """Where the subject can be looked at; empty where there is no page of it."""
    if re.fullmatch(r"[0-9]{8}-[0-9]{4,7}", subject):
        return f"/desk/tickets/{subject}"
    if action.endswith("_call"):
        return f"/desk/calls/{subject}"
    return f"/desk/chats/{subject}" if re.fullmatch(r"[0-9a-f]{32}", subject) and action.endswith("_chat") else ""
