"""Receiving files of staff in pieces; what becomes of them is up to the page that asked."""
from __future__ import annotations

from flask import Blueprint, Response, abort, jsonify, request

from bot.services import Services
from bot.uploads import MAX_PIECE, UploadError, Uploads
from bot.web.staff import current_member, staff_blueprint, staff_required


def create_blueprint(services: Services) -> Blueprint:
    blueprint = staff_blueprint("uploads", __name__, url_prefix="/desk/uploads")
    uploads = Uploads(services.settings.var_dir)

    @blueprint.errorhandler(UploadError)
    def refuse(error: UploadError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    @blueprint.post("")
    @staff_required("agent")
    def begin() -> Response:
        body = request.get_json(silent=True) or {}
        name, size = body.get("name"), body.get("size")
        if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
            abort(400, "请选择要上传的文件。")
        upload = uploads.begin(name, size, owner=current_member().username)
        return jsonify(id=upload.id, piece=MAX_PIECE)

    @blueprint.post("/<upload_id>")
    @staff_required("agent")
    def append(upload_id: str) -> Response:
        upload = uploads.find(upload_id, owner=current_member().username)
        offset = request.args.get("offset", type=int, default=0)
        return jsonify(received=uploads.append(upload, offset, request.get_data(cache=False)))

    return blueprint
