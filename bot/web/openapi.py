"""GET /openapi.json: the machine interface as OpenAPI 3.0, written by hand because it is the contract."""
from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from bot.ticket import STATUS_FROM_DISPATCH


def create_blueprint() -> Blueprint:
    blueprint = Blueprint("openapi", __name__)

    @blueprint.get("/openapi.json")
    def show() -> Response:
        return jsonify(document())

    return blueprint


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _answer(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


STRING: dict[str, Any] = {"type": "string"}
REFUSALS = {
    "400": _answer("请求不合要求", "Error"),
    "401": _answer("没有权限", "Error"),
    "413": _answer("内容太长", "Error"),
    "429": _answer("发得太快", "Reply"),
    "503": _answer("暂时不可用", "Error"),
}


def document() -> dict[str, Any]:
    chat = _object(
        {
            "sender": {"type": "string", "minLength": 1, "maxLength": 128},
            "text": {"type": "string", "maxLength": 4000},
            "message_id": {"type": "string", "minLength": 1, "maxLength": 128},
            "location": _object(
                {
                    "lat": {"type": "number", "minimum": -90, "maximum": 90},
                    "lng": {"type": "number", "minimum": -180, "maximum": 180},
                    "label": {"type": "string", "maxLength": 200},
                },
                ["lat", "lng"],
            ),
            "scene": {"type": "string", "maxLength": 64},
        },
        ["sender"],
    )
    turn = _object({"speaker": {"type": "string", "enum": ["agent", "citizen"]}, "text": STRING}, ["speaker", "text"])
    parse = {"oneOf": [_object({"text": {"type": "string", "maxLength": 20000}}, ["text"]), _object({"turns": {"type": "array", "items": turn, "minItems": 1, "maxItems": 500}}, ["turns"])]}
    heard = _object({**turn["properties"], "turn_id": {"type": "string", "minLength": 1, "maxLength": 64}, "at": {"type": "string", "format": "date-time"}}, ["speaker", "text"])
    call = _object(
        {
            "turns": {"type": "array", "items": heard, "maxItems": 500},
            "caller": {"type": "string", "maxLength": 40, "description": "The number the telephone shows"},
            "agent": {"type": "string", "maxLength": 40, "description": "Username of who has the call"},
            "ended": {"type": "boolean"},
        },
        ["turns"],
    )
    event = _object(
        {
            "type": {"type": "string", "enum": ["ticket.status"]},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": _object(
                {
                    "ticket_number": STRING,
                    "status": {"type": "string", "enum": list(STATUS_FROM_DISPATCH)},
                    "department": {"type": "string", "nullable": True},
                    "note": {"type": "string", "nullable": True},
                    "at": {"type": "string", "format": "date-time"},
                },
                ["ticket_number", "status", "at"],
            ),
        },
        ["type", "data"],
    )
    signature = [{"name": name, "in": "header", "required": True, "schema": STRING} for name in ("webhook-id", "webhook-timestamp", "webhook-signature")]
    number = [{"name": "ticket_number", "in": "path", "required": True, "schema": STRING}]
    return {
        "openapi": "3.0.3",
        "info": {"title": "Minsheng 民声", "version": "1", "description": "Conversational intake of citizens' appeals."},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": _object({"error": STRING}),
                "Reply": _object({"messages": {"type": "array", "items": _object({"text": STRING, "buttons": {"type": "array", "items": _object({"title": STRING, "payload": STRING})}})}, "tickets": {"type": "array", "items": {"type": "object"}}}),
                "Parse": {"type": "object", "description": "See the parse in the README."},
                "Ticket": {"type": "object"},
                "Call": _object({"call_id": STRING, "state": STRING, "version": {"type": "integer"}, "turns": {"type": "integer"}, "agent": {"type": "string", "nullable": True}}),
                "Status": _object({"status": STRING}),
            },
        },
        "paths": {
            "/api/chat": {"post": {"summary": "One message of a resident", "security": [{"token": []}], "requestBody": _body(chat), "responses": {"200": _answer("回答", "Reply"), **REFUSALS}}},
            "/api/parse": {"post": {"summary": "Understand a text or a call", "security": [{"token": []}], "requestBody": _body(parse), "responses": {"200": _answer("理解结果", "Parse"), **REFUSALS}}},
            "/api/calls/{call_id}/turns": {"post": {"summary": "What is said in a call, as it is said; the first delivery opens it, a repeated turn_id is one turn", "security": [{"token": []}], "parameters": [{"name": "call_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.@-]{1,64}$"}}], "requestBody": _body(call), "responses": {"200": _answer("已记下", "Call"), **{code: REFUSALS[code] for code in ("400", "401", "413", "503")}}}},
            "/api/tickets/{ticket_number}": {"get": {"summary": "One ticket", "security": [{"token": []}], "parameters": number, "responses": {"200": _answer("工单", "Ticket"), "401": _answer("没有权限", "Error"), "404": _answer("没有这个工单", "Error")}}},
            "/dispatch/events": {"post": {"summary": "A signed status event (Standard Webhooks)", "parameters": signature, "requestBody": _body(event), "responses": {"200": _answer("已记录", "Status"), "403": _answer("签名不对", "Error"), "404": _answer("没有这个工单", "Error"), "413": _answer("内容太长", "Error"), "422": _answer("字段不对", "Error"), "503": _answer("暂时不可用", "Error")}}},
            "/healthz": {"get": {"summary": "The process lives", "responses": {"200": _answer("正常", "Status")}}},
            "/readyz": {"get": {"summary": "Database and model are usable", "responses": {"200": _answer("可用", "Status"), "503": _answer("不可用", "Status")}}},
        },
    }  # fmt: skip
