"""A font on this machine that can write Chinese: asked of fontconfig, else looked for where distributions put them."""
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

HOW_TO_INSTALL = "no Chinese font is installed here; on Debian or Ubuntu: apt-get install fonts-noto-cjk"
_BOLD, _REGULAR = 200, 80  # fontconfig's weights
# Path and the number of the simplified Chinese face in it, heavy ones first.
KNOWN = (
    ("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc", 2),
    ("/usr/share/fonts/google-noto-cjk/NotoSansCJK-Bold.ttc", 2),
    ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", 2),
    ("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc", 0),
    ("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc", 0),
    ("/usr/share/fonts/wqy-zenhei/wqy-zenhei.ttc", 0),
)
_NO_CHARACTER = "\U0010ffff"


class FontError(ValueError):
    """There is no font for what has to be written; the message says what helps."""


@dataclass(frozen=True)
class Typeface:
    path: Path
    number: int = 0

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(str(self.path), size, index=self.number)

    def check(self, text: str) -> None:
        """Raises FontError for a character that would be printed as an empty box."""
        font = self.at(40)
        box = bytes(font.getmask(_NO_CHARACTER))
        missing = [character for character in text if not character.isspace() and bytes(font.getmask(character)) == box]
        if missing:
            raise FontError(f"the font {self.path.name} cannot write {''.join(missing)}; a fuller one: apt-get install fonts-noto-cjk")


def find_typeface(*, bold: bool = False, known: Sequence[tuple[str, int]] = KNOWN) -> Typeface:
    """Raises FontError, which says how to install one."""
    found = _ask_fontconfig(_BOLD if bold else _REGULAR) or next((Typeface(Path(p), n) for p, n in known if Path(p).is_file()), None)
    if found is None:
        raise FontError(HOW_TO_INSTALL)
    return found


def _ask_fontconfig(weight: int) -> Typeface | None:
    """fc-match always names some font, so what it names must say that it covers Chinese."""
    command = shutil.which("fc-match")
    if command is None:
        return None
    wanted = f":lang=zh-cn:weight={weight}:scalable=true"
    answer = subprocess.run([command, "-f", "%{file}\t%{index}\t%{lang}", wanted], capture_output=True, text=True, timeout=60)
    file, _, rest = answer.stdout.partition("\t")
    number, _, languages = rest.partition("\t")
    if answer.returncode or "zh-cn" not in languages.split("|") or not Path(file).is_file():
        return None
    return Typeface(Path(file), int(number) & 0xFFFF)  # the upper bits name an instance of a variable font
