"""The kinds of value that only classes have: see kinds.py, which names these readers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tierd.core.classes import DramBound
from tierd.core.text import clean
from tierd.core.units import parse_share, parse_size

LONGEST_COMMAND = 15
"""Bytes of a process's name (TASK_COMM_LEN in include/linux/sched.h, less the final zero)."""

LARGEST_USER = (1 << 32) - 2
"""The largest number of a user; one more means none (chown(2))."""

_CLASS = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_USER_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
# Names of Debian, and those that directories add: user@domain, DOMAIN\user (systemd's relaxed rules).
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,254}\$?")
_ANY_TEXT = re.compile(r"\*+")
_ONE_OF = re.compile(r"\[!?\]?[^\]]*\]")

HOW_TO_SHARE = "write dram: guaranteed, dram: {min: 30%}, or dram: {max: 2GiB}"


def class_name(text: str) -> str:
    """The name of a class: a word for terminals, metrics and the bus."""
    if not _CLASS.fullmatch(text):
        made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:32].rstrip("-")
        example = made if _CLASS.fullmatch(made) else "gold"
        raise ValueError(
            f"`{clean(text, 60)}` is not the name of a class; write up to 32 lower-case letters, digits and"
            f" `-`, beginning with a letter or digit, for example {example}"
        )
    return text


def user(value: str | int) -> str | int:
    """A user's name, or number. Whether there is such a user is not asked here."""
    shown = clean(str(value), 60)
    if isinstance(value, str) and not _USER_NUMBER.fullmatch(value):
        if re.search(r"[*?\[\]]", value):
            raise ValueError(f"`{shown}` is a glob; user takes one whole name, each in a rule of its own")
        if not _USER_NAME.fullmatch(value):
            raise ValueError(f"`{shown}` is not the name of a user; write one that `getent passwd` lists")
        return value
    number = int(value)
    if not 0 <= number <= LARGEST_USER:
        raise ValueError(f"`{shown}` is not the number of a user; write one from 0 to {LARGEST_USER}")
    return number


def command_glob(text: str) -> str:
    """A glob over the name of a process as ``ps -o comm`` shows it."""
    shown = clean(text, 60)
    how = "write the name that `ps -o comm` shows"
    if not text:
        raise ValueError(f"`` matches nothing; {how}")
    if text.startswith("/"):
        name = clean(text.rpartition("/")[2].encode()[:LONGEST_COMMAND].decode(errors="ignore"))
        example = f", for example {name}" if name else ""
        raise ValueError(f"`{shown}` is a path, and the name of a process is none; {how}{example}")
    least = _ANY_TEXT.sub("", _ONE_OF.sub("?", text)).encode()
    if len(least) > LONGEST_COMMAND:
        first = clean(text.encode()[:LONGEST_COMMAND].decode(errors="ignore"))
        example = "" if re.search(r"[*?\[]", text) else f', here "{first}"'
        raise ValueError(
            f"`{shown}` matches nothing: the kernel cuts the name of a process after {LONGEST_COMMAND}"
            f" bytes; {how}{example}"
        )
    if len(text) > 256:
        raise ValueError(f"`{shown}` is longer than 256 characters; match a part of it with *")
    return text


def dram_bound(text: str) -> DramBound:
    """A share of the class's own memory, or a size."""
    if text.endswith("%"):
        return DramBound(per_cent=parse_share(text))
    try:
        return DramBound(size=parse_size(text))
    except ValueError as error:
        raise ValueError(f"{error}; or a share of the class's memory, for example 30%") from None


def dram(value: str | Mapping[str, object]) -> object:
    """What a class has of DRAM: the word, or a mapping, whose values their own kinds complain about."""
    if isinstance(value, str):
        if value != "guaranteed":
            raise ValueError(f"`{clean(value, 60)}` leaves open which bound it is; {HOW_TO_SHARE}")
    elif not {"min", "max", "guaranteed"} & value.keys():  # the last is refused by its name
        raise ValueError(f"neither min nor max is here; {HOW_TO_SHARE}")
    return value
