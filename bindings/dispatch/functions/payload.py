"""How a job's payload becomes the arguments of a function, and its result JSON again.

The rule: an object whose keys are the function's parameters arrives as keyword arguments; anything else arrives as one
argument; null calls a function that needs nothing. What fits neither way is an error that says what was expected and
what came, and trying again would not change it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]

_NOTHING: Mapping[str, Any] = {}


class BindingError(TypeError):
    """A payload does not fit the parameters of the function it is for. Permanent: no retry makes it fit."""


class Binder:
    """Binds payloads to the parameters of one function; what can be known beforehand is worked out once.

    Example:
        >>> def send_email(to, subject="Hello"): ...
        >>> bind = Binder("send-email", send_email)
        >>> bind({"to": "a@example.com"})
        ((), {'to': 'a@example.com'})
        >>> bind("a@example.com")
        (('a@example.com',), {})
    """

    __slots__ = ("_keywords", "_name", "_needs_nothing", "_open", "_required", "_signature", "_takes_one")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        required = [
            p for p in parameters if p.default is p.empty and p.kind in (*_POSITIONAL, p.KEYWORD_ONLY)
        ]
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        self._keywords = frozenset(p.name for p in parameters if p.kind in _KEYWORD)
        # A required parameter that is positional only is never among the keys' matches, so keywords never fit then.
        self._required = frozenset(p.name if p.kind in _KEYWORD else f"{p.name}/" for p in required)
        self._open = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._needs_nothing = not required
        self._takes_one = (
            (bool(positional) or any(p.kind is p.VAR_POSITIONAL for p in parameters))
            and len(required) <= 1
            and all(p is positional[0] for p in required if positional)
            and not any(p.kind is p.KEYWORD_ONLY for p in required)
        )

    def __call__(self, payload: Any) -> Arguments:
        """The arguments for this payload.

        Raises:
            BindingError: it fits neither as keyword arguments nor as one argument.
        """
        if payload is None and self._needs_nothing:
            return (), _NOTHING
        if type(payload) is dict:
            keys = payload.keys()
            if self._required <= keys and (self._open or keys <= self._keywords):
                return (), payload
            if self._is_meant_as_keywords(payload):
                raise self._misfit(payload)
        if self._takes_one:
            return (payload,), _NOTHING
        raise self._misfit(payload)

    def _is_meant_as_keywords(self, payload: Mapping[str, Any]) -> bool:
        """Some keys are parameters: then the others are typing errors, and not to be swallowed as one argument.

        With a single parameter nothing was mistyped: an object that has a key of that name is just an object.
        """
        return len(self._keywords) > 1 and not self._keywords.isdisjoint(payload)

    def _misfit(self, payload: Any) -> BindingError:
        wanted = f"{self._name}{self._signature}"
        hint = (
            "an object with these names as keys arrives as keyword arguments, anything else as one argument"
        )
        if isinstance(payload, dict):
            missing = sorted(name.rstrip("/") for name in self._required - payload.keys())
            unknown = [] if self._open else sorted(payload.keys() - self._keywords)
            faults = [f"missing {_listed(missing)}"] * bool(missing) + [f"unknown {_listed(unknown)}"] * bool(
                unknown
            )
            return BindingError(f"{wanted} cannot take this payload: {', '.join(faults)}; {hint}")
        return BindingError(f"{wanted} cannot take this payload: got {_described(payload)}; {hint}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(f'"{name[:40]}"' for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _described(payload: Any) -> str:
    if payload is None:
        return "null"
    if isinstance(payload, list):
        return f"an array of {len(payload)}"
    text = repr(payload)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(payload).__name__})"
