"""Functions that jobs call: the decorator `@dispatch.function`, and the registry that finds a function by a job's name.

A decorated function stays the function it was: the same call, name, documentation, signature and types. The decorator
only puts it where a server finds it, under the name it is given or else under its module-qualified one. Short names
(`send_email`, `send-email`) work too where they mean one function only.
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from types import CodeType, FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from dispatch.functions.crons import declare_cron
from dispatch.functions.identity import check_name, place_of, qualified_name, same_function, short_names
from dispatch.functions.payload import Binder
from dwp_core.crons import CatchUp, CronDeclaration, Overlap
from dwp_core.errors import NotFoundError
from dwp_core.methods import METHODS

P = ParamSpec("P")
R = TypeVar("R")

MAX_RETRIES = 1_000

# What a request may ask for, a function may.
_PRIORITY = METHODS["job.enqueue"].by_name["priority"]
_LONGEST = METHODS["job.enqueue"].by_name["timeout_ms"].most // 1000


@dataclass(frozen=True, slots=True)
class Options:
    """What a function says about the jobs that call it; None leaves it to the enqueuer, then to the server.

    Attributes:
        queue: the queue its jobs go to.
        priority: higher first.
        max_retries: attempts after the first.
        timeout: seconds an attempt may take.
    """

    queue: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    timeout: float | None = None


class Function(Generic[P, R]):
    """A function that jobs can call. Made by `@dispatch.function`; calling it calls the function.

    Attributes:
        name: what it is registered under.
        names: all names that it goes by, `name` first.
        options: its queue, priority, retries and timeout.
        is_async: declared with `async def`.
        bind: turns a job's payload into its arguments.
        crons: the cron entries that call it.
    """

    bind: Binder
    crons: tuple[CronDeclaration, ...]
    is_async: bool
    name: str
    names: tuple[str, ...]
    options: Options

    def __init__(
        self, function: Callable[P, R], *, name: str | None = None, options: Options | None = None
    ) -> None:
        plain = _check_function(function)
        functools.update_wrapper(self, function)
        self._function = function
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(plain))
        self.options = options or Options()
        self.crons = ()
        if name is None:
            self.name = check_name(qualified_name(plain))
            self.names = (self.name, *(short for short in short_names(plain) if short != self.name))
        else:
            self.name = check_name(name)
            self.names = (self.name,)
        self.bind = Binder(self.label, function)

    @property
    def label(self) -> str:
        """The shortest name that people know it by."""
        return self.names[1] if len(self.names) > 1 else self.name

    @property
    def code(self) -> CodeType:
        """Its compiled code, by which a stack frame is recognised as its own."""
        code: CodeType = inspect.unwrap(self._function).__code__
        return code

    @property
    def place(self) -> str:
        """Where it is declared: `/srv/app/orders.py:12`."""
        return place_of(inspect.unwrap(self._function))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def same_as(self, other: Function[Any, Any]) -> bool:
        """Whether the other is this function again: its module was loaded twice, or anew."""
        one, two = self._function, other._function
        return isinstance(one, FunctionType) and isinstance(two, FunctionType) and same_function(one, two)

    def __reduce__(self) -> str:
        # By its global name, as functions are; so it can be handed to multiprocessing and survives copy.deepcopy.
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<dispatch function {self.name} at {self.place}>"

    # Set by functools.update_wrapper.
    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, R]


class Registry:
    """Functions by name. There is one for the whole program, which `dispatch.function` uses; tests make their own.

    Example:
        >>> registry = Registry()
        >>> @registry.function
        ... def send_email(to: str) -> str:
        ...     return f"sent to {to}"
        >>> send_email("user@example.com")
        'sent to user@example.com'
        >>> registry.resolve("send-email") is send_email
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exact: dict[str, Function[..., Any]] = {}
        self._short: dict[str, dict[str, Function[..., Any]]] = {}

    @overload
    def function(self, function: Callable[P, R], /) -> Function[P, R]: ...

    @overload
    def function(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: int | bool | None = None,
        max_retries: int | None = None,
        timeout: float | timedelta | None = None,
    ) -> Callable[[Callable[P, R]], Function[P, R]]: ...

    def function(
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: int | bool | None = None,
        max_retries: int | None = None,
        timeout: float | timedelta | None = None,
    ) -> Function[P, R] | Callable[[Callable[P, R]], Function[P, R]]:
        """Declares a function that jobs can call; a decorator, with or without arguments.

        Args:
            function: the function, when used without arguments.
            name: the name jobs call it by; default: module-qualified, and its short name where unambiguous.
            queue: the queue of its jobs, unless the enqueuer names another. Default "default".
            priority: of its jobs, unless the enqueuer gives another; higher first. Default 0.
            retry: attempts after the first; False for none. The same as `max_retries`.
            max_retries: attempts after the first. Default 3.
            timeout: seconds, or a timedelta, that an attempt may take. Default 5 minutes.

        Raises:
            TypeError: this cannot be such a function (a class, a lambda, a generator, a method), or an option is
                mistyped.
            ValueError: an option is out of range, or another function already has the name.

        Example:
            @dispatch.function(name="send-email", queue="mail", max_retries=5, timeout=30)
            def send_email(to: str, subject: str = "Hello"):
                ...
        """
        options = _check_options(queue, priority, retry, max_retries, timeout)

        def declare(declared: Callable[P, R]) -> Function[P, R]:
            return self.add(Function(declared, name=name, options=options))

        if function is None:
            return declare
        if isinstance(function, str):
            raise TypeError(f'a name is given as @dispatch.function(name="{function}")')
        return declare(function)

    def cron(
        self,
        expression: str,
        /,
        *,
        timezone: str = "UTC",
        overlap: Overlap = "skip",
        catch_up: CatchUp = "one",
        name: str | None = None,
        payload: Any = None,
        app_id: str = "",
        org_id: str = "",
    ) -> Callable[[Callable[P, R]], Function[P, R]]:
        """Declares that a function is called by the clock; a decorator, above `@dispatch.function` or without it.

        Args:
            expression: five fields as in crontab(5), six with seconds before them, or a nickname such as "@daily".
            timezone: whose wall clock it means, e.g. "Europe/Berlin".
            overlap: when its job is not finished at its next time: "skip" that time, "queue" it until the job is
                finished, or "allow" both at once.
            catch_up: of the times that passed while no server ran, "none" is made up for, "one" for all, or "all".
            name: of the entry; default: the function's short name. Needed where a function has several entries.
            payload: of its jobs, any JSON value that the function takes.
            app_id: the tenant that the entry and its jobs belong to.
            org_id: the tenant that the entry and its jobs belong to.

        Raises:
            TypeError: an argument is mistyped, or the payload does not fit the function.
            ValueError: there is no such schedule, time zone or policy, or another entry has the name.

        Example:
            @dispatch.cron("30 2 * * *", timezone="Europe/Berlin", payload={"days": 1})
            @dispatch.function(queue="reports")
            def report(days: int): ...
        """
        if not isinstance(expression, str):
            raise TypeError('@dispatch.cron takes a schedule: @dispatch.cron("*/5 * * * *")')

        def declare(declared: Callable[P, R]) -> Function[P, R]:
            function: Function[P, R] = declared if isinstance(declared, Function) else Function(declared)
            entry = declare_cron(
                function,
                expression,
                timezone=timezone,
                overlap=overlap,
                catch_up=catch_up,
                name=name,
                payload=payload,
                app_id=app_id,
                org_id=org_id,
            )
            self.add(function)
            _check_cron_name(entry, self.crons())
            function.crons = (*function.crons, entry)
            return function

        return declare

    def crons(self) -> list[CronDeclaration]:
        """The cron entries of all functions."""
        found: list[CronDeclaration] = []
        for function in self:
            for entry in function.crons:
                _check_cron_name(entry, found)
                found.append(entry)
        return found

    def add(self, function: Function[P, R]) -> Function[P, R]:
        """Registers a function. The same one again replaces the first silently: a module was loaded anew.

        Raises:
            ValueError: other code already has the name.
        """
        with self._lock:
            known = self._exact.get(function.name)
            if known is not None and not known.same_as(function):
                raise ValueError(
                    f'two functions are named "{function.name}": one at {known.place}, one at {function.place};'
                    " rename one of them, or give it another name with @dispatch.function(name=…)"
                )
            self._exact[function.name] = function
            for short in function.names[1:]:
                self._short.setdefault(short, {})[function.name] = function
        return function

    def find(self, name: str) -> Function[..., Any] | None:
        """The function of that full or unambiguous short name; None where there is none."""
        function = self._exact.get(name)
        if function is None:
            candidates = self._short.get(name)
            if candidates is not None and len(candidates) == 1:
                (function,) = candidates.values()
        return function

    def resolve(self, name: str) -> Function[..., Any]:
        """The function of that full or unambiguous short name.

        Raises:
            NotFoundError: (404) there is none, or the short name means several; the message says what would be right.
        """
        function = self.find(name)
        if function is not None:
            return function
        candidates = self._short.get(name)
        if candidates is not None:
            raise NotFoundError(f'"{name}" is ambiguous: it may be {_either(sorted(candidates))}')
        close = get_close_matches(name, self.names(), n=3, cutoff=0.6)
        hint = f"; did you mean {_either(close)}?" if close else ""
        raise NotFoundError(f'no function "{name[:200]}" is registered{hint}')

    def names(self) -> frozenset[str]:
        """Every name that `find` knows: full names, and short ones where they are unambiguous."""
        with self._lock:
            short = (name for name, candidates in self._short.items() if len(candidates) == 1)
            return frozenset((*self._exact, *short))

    def __iter__(self) -> Iterator[Function[..., Any]]:
        with self._lock:
            return iter(list(self._exact.values()))

    def __len__(self) -> int:
        return len(self._exact)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None


REGISTRY = Registry()
"""The functions of this program, where `@dispatch.function` puts them."""

function = REGISTRY.function
cron = REGISTRY.cron


def _check_cron_name(entry: CronDeclaration, others: list[CronDeclaration]) -> None:
    for other in others:
        if other.name == entry.name:
            raise ValueError(
                f'@dispatch.cron: two entries are named "{entry.name}", one of {other.function} at {other.expression},'
                f" one of {entry.function} at {entry.expression}: give one of them a name=… of its own"
            )


def _check_function(function: Callable[..., Any]) -> FunctionType:
    """The function itself when jobs can call it."""
    if isinstance(function, Function):
        more = "; put @dispatch.cron above it" if function.crons else ""
        raise TypeError(f"{function!r} is already decorated with @dispatch.function{more}")
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        raise TypeError(
            f"@{kind} goes above @dispatch.function, not below it ({place_of(function.__func__)})"
        )
    if not isinstance(function, FunctionType):
        what = f"the class {function.__name__}" if isinstance(function, type) else repr(function)
        raise TypeError(
            f"@dispatch.function takes a function declared with def or async def, got {what};"
            " wrap it in a function that calls it"
        )
    inner = inspect.unwrap(function)
    place = place_of(inner)
    if function.__name__ == "<lambda>":
        raise TypeError(f"a lambda has no name that jobs could call it by: declare it with def ({place})")
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise TypeError(
            f"{function.__qualname__} is a generator: a job has one result, so return a list instead of yielding"
            f" ({place})"
        )
    parameters = list(inspect.signature(function).parameters)
    in_a_class = "." in function.__qualname__.rpartition("<locals>.")[2]
    if in_a_class and parameters and parameters[0] in ("self", "cls"):
        raise TypeError(
            f"{function.__qualname__} is a method, and a job has no object to call it on: make it a function,"
            f" or a @staticmethod above @dispatch.function ({place})"
        )
    return function


def _check_options(
    queue: object,
    priority: object,
    retry: object,
    max_retries: object,
    timeout: object,
) -> Options:
    if queue is not None and (not isinstance(queue, str) or not queue or queue != queue.strip()):
        raise _misuse("queue", "a name such as 'mail'", queue)
    if priority is not None and (not isinstance(priority, int) or isinstance(priority, bool)):
        raise _misuse("priority", "an integer", priority)
    if priority is not None and not _PRIORITY.least <= priority <= _PRIORITY.most:
        raise ValueError(
            f"@dispatch.function: priority must be between {_PRIORITY.least} and {_PRIORITY.most}, got {priority}"
        )
    if retry is not None and max_retries is not None:
        raise TypeError("@dispatch.function: give retry or max_retries, not both: they mean the same")
    if retry is not None:
        if retry is True:
            raise _misuse("retry", "a number of retries, or False for none", retry)
        max_retries = 0 if retry is False else retry
    if max_retries is not None:
        if not isinstance(max_retries, int) or isinstance(max_retries, bool):
            raise _misuse("max_retries", "an integer", max_retries)
        if not 0 <= max_retries <= MAX_RETRIES:
            raise ValueError(
                f"@dispatch.function: max_retries must be between 0 and {MAX_RETRIES}, got {max_retries}"
            )
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is not None:
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise _misuse("timeout", "a number of seconds or a timedelta", timeout)
        if not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(
                f"@dispatch.function: timeout must be more than 0 seconds and finite, got {timeout!r}"
            )
        if seconds > _LONGEST:
            raise ValueError(
                f"@dispatch.function: timeout must be at most {_LONGEST} seconds, got {timeout!r}"
            )
    return Options(queue, priority, max_retries, None if seconds is None else float(seconds))


def _misuse(option: str, wanted: str, got: object) -> TypeError:
    return TypeError(f"@dispatch.function: {option} must be {wanted}, got {got!r} ({type(got).__name__})")


def _either(names: list[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)
