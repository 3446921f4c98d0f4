"""A job's payload becomes arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dispatch.functions.payload import Binder, BindingError


def nothing() -> Any: ...
def one(to: Any) -> Any: ...
def one_or_none(to: Any = None) -> Any: ...
def two(to: Any, subject: Any = "Hello") -> Any: ...
def both(to: Any, subject: Any) -> Any: ...
def by_keyword(*, to: Any, subject: Any = "Hello") -> Any: ...
def anything(**fields: Any) -> Any: ...
def open_ended(to: Any, **fields: Any) -> Any: ...
def many(*items: Any) -> Any: ...
def by_position(to: Any, /) -> Any: ...
def mixed(to: Any, /, subject: Any = "Hello") -> Any: ...


FITS: list[tuple[Callable[..., Any], Any, tuple[tuple[Any, ...], dict[str, Any]]]] = [
    (nothing, None, ((), {})),
    (nothing, {}, ((), {})),
    (one, {"to": "ada"}, ((), {"to": "ada"})),
    (one, {"id": 1}, (({"id": 1},), {})),
    (one, {"to": "ada", "id": 1}, (({"to": "ada", "id": 1},), {})),
    (one, "ada", (("ada",), {})),
    (one, ["ada"], ((["ada"],), {})),
    (one, None, ((None,), {})),
    (one, {}, (({},), {})),
    (one_or_none, None, ((), {})),
    (one_or_none, {}, ((), {})),
    (one_or_none, 0, ((0,), {})),
    (two, {"to": "ada"}, ((), {"to": "ada"})),
    (two, {"subject": "Hi", "to": "ada"}, ((), {"subject": "Hi", "to": "ada"})),
    (two, "ada", (("ada",), {})),
    (two, {"id": 1}, (({"id": 1},), {})),
    (both, {"to": "ada", "subject": "Hi"}, ((), {"to": "ada", "subject": "Hi"})),
    (by_keyword, {"to": "ada"}, ((), {"to": "ada"})),
    (anything, {"a": 1}, ((), {"a": 1})),
    (anything, None, ((), {})),
    (open_ended, {"to": "ada", "a": 1}, ((), {"to": "ada", "a": 1})),
    (open_ended, {"a": 1}, (({"a": 1},), {})),
    (many, "ada", (("ada",), {})),
    (many, ["ada", "grace"], ((["ada", "grace"],), {})),
    (many, None, ((), {})),
    (by_position, {"to": "ada"}, (({"to": "ada"},), {})),
    (mixed, {"id": 1}, (({"id": 1},), {})),
]


@pytest.mark.parametrize(("function", "payload", "arguments"), FITS)
def test_a_payload_arrives_as_keywords_where_they_match_and_else_as_one_argument(
    function: Callable[..., Any], payload: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    bound = Binder("send-email", function)(payload)

    assert bound == arguments
    function(*bound[0], **bound[1])


@pytest.mark.parametrize(
    ("function", "payload", "message"),
    [
        (nothing, 7, r"send-email\(\) .*cannot take this payload: got 7 \(int\)"),
        (nothing, {"to": "ada"}, 'unknown "to"'),
        (both, {"to": "ada"}, 'missing "subject"'),
        (both, {"to": "ada", "subjct": "Hi"}, 'missing "subject", unknown "subjct"'),
        (both, None, "got null"),
        (both, ["ada", "Hi"], "got an array of 2"),
        (two, {"to": "ada", "subjct": "Hi"}, 'unknown "subjct"'),
        (two, {"to": "ada", **dict.fromkeys("abcdefg")}, 'unknown "a", "b", "c", "d", "e" and 2 more'),
        (by_keyword, "ada", r"got 'ada' \(str\)"),
        (by_keyword, {"subject": "Hi"}, 'missing "to"'),
        (by_keyword, {}, 'missing "to"'),
        (anything, "x" * 100, r"got 'xxx.*\.\.\. \(str\)"),
    ],
)
def test_what_fits_neither_way_says_what_was_expected_and_what_came(
    function: Callable[..., Any], payload: Any, message: str
) -> None:
    with pytest.raises(BindingError, match=message) as e:
        Binder("send-email", function)(payload)
    assert str(e.value).startswith("send-email(")
    assert "as keyword arguments, anything else as one argument" in str(e.value)
    assert isinstance(e.value, TypeError)
