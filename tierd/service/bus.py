"""pydbus, and all that it lacks, behind a small surface. Nothing here knows about memory.

pydbus 0.6 is frozen upstream; this module leans on its ObjectWrapper and ObjectRegistration and supplies:
answers to slow methods from a pool of workers, errors by name, text that GDBus can send, a name that nobody
can take over, and a connection that may be lost without ending the process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gi.repository import Gio, GLib
from pydbus.registration import ObjectRegistration, ObjectWrapper

from tierd.core.text import clean
from tierd.errors import BusyError, DeniedError, TierdError
from tierd.service.authority import Authority, Caller
from tierd.service.bus_workers import Workers
from tierd.service.mailbox import Mailbox

FIRST_RETRY_SECONDS = 1
LONGEST_RETRY_SECONDS = 60
CALL_TIMEOUT_MILLISECONDS = 5000
ERROR_LIMIT = 4096

INTERNAL_ERROR = "org.tierd1.Error.Internal"
NAME_FLAG_DO_NOT_QUEUE = 4  # neither ALLOW_REPLACEMENT (1) nor REPLACE_EXISTING (2)
NAME_REPLIES_OWNED = (1, 4)  # PRIMARY_OWNER, ALREADY_OWNER

Function = TypeVar("Function", bound=Callable[..., Any])


def slow(method: Function) -> Function:
    """Mark a D-Bus method that may block: it runs in a worker, and other calls are answered meanwhile."""
    method.slow = True  # type: ignore[attr-defined]
    return method


def authorised(action: str) -> Callable[[Function], Function]:
    """Mark a D-Bus method that takes polkit's `action`, where the caller is not root."""

    def mark(method: Function) -> Function:
        method.action = action  # type: ignore[attr-defined]
        return method

    return mark


def for_caller(action: str) -> Callable[[Function], Function]:
    """Mark a D-Bus method that everybody may call, and that shows more to whom polkit permits `action`: it
    takes the Caller first, whose user is known."""

    def mark(method: Function) -> Function:
        method.action = action  # type: ignore[attr-defined]
        method.takes_caller = True  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True)
class Exported:
    """An object on the bus: its path, its introspection XML, and the adaptor that answers.

    The adaptor has a method for each of the XML's methods, whose result may be a ready GLib.Variant of all
    that it returns, and `dbus_properties()`, which returns a GLib.Variant for each of its properties and
    cannot raise; where some can be set, `dbus_set(name, value)`.
    Adaptors are few and live as long as the process: pydbus never lets go of one, so that an adaptor whose
    object was withdrawn is to be used again.
    """

    path: str
    xml: str
    adaptor: Any


class Wrapper(ObjectWrapper):  # type: ignore[misc]
    """Answers calls: every one gets a reply, none ends the daemon, no slow one holds up another."""

    __slots__ = ("_authority", "_authorised_workers", "_mailbox", "_on_error", "_workers")

    def __init__(
        self,
        adaptor: Any,
        interfaces: Any,
        mailbox: Mailbox,
        on_error: Callable[[BaseException], None],
        authority: Authority,
    ) -> None:
        super().__init__(adaptor, interfaces)
        self._authority = authority
        self._mailbox = mailbox
        self._on_error = on_error
        self._workers = Workers("bus")
        # What everybody may ask for must not keep those few out who may change something.
        self._authorised_workers = Workers("authorised")

    def call_method(
        self,
        connection: Any,
        sender: str,
        object_path: str,
        interface_name: str,
        method_name: str,
        parameters: Any,
        invocation: Any,
    ) -> None:
        """GDBus has already checked that the member exists and that the parameters have its types."""
        try:
            outargs = self.outargs.get(f"{interface_name}.{method_name}")
            if outargs is not None:
                method = getattr(self.object, method_name)
            elif method_name == "Get":
                method, outargs = self.Get, ["v"]
            elif method_name == "GetAll":
                method, outargs = self.GetAll, ["a{sv}"]
            elif method_name == "Set":
                method, outargs = self.Set, []
            else:
                raise TierdError(f"{interface_name}.{method_name} cannot be called")
            given = tuple(parameters)
            action = getattr(method, "action", "")
            if not action:
                return self._begin(invocation, method, given, outargs)
            flags = invocation.get_message().get_flags()
            interactive = bool(flags & Gio.DBusMessageFlags.ALLOW_INTERACTIVE_AUTHORIZATION)

            def decided(caller: Caller) -> None:
                told = getattr(method, "takes_caller", False)
                refused = isinstance(caller.refusal, DeniedError)
                if caller.refusal is None or (told and refused and caller.user is not None):
                    self._begin(invocation, method, (caller, *given) if told else given, outargs)
                else:
                    self._fail(invocation, caller.refusal)

            self._authority.check(connection, sender, action, interactive, decided)
        except BaseException as error:
            self._fail(invocation, error)

    def _begin(self, invocation: Any, method: Any, arguments: tuple[Any, ...], outargs: list[str]) -> None:
        """Answer at once, or have a worker answer."""
        if not getattr(method, "slow", False):
            return self._answer(invocation, method, arguments, outargs)
        guarded = hasattr(method, "action") and not hasattr(method, "takes_caller")
        workers = self._authorised_workers if guarded else self._workers
        try:
            workers.submit(self._answer, invocation, method, arguments, outargs)
        except BusyError as error:
            self._fail(invocation, error)

    def _answer(self, invocation: Any, method: Any, arguments: tuple[Any, ...], outargs: list[str]) -> None:
        try:
            result = method(*arguments)
            signature = f"({''.join(outargs)})"
            if not outargs:
                reply = None
            elif isinstance(result, GLib.Variant) and result.get_type_string() == signature:
                reply = result
            else:
                reply = GLib.Variant(signature, (result,) if len(outargs) == 1 else tuple(result))
        except BaseException as error:  # SystemExit in a handler would end the daemon
            self._fail(invocation, error)
        else:
            invocation.return_value(reply)
            self._mailbox.post(_release, invocation)

    def _fail(self, invocation: Any, error: BaseException) -> None:
        if isinstance(error, TierdError):
            text = f"{error} ({error.hint})" if error.hint else str(error)
            text = "\n".join(clean(line, 1024) for line in text.split("\n"))
            invocation.return_dbus_error(error.dbus_name, text[:ERROR_LIMIT])
        else:
            # The caller learns the kind alone: details belong in the journal.
            invocation.return_dbus_error(INTERNAL_ERROR, f"internal error: {type(error).__name__}")
            self._on_error(error)
        self._mailbox.post(_release, invocation)

    def Get(self, interface_name: str, property_name: str) -> Any:
        return self.object.dbus_properties()[property_name]

    def Set(self, interface_name: str, property_name: str, value: Any) -> None:
        self.object.dbus_set(property_name, value)

    def GetAll(self, interface_name: str) -> dict[str, Any]:
        values = self.object.dbus_properties()
        prefix = interface_name + "."
        names = (name.removeprefix(prefix) for name in self.readable_properties if name.startswith(prefix))
        return {name: values[name] for name in names}


def _release(invocation: Any) -> None:
    """Free an answered call. Main loop only, once the handler has returned.

    GLib before 2.84 gives the callee a reference that PyGObject does not take: 1.6 KiB would leak with each
    call (deprecation note of g_dbus_connection_register_object_with_closures). By now our own is the only
    one there should be.
    """
    if invocation.__grefcount__ > 1:
        invocation._unref()


class BusService:
    """Holds a well-known name and its objects on a bus, and comes back when the bus does. Main thread only.

    address: a D-Bus address; None means the system bus. on_change(connected, reason): after each success and
    after the first failure of a series. on_error(error): a handler raised what it should not; may come from
    a worker. authority: decides about methods that are marked as `authorised`.
    """

    def __init__(
        self,
        name: str,
        objects: tuple[Exported, ...],
        *,
        mailbox: Mailbox,
        on_change: Callable[[bool, str], None],
        on_error: Callable[[BaseException], None],
        address: str | None = None,
        authority: Authority | None = None,
    ) -> None:
        self._name = name
        self._authority = authority or Authority()
        self._address = address
        self._mailbox = mailbox
        self._on_change = on_change
        self._on_error = on_error
        # Of every adaptor there ever was: pydbus keeps each, and a second wrapper of one would double its
        # signals.
        self._wrappers: dict[Any, tuple[Any, Wrapper]] = {}
        self._connection: Any = None
        self._registrations: dict[Exported, Any] = {}
        self._published: list[Exported] = []
        for exported in objects:
            self.publish(exported)
        self._retry = FIRST_RETRY_SECONDS
        self._timer = 0
        self._cancellable = Gio.Cancellable()
        self._told: bool | None = None
        self.connected = False

    def publish(self, exported: Exported) -> None:
        """Have one more object on the bus: now, where there is a connection, and after each reconnection."""
        if exported.adaptor not in self._wrappers:
            interfaces = Gio.DBusNodeInfo.new_for_xml(exported.xml).interfaces
            wrapper = Wrapper(exported.adaptor, interfaces, self._mailbox, self._on_error, self._authority)
            self._wrappers[exported.adaptor] = interfaces, wrapper
        self._published.append(exported)
        if self._connection is not None:
            try:
                self._register(exported)
            except GLib.Error as error:
                self._lost(error.message)

    def withdraw(self, exported: Exported) -> None:
        """Take an object that was published off the bus."""
        self._published.remove(exported)
        registration = self._registrations.pop(exported, None)
        if registration is not None:
            _unregister(registration)

    def start(self) -> None:
        """Begin to connect. Returns at once; a bus that is missing is tried again, less and less often."""
        self._timer = 0
        try:
            address = self._address or Gio.dbus_address_get_for_bus_sync(Gio.BusType.SYSTEM, None)
            flags = (
                Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
                | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
            )
            Gio.DBusConnection.new_for_address(address, flags, None, self._cancellable, self._on_connection)
        except GLib.Error as error:
            self._lost(error.message)

    def stop(self) -> None:
        """Give up the name and the connection."""
        self._cancellable.cancel()
        if self._timer:
            GLib.source_remove(self._timer)
            self._timer = 0
        connection = self._connection
        self._drop()
        if connection is not None and not connection.is_closed():
            try:
                connection.close_sync(None)
            except GLib.Error:
                pass

    def _on_connection(self, _source: Any, result: Any) -> None:
        try:
            connection = Gio.DBusConnection.new_for_address_finish(result)
        except GLib.Error as error:
            self._lost(error.message)
            return
        if self._cancellable.is_cancelled():
            return
        # GDBus would end the process with the bus.
        connection.set_exit_on_close(False)
        connection.connect("closed", self._on_closed)
        self._connection = connection
        try:
            for exported in self._published:
                self._register(exported)
        except GLib.Error as error:
            self._lost(error.message)
            return
        # Objects first, the name after: whoever waits for the name finds the objects there.
        connection.call(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "RequestName",
            GLib.Variant("(su)", (self._name, NAME_FLAG_DO_NOT_QUEUE)),
            GLib.VariantType("(u)"),
            Gio.DBusCallFlags.NONE,
            CALL_TIMEOUT_MILLISECONDS,
            self._cancellable,
            self._on_name,
        )

    def _register(self, exported: Exported) -> None:
        interfaces, wrapper = self._wrappers[exported.adaptor]
        bus = self._connection.pydbus
        self._registrations[exported] = ObjectRegistration(bus, exported.path, interfaces, wrapper)

    def _on_name(self, connection: Any, result: Any) -> None:
        try:
            reply = connection.call_finish(result).unpack()[0]
        except GLib.Error as error:
            if connection is self._connection:
                self._lost(error.message)
            return
        if reply not in NAME_REPLIES_OWNED:
            self._lost(f"another process owns {self._name}")
            return
        self._retry = FIRST_RETRY_SECONDS
        self.connected = True
        self._tell(True, "")

    def _on_closed(self, connection: Any, _remote: bool, error: Any) -> None:
        if connection is self._connection and not self._cancellable.is_cancelled():
            self._lost(error.message if error is not None else "the connection was closed")

    def _lost(self, reason: str) -> None:
        if self._cancellable.is_cancelled():
            return
        connection = self._connection
        self._drop()
        if connection is not None and not connection.is_closed():
            connection.close(None, None)
        if not self._timer:
            self._timer = GLib.timeout_add_seconds(self._retry, self._again)
            self._retry = min(self._retry * 2, LONGEST_RETRY_SECONDS)
        self._tell(False, clean(reason))

    def _again(self) -> bool:
        # pydbus and the lost connection refer to each other, and hold a descriptor.
        gc.collect()
        self.start()
        return bool(GLib.SOURCE_REMOVE)

    def _tell(self, connected: bool, reason: str) -> None:
        if connected is not self._told:
            self._told = connected
            self._on_change(connected, reason)

    def _drop(self) -> None:
        self.connected = False
        self._connection = None
        registrations, self._registrations = self._registrations, {}
        for registration in registrations.values():
            _unregister(registration)


def _unregister(registration: Any) -> None:
    try:
        registration.unregister()
    except GLib.Error:
        pass
