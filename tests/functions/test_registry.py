"""Declaring functions, and finding them by a job's name."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatch.functions import Function, Options, Registry
from dwp_core.errors import NotFoundError


@pytest.fixture
def registry() -> Registry:
    return Registry()


def make_ship(body: str) -> Callable[..., Any]:
    """A function `ship` as a module `orders` would declare it."""
    scope: dict[str, Any] = {"__name__": "orders"}
    exec(
        compile(f"def ship(order, express=False):\n    {body}", f"/srv/{len(body)}/orders.py", "exec"), scope
    )
    ship: Callable[..., Any] = scope["ship"]
    return ship


def test_a_decorated_function_stays_the_function_it_was(registry: Registry) -> None:
    def send_email(to: str, subject: str = "Hello") -> str:
        """Sends it."""
        return f"{subject} to {to}"

    decorated = registry.function(send_email)

    assert decorated("ada", subject="Hi") == "Hi to ada"
    assert decorated.__name__ == "send_email"
    assert decorated.__doc__ == "Sends it."
    assert decorated.__module__ == __name__
    assert inspect.signature(decorated) == inspect.signature(send_email)


def test_an_async_function_stays_awaitable(registry: Registry) -> None:
    @registry.function
    async def double(number: int) -> int:
        return 2 * number

    assert asyncio.run(double(21)) == 42
    assert double.is_async


def test_a_function_is_named_after_its_module_and_goes_by_short_names(registry: Registry) -> None:
    ship = registry.function(make_ship("return order"))

    assert ship.name == "orders.ship"
    assert registry.resolve("orders.ship") is ship
    assert registry.resolve("ship") is ship


def test_a_name_with_underscores_is_found_with_dashes(registry: Registry) -> None:
    @registry.function
    def send_email(to: str) -> None: ...

    assert registry.resolve("send-email") is send_email
    assert registry.resolve("send_email") is send_email


def test_a_given_name_is_the_only_name(registry: Registry) -> None:
    @registry.function(name="send-email")
    def deliver(to: str) -> None: ...

    assert registry.names() == {"send-email"}
    assert registry.resolve("send-email") is deliver
    assert registry.find("deliver") is None


def test_a_short_name_of_two_functions_is_ambiguous_and_full_names_work(registry: Registry) -> None:
    one = registry.function(make_ship("return order"))
    other = make_ship("return express")
    other.__module__ = "returns"
    two = registry.function(other)

    assert registry.resolve("orders.ship") is one
    assert registry.resolve("returns.ship") is two
    assert "ship" not in registry.names()
    with pytest.raises(
        NotFoundError, match=r'"ship" is ambiguous: it may be "orders.ship" or "returns.ship"'
    ):
        registry.resolve("ship")


def test_a_given_name_goes_before_a_short_one(registry: Registry) -> None:
    registry.function(make_ship("return order"))
    named = registry.function(name="ship")(make_ship("return express"))

    assert registry.resolve("ship") is named


def test_an_unknown_name_is_404_and_says_what_is_near(registry: Registry) -> None:
    registry.function(name="send-email")(make_ship("return order"))

    with pytest.raises(
        NotFoundError, match=r'no function "send-emial" is registered; did you mean "send-email"\?'
    ) as e:
        registry.resolve("send-emial")
    assert e.value.code == 404


def test_the_same_function_again_is_no_conflict(registry: Registry) -> None:
    registry.function(name="ship")(make_ship("return order"))
    again = registry.function(name="ship")(make_ship("return order"))

    assert registry.resolve("ship") is again
    assert len(registry) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("return order", "return express"),
        ("return 1", "return True"),
        ("return 1", "return 1.0"),
        ("return (1, (2, 3))", "return (1, (2, 4))"),
        ("return [lambda: 1, order]", "return [lambda: 2, order]"),
    ],
)
def test_other_code_under_the_same_name_is_refused_with_both_places(
    registry: Registry, one: str, other: str
) -> None:
    first = registry.function(name="ship")(make_ship(one))

    with pytest.raises(ValueError, match='two functions are named "ship"') as e:
        registry.function(name="ship")(make_ship(other + "  # elsewhere"))
    assert first.place in str(e.value)
    assert f"/srv/{len(other + '  # elsewhere')}/orders.py:1" in str(e.value)
    assert registry.resolve("ship") is first


def test_functions_that_close_over_other_data_are_other_functions(registry: Registry) -> None:
    def make(rate: int) -> Callable[[int], int]:
        def price(amount: int) -> int:
            return amount * rate

        return price

    registry.function(make(2))
    registry.function(make(2))
    with pytest.raises(ValueError, match="two functions are named"):
        registry.function(make(3))


def test_functions_that_call_themselves_can_be_compared(registry: Registry) -> None:
    def make() -> Callable[[int], int]:
        def countdown(n: int) -> int:
            return countdown(n - 1) if n else 0

        return countdown

    registry.function(make())
    registry.function(make())
    assert len(registry) == 1


def test_a_default_value_that_cannot_be_compared_counts_as_different(registry: Registry) -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("no truth here")

        __hash__ = None  # type: ignore[assignment]

    def make() -> Callable[..., Any]:
        def ship(order: object = Odd()) -> None: ...

        return ship

    registry.function(make())
    with pytest.raises(ValueError, match="two functions are named"):
        registry.function(make())


def test_options_are_kept(registry: Registry) -> None:
    @registry.function(queue="mail", priority=5, max_retries=7, timeout=timedelta(minutes=2))
    def send_email(to: str) -> None: ...

    assert send_email.options == Options(queue="mail", priority=5, max_retries=7, timeout=120.0)


def test_retry_means_max_retries(registry: Registry) -> None:
    @registry.function(retry=2)
    def twice() -> None: ...

    @registry.function(retry=False)
    def never() -> None: ...

    assert twice.options.max_retries == 2
    assert never.options.max_retries == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": ""}, "queue must be a name such as 'mail', got ''"),
        ({"queue": 3}, r"queue must be a name such as 'mail', got 3 \(int\)"),
        ({"priority": "high"}, r"priority must be an integer, got 'high' \(str\)"),
        ({"priority": True}, r"priority must be an integer, got True \(bool\)"),
        ({"priority": 10**30}, "priority must be between -2147483647 and 2147483647, got 1000"),
        ({"priority": -(2**31)}, "priority must be between -2147483647 and 2147483647, got -2147483648"),
        ({"timeout": 1e12}, "timeout must be at most 2147483647 seconds, got 1000000000000.0"),
        ({"retry": True}, "retry must be a number of retries, or False for none"),
        ({"retry": 1, "max_retries": 1}, "retry or max_retries, not both"),
        ({"max_retries": 1.5}, r"max_retries must be an integer, got 1.5 \(float\)"),
        ({"max_retries": -1}, "max_retries must be between 0 and 1000, got -1"),
        ({"timeout": 0}, "timeout must be more than 0 seconds and finite, got 0"),
        ({"timeout": float("inf")}, "timeout must be more than 0 seconds and finite, got inf"),
        ({"timeout": "5s"}, "timeout must be a number of seconds or a timedelta, got '5s'"),
        ({"name": ""}, "'' cannot be a function's name: expected 1 to 255 printable characters"),
        ({"name": "send email"}, "'send email' cannot be a function's name"),
        ({"name": "send\nemail"}, "cannot be a function's name"),
        ({"name": "x" * 256}, "cannot be a function's name"),
        ({"name": 7}, r"a function's name must be a string, got 7 \(int\)"),
    ],
)
def test_wrong_options_are_refused_when_the_function_is_declared(
    registry: Registry, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        registry.function(**options)(make_ship("return order"))
    assert not len(registry)


def test_a_name_given_as_the_only_argument_says_how_it_is_given(registry: Registry) -> None:
    with pytest.raises(TypeError, match=r'@dispatch.function\(name="send-email"\)'):
        registry.function("send-email")  # type: ignore[call-overload]


class Mailer:
    def send(self, to: str) -> None: ...

    @staticmethod
    def deliver(to: str) -> str:
        return to

    @classmethod
    def build(cls) -> None: ...

    def __call__(self) -> None: ...


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (lambda: None, r"a lambda has no name .* declare it with def \(.*test_registry.py:"),
        (Mailer, "got the class Mailer"),
        (Mailer(), "takes a function declared with def or async def, got <"),
        (print, "takes a function declared with def or async def, got <built-in function print>"),
        (Mailer.send, "Mailer.send is a method, and a job has no object to call it on"),
        (Mailer.__dict__["deliver"], "@staticmethod goes above @dispatch.function"),
        (Mailer.__dict__["build"], "@classmethod goes above @dispatch.function"),
        (_generator, "_generator is a generator: a job has one result"),
        (_async_generator, "_async_generator is a generator: a job has one result"),
        (7, "takes a function declared with def or async def, got 7"),
    ],
)
def test_what_jobs_cannot_call_is_refused(registry: Registry, thing: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        registry.function(thing)


def test_a_function_is_decorated_once(registry: Registry) -> None:
    ship = registry.function(make_ship("return order"))

    with pytest.raises(TypeError, match=r"is already decorated with @dispatch.function"):
        registry.function(ship)


def test_a_static_method_may_be_called_by_jobs(registry: Registry) -> None:
    assert registry.function(Mailer.deliver).name == f"{__name__}.Mailer.deliver"


def test_what_another_decorator_wraps_keeps_its_nature(registry: Registry) -> None:
    import functools

    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @registry.function
    @traced
    async def ship(order: str) -> str:
        return order

    assert ship.is_async
    assert ship.bind({"order": "ORD-1"}) == ((), {"order": "ORD-1"})


declared = Registry().function(make_ship("return order"))


def test_a_decorated_function_is_copied_and_pickled_by_its_name() -> None:
    assert copy.deepcopy(declared) is declared
    here = Registry().function(_module_level)
    globals()["_module_level"] = here
    assert pickle.loads(pickle.dumps(here)) is here


def _module_level() -> None: ...


def test_the_registry_can_be_looked_through(registry: Registry) -> None:
    ship = registry.function(make_ship("return order"))

    assert list(registry) == [ship]
    assert "ship" in registry
    assert 7 not in registry
    assert bool(Registry())
    assert isinstance(ship, Function)
    assert repr(ship).startswith("<dispatch function orders.ship at /srv/")
