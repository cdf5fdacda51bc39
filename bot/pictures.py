"""Pictures that residents send, from whatever channel: made small, upright and free of metadata, written whole or not at all."""
from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image, ImageOps

MAX_PICTURE_BYTES = 10 * 1024 * 1024
MAX_PICTURE_PIXELS = 50_000_000
PICTURE_SIDE = 1600


class BadPicture(ValueError):
    """The upload is not a picture we can open; the message is for the resident."""


def clean_picture(data: bytes) -> bytes:
    """The picture as a JPEG of at most PICTURE_SIDE, upright, without any metadata. Raises BadPicture."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise BadPicture("这张照片的尺寸太大，请换一张小一点的。")
            image.draft("RGB", (PICTURE_SIDE, PICTURE_SIDE))  # lets JPEG decode at a fraction of its size
            flat = image.convert("RGBA" if image.has_transparency_data else "RGB")
            flat.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            upright = ImageOps.exif_transpose(flat).convert("RGBA")  # convert() kept the orientation tag
    except BadPicture:
        raise
    except Exception as error:  # a decoder on hostile bytes raises anything: struct, zlib, memory errors; all mean the same here
        raise BadPicture("这不是能打开的照片，请发 JPG、PNG 或 WebP 格式的图片。") from error
    # Painted onto a fresh image: place, time, device and comments of the original have no way to come along.
    fresh = Image.new("RGB", upright.size, "white")
    fresh.paste(upright, mask=upright.getchannel("A"))
    target = io.BytesIO()
    fresh.save(target, "JPEG", quality=85, optimize=True)
    return target.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """On the disk when this returns; never half a file under its final name. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
