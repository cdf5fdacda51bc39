"""Files that staff send, in pieces: a proxy's size limit, a dropped line or a restart loses nothing, and no request is large.

A file holds residents' words: it lies under VAR_DIR with a name nobody can guess, only its owner finds it, and it goes after KEPT_DAYS.
"""
from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".csv", ".xlsx", ".jsonl", ".txt", ".json")
MAX_SIZE = 300 * 1024 * 1024
MAX_PIECE = 8 * 1024 * 1024
KEPT_DAYS = 7
_ID = re.compile(r"[0-9a-f]{32}")


class UploadError(ValueError):
    """The file or piece cannot be taken; the text is what the person reads."""


@dataclass(frozen=True)
class Upload:
    id: str
    name: str  # as the person's computer calls it
    size: int  # announced
    owner: str
    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / f"file{Path(self.name).suffix.lower()}"

    @property
    def received(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def complete(self) -> bool:
        return self.received == self.size


class Uploads:
    def __init__(self, var_dir: Path) -> None:
        self._root = var_dir / "uploads"

    def begin(self, name: str, size: int, *, owner: str) -> Upload:
        """Raises UploadError."""
        name = Path(name.replace("\\", "/")).name[-120:]
        if Path(name).suffix.lower() not in SUFFIXES:
            raise UploadError(f"只能上传 {'、'.join(SUFFIXES)} 文件")
        if not 0 < size <= MAX_SIZE:
            raise UploadError("文件是空的" if size == 0 else f"文件太大，最多 {MAX_SIZE // 2**20} MB，请分成几个")
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget_old()
        if shutil.disk_usage(self._root).free < 3 * size:
            raise UploadError("服务器磁盘空间不够，请联系管理员")
        directory = self._root / secrets.token_hex(16)
        directory.mkdir(mode=0o700)
        about = {"name": name, "size": size, "owner": owner}
        (directory / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        return Upload(directory.name, name, size, owner, directory)

    def find(self, upload_id: str, *, owner: str) -> Upload:
        """Raises UploadError; somebody else's file is not there."""
        directory = self._root / upload_id
        if not _ID.fullmatch(upload_id) or not (directory / "about.json").is_file():
            raise UploadError("没有这个文件，可能已经过期，请重新上传")
        about = json.loads((directory / "about.json").read_text(encoding="utf-8"))
        if about["owner"] != owner:
            raise UploadError("没有这个文件，可能已经过期，请重新上传")
        return Upload(upload_id, about["name"], about["size"], owner, directory)

    def append(self, upload: Upload, offset: int, piece: bytes) -> int:
        """Bytes received now. A piece that came before changes nothing. Raises UploadError when one is missing before it."""
        received = upload.received
        if offset + len(piece) <= received:
            return received
        if offset != received or received + len(piece) > upload.size:
            raise UploadError("文件传乱了，请重新上传")
        with open(os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(piece)
        return upload.received

    def remove(self, upload: Upload) -> None:
        shutil.rmtree(upload.directory, ignore_errors=True)

    def _forget_old(self) -> None:
        for directory in self._root.iterdir():
            if time.time() - directory.stat().st_mtime > KEPT_DAYS * 86400:
                shutil.rmtree(directory, ignore_errors=True)
