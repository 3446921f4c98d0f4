"""Declaring cron entries: `@dispatch.cron` on a function."""

from __future__ import annotations

from typing import Any

import pytest

import dispatch
from dispatch.functions import REGISTRY, Function, Registry, cron
from dwp_core.crons import CronDeclaration
from dwp_core.jobs import SECOND


@pytest.fixture
def registry() -> Registry:
    return Registry()


def report(days: int = 1) -> int:
    return days


def test_a_function_and_its_entry_are_declared_together(registry: Registry) -> None:
    decorated = registry.cron("30 2 * * *", timezone="Europe/Berlin", payload={"days": 7})(report)
    assert isinstance(decorated, Function)
    assert decorated(3) == 3
    assert registry.find("report") is decorated
    assert registry.crons() == [
        CronDeclaration("report", "30 2 * * *", "Europe/Berlin", decorated.name, b'{"days":7}')
    ]


def test_jobs_of_an_entry_are_as_the_function_says(registry: Registry) -> None:
    function = registry.function(name="report", queue="slow", priority=5, max_retries=0, timeout=1.5)(report)
    assert registry.cron("@daily", name="nightly", app_id="a", org_id="o")(function) is function
    assert registry.crons() == [
        CronDeclaration(
            "nightly",
            "@daily",
            "UTC",
            "report",
            queue="slow",
            priority=5,
            max_retries=0,
            timeout=SECOND * 3 // 2,
            app_id="a",
            org_id="o",
        )
    ]


def test_a_function_may_have_several_entries(registry: Registry) -> None:
    @registry.cron("@weekly", name="weekly", payload=7, overlap="queue", catch_up="all")
    @registry.cron("@daily", name="daily")
    @registry.function
    def summary(days: int = 1) -> None: ...

    assert [(one.name, one.overlap, one.catch_up) for one in registry.crons()] == [
        ("daily", "skip", "one"),
        ("weekly", "queue", "all"),
    ]
    with pytest.raises(
        ValueError, match=r'two entries are named "daily".*give one of them a name=… of its own'
    ):
        registry.cron("@hourly", name="daily")(report)


def test_a_module_that_is_loaded_again_declares_its_entries_again(registry: Registry) -> None:
    for schedule in ("@daily", "@hourly"):
        registry.cron(schedule)(registry.function(name="report")(report))
    assert [one.expression for one in registry.crons()] == ["@hourly"]


def test_entries_go_with_their_functions_into_another_registry(registry: Registry) -> None:
    function = registry.cron("@daily")(report)
    other = Registry()
    other.add(function)
    assert other.crons() == registry.crons()
    same_name = Registry().cron("@hourly", name="report")(registry.function(name="other")(report))
    other.add(same_name)
    with pytest.raises(ValueError, match='two entries are named "report"'):
        other.crons()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("* * * *",), ValueError, 'there is no schedule "* * * *"'),
        ((report,), TypeError, 'takes a schedule: @dispatch.cron("*/5 * * * *")'),
        (("@daily", {"timezone": "Mars/Olympus"}), ValueError, 'there is no time zone "Mars/Olympus"'),
        (("@daily", {"timezone": 5}), TypeError, "timezone must be a string, got 5 (int)"),
        (
            ("@daily", {"overlap": "maybe"}),
            ValueError,
            "overlap must be one of skip, queue, allow, got 'maybe'",
        ),
        (("@daily", {"catch_up": True}), ValueError, "catch_up must be one of none, one, all, got True"),
        (("@daily", {"name": 5}), TypeError, "name must be a string, got 5 (int)"),
        (("@daily", {"name": ""}), ValueError, "name must be of 1 to 255 characters, got ''"),
        (("@daily", {"payload": {"weeks": 1, "x": 2}, "name": "n"}), None, ""),
        (("@daily", {"payload": b"1"}), ValueError, "payload of report"),
    ],
)
def test_what_is_declared_wrongly_is_said_at_once(
    registry: Registry, arguments: tuple[Any, ...], error: type[Exception] | None, message: str
) -> None:
    schedule, options = arguments[0], arguments[1] if len(arguments) > 1 else {}
    if error is None:
        # One parameter takes any object.
        registry.cron(schedule, **options)(report)
        return
    with pytest.raises(error) as caught:
        registry.cron(schedule, **options)(report)
    assert message in str(caught.value)
    assert registry.crons() == []


def test_a_payload_that_the_function_does_not_take_is_refused(registry: Registry) -> None:
    def needs(one: int, two: int) -> None: ...

    with pytest.raises(TypeError, match=r"@dispatch.cron: its payload does not fit: .*needs"):
        registry.cron("@daily")(needs)
    assert len(registry) == 0


def test_the_order_of_the_decorators_is_said(registry: Registry) -> None:
    with pytest.raises(
        TypeError, match=r"is already decorated with @dispatch.function; put @dispatch.cron above it"
    ):
        registry.function(registry.cron("@daily")(report))


def test_dispatch_cron_declares_in_the_program_s_registry() -> None:
    assert dispatch.cron == cron == REGISTRY.cron
