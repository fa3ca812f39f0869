"""Whether a caller on the bus may do something: root may, others by what polkit says. Never waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gi.repository import Gio, GLib

from tierd.core.text import clean
from tierd.errors import BusyError, DeniedError, TierdError


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. user: their number, None where the bus does not say. refusal: why they may not do what was
    asked about, a DeniedError, or a BusyError where that was not asked; None where they may, which takes a
    user."""

    user: int | None
    refusal: TierdError | None


Done = Callable[[Caller], None]

_POLKIT: Final = "org.freedesktop.PolicyKit1"
_PATH: Final = "/org/freedesktop/PolicyKit1/Authority"
_MILLISECONDS: Final = 5000
_INTERACTIVE_MILLISECONDS: Final = 120_000
"""For a person to type a password; after that the caller has given up."""
QUESTIONS: Final = 32
"""To polkit that may be open at a time."""
USER_QUESTIONS: Final = 4
"""Of these, for one user: one whose agent never answers is not to take up all of them."""
_ALLOW_INTERACTION: Final = 1
"""CheckAuthorizationFlags (polkit's D-Bus API)."""


class Authority:
    """Used by the bus service, in the main thread. trusted: the user who may do everything, so that root
    gets by without polkit."""

    def __init__(self, trusted: int = 0) -> None:
        self._trusted = trusted
        self._open: Counter[int] = Counter()  # questions to polkit, by user

    def check(self, connection: Any, sender: str, action: str, interactive: bool, done: Done) -> None:
        """Calls `done` once, later, with who `sender` is, a name on the bus, and whether they may do
        `action`. interactive: whether a person may be asked for a password."""
        user: int | None = None

        def refuse(why: str) -> None:
            done(Caller(user, DeniedError(f"not permitted: {clean(why)}")))

        def on_user(source: Any, result: Any) -> None:
            nonlocal user
            try:
                (user,) = source.call_finish(result).unpack()
            except GLib.Error as error:
                return refuse(f"the bus does not say who asks: {error.message}")
            assert user is not None
            if user == self._trusted:
                return done(Caller(user, None))
            if self._open[user] >= USER_QUESTIONS or self._open.total() >= QUESTIONS:
                busy = BusyError("too many questions to polkit are open", hint="try again later")
                return done(Caller(user, busy))
            self._open[user] += 1
            subject = ("system-bus-name", {"name": GLib.Variant("s", sender)})
            flags = _ALLOW_INTERACTION if interactive else 0
            body = GLib.Variant("((sa{sv})sa{ss}us)", (subject, action, {}, flags, ""))
            waits = _INTERACTIVE_MILLISECONDS if interactive else _MILLISECONDS
            connection.call(
                *(_POLKIT, _PATH, f"{_POLKIT}.Authority", "CheckAuthorization", body),
                *(GLib.VariantType("((bba{ss}))"), Gio.DBusCallFlags.NONE, waits, None, on_answer),
            )

        def on_answer(source: Any, result: Any) -> None:
            assert user is not None
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]
            try:
                ((allowed, challenge, _),) = source.call_finish(result).unpack()
            except GLib.Error as error:
                Gio.DBusError.strip_remote_error(error)
                return refuse(f"polkit cannot be asked: {error.message}")
            if allowed:
                return done(Caller(user, None))
            why = "it takes a password" if challenge else "polkit says no"
            return refuse(f"{why} ({action})")

        connection.call(
            *("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"),
            *("GetConnectionUnixUser", GLib.Variant("(s)", (sender,)), GLib.VariantType("(u)")),
            *(Gio.DBusCallFlags.NONE, _MILLISECONDS, None, on_user),
        )
