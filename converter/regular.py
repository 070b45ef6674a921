"""What may be read as a file: regular files only. A FIFO blocks for ever, a device never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def other_than_file(path: str | Path) -> str:
    """What a path names instead of a regular file: "a pipe", "nothing"; "" for a file. Links are followed."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "nothing"
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a null character
        return getattr(error, "strerror", None) or str(error)
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something that is no file")
