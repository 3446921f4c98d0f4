"""Which function is it: its name, the place it was declared at, and whether two functions are the same code.

A function is named after its module (`orders.ship`), because that is unique in a program. Code is compared by what it
does, not by where it stands, so that a module which is loaded again, from another file even, is no conflict.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import PurePath
from types import CellType, CodeType, FunctionType
from typing import Any

MAX_NAME = 255


def module_name(function: Callable[..., Any]) -> str:
    """The module a function belongs to; a program that was started as a script goes by its file's name.

    Example:
        >>> from json import dumps
        >>> module_name(dumps)
        'json'
    """
    name = getattr(function, "__module__", None) or "__main__"
    if name != "__main__":
        return str(name)
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else "__main__"


def qualified_name(function: Callable[..., Any]) -> str:
    """The name a function is registered under when it is given none.

    Example:
        >>> from json import dumps
        >>> qualified_name(dumps)
        'json.dumps'
    """
    return f"{module_name(function)}.{function.__qualname__.replace('.<locals>', '')}"


def short_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names it also goes by where no other function does: `send_email`, and `send-email` as job names are written.

    Example:
        >>> def send_email(to): ...
        >>> short_names(send_email)
        ('send_email', 'send-email')
    """
    name = function.__name__
    dashed = name.strip("_").replace("_", "-")
    return (name,) if dashed in (name, "") else (name, dashed)


def check_name(name: object) -> str:
    """The name itself when a function may be called so: 1 to 255 printable characters without blanks.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty, too long, or has blanks or control characters in it.
    """
    if not isinstance(name, str):
        raise TypeError(f"a function's name must be a string, got {name!r} ({type(name).__name__})")
    if not name or len(name) > MAX_NAME or not name.isprintable() or any(map(str.isspace, name)):
        shown = repr(name if len(name) <= 80 else name[:77] + "...")
        raise ValueError(
            f"{shown} cannot be a function's name: expected 1 to {MAX_NAME} printable characters without blanks,"
            ' as in "send-email"'
        )
    return name


def place_of(function: Callable[..., Any]) -> str:
    """Where a function is declared, as an editor understands it: `/srv/app/orders.py:12`."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def same_function(one: FunctionType, other: FunctionType) -> bool:
    """Whether both do the same: the code, its default values and what it closes over, wherever they stand.

    Example:
        >>> def ship(order): return order
        >>> before = ship
        >>> def ship(order): return order
        >>> same_function(before, ship)
        True
    """
    return _Comparison().same(one, other)


class _Comparison:
    """Equality that tells 1 from True and 1.0, and looks into functions, code and tuples.

    A pair that is being compared already (functions may close over each other) counts as equal until it proves not to.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def same(self, one: object, other: object) -> bool:
        if one is other:
            return True
        if type(one) is not type(other):
            return False
        if isinstance(one, FunctionType) and isinstance(other, FunctionType):
            return self._same_function(one, other)
        if isinstance(one, CodeType) and isinstance(other, CodeType):
            return self._same_code(one, other)
        if isinstance(one, tuple) and isinstance(other, tuple):
            return len(one) == len(other) and all(map(self.same, one, other))
        try:
            return bool(one == other)
        except Exception:  # noqa: BLE001 - a default value whose == raises: then only identity tells
            return False

    def _same_function(self, one: FunctionType, other: FunctionType) -> bool:
        pair = (id(one), id(other))
        if pair in self._seen:
            return True
        self._seen.add(pair)
        return (
            self.same(one.__code__, other.__code__)
            and self.same(one.__defaults__, other.__defaults__)
            and self.same(one.__kwdefaults__, other.__kwdefaults__)
            and self.same(_closed_over(one), _closed_over(other))
        )

    def _same_code(self, one: CodeType, other: CodeType) -> bool:
        return _shape(one) == _shape(other) and self.same(one.co_consts, other.co_consts)


def _shape(code: CodeType) -> tuple[object, ...]:
    """What makes code that code, but for its constants; file, line and the module's name are not in it."""
    return (
        code.co_code,
        code.co_exceptiontable,
        code.co_flags,
        code.co_name,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_argcount,
        code.co_kwonlyargcount,
        code.co_posonlyargcount,
    )


def _closed_over(function: FunctionType) -> tuple[object, ...]:
    return tuple(_content(cell) for cell in function.__closure__ or ())


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
