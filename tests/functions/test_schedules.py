"""Cron expressions and wall clocks: what comes next, also on the days when clocks change."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from dispatch.functions.schedules import NICKNAMES, check_schedule, next_after
from dwp_core.jobs import SECOND

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"


def times(expression: str, timezone: str, after: str, count: int) -> list[str]:
    at = int(datetime.fromisoformat(after).timestamp()) * SECOND
    found: list[str] = []
    for _ in range(count):
        following = next_after(expression, timezone, at)
        assert following is not None
        assert following > at
        at = following
        found.append(datetime.fromtimestamp(at // SECOND, UTC).strftime("%m-%d %H:%M:%S"))
    return found


def test_a_schedule_is_of_the_wall_clock_of_its_time_zone() -> None:
    assert times("0 9 * * MON", "UTC", "2026-06-01T09:00Z", 1) == ["06-08 09:00:00"]
    assert times("0 9 * * MON", BERLIN, "2026-06-01T07:00Z", 1) == ["06-08 07:00:00"]
    assert times("0 9 * * MON", "Asia/Kolkata", "2026-06-01T07:00Z", 1) == ["06-08 03:30:00"]


def test_a_time_of_day_that_the_clocks_leave_out_comes_right_after() -> None:
    # 2026-03-29: 02:00 becomes 03:00 in Berlin, which is 01:00 UTC.
    expected = ["03-28 01:30:00", "03-29 01:00:00", "03-30 00:30:00"]
    assert times("30 2 * * *", BERLIN, "2026-03-28T00:00Z", 3) == expected
    # 2026-03-08: 02:00 becomes 03:00 in New York, which is 07:00 UTC.
    expected = ["03-07 07:15:00", "03-08 07:00:00", "03-09 06:15:00"]
    assert times("15 2 * * *", NEW_YORK, "2026-03-07T00:00Z", 3) == expected


def test_several_times_of_day_that_the_clocks_leave_out_come_once() -> None:
    expected = ["03-29 01:00:00", "03-30 00:00:00", "03-30 00:30:00"]
    assert times("0,30 2 * * *", BERLIN, "2026-03-29T00:00Z", 3) == expected


def test_a_time_of_day_that_comes_twice_fires_once() -> None:
    # 2026-10-25: 03:00 becomes 02:00 in Berlin, which is 01:00 UTC.
    expected = ["10-24 00:30:00", "10-25 00:30:00", "10-26 01:30:00"]
    assert times("30 2 * * *", BERLIN, "2026-10-24T00:00Z", 3) == expected
    # Nor does it fire again for one who starts, or comes back, in the second of the two hours.
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:15Z", 1) == ["10-26 01:30:00"]


@pytest.mark.parametrize("change", ["2026-03-29T00:30Z", "2026-10-25T00:30Z"])
def test_every_so_many_minutes_goes_on_when_clocks_change(change: str) -> None:
    day = change[5:10]
    expected = [f"{day} {time}:00" for time in ("00:45", "01:00", "01:15", "01:30")]
    assert times("*/15 * * * *", BERLIN, change, 4) == expected


def test_hours_that_the_clocks_leave_out_or_repeat_are_real_hours() -> None:
    assert times("0 */1 * * *", BERLIN, "2026-03-29T00:00Z", 2) == ["03-29 01:00:00", "03-29 02:00:00"]
    assert times("0 * * * *", BERLIN, "2026-10-25T00:00Z", 2) == ["10-25 01:00:00", "10-25 02:00:00"]


def test_six_fields_begin_with_seconds() -> None:
    assert times("*/20 * * * * *", "UTC", "2026-01-01T00:00:01Z", 2) == ["01-01 00:00:20", "01-01 00:00:40"]


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_nicknames_are_schedules(nickname: str) -> None:
    check_schedule(nickname, "UTC")


def test_a_fraction_of_a_second_before_is_before() -> None:
    at = next_after("0 0 * * *", "UTC", 0)
    assert at is not None
    assert next_after("0 0 * * *", "UTC", at - 1) == at
    assert next_after("0 0 * * *", "UTC", at + 1) == at + 24 * 3600 * SECOND


@pytest.mark.parametrize(
    ("expression", "timezone", "message"),
    [
        ("* * * *", "UTC", 'there is no schedule "* * * *" (wrong number of fields): expected five fields'),
        ("61 * * * *", "UTC", '"61 * * * *" (bad minute)'),
        ("0 0 30 2 *", "UTC", '"0 0 30 2 *" (bad day-of-month)'),
        ("* * * * *", "Europe/Bärlin", 'there is no time zone "Europe/Bärlin": expected a name such as'),
        ("* * * * *", "../passwd", 'there is no time zone "../passwd"'),
        ("* * */20 * 1L", "UTC", 'the schedule "* * */20 * 1L" never comes'),
    ],
)
def test_what_is_no_schedule_is_said_where_it_is_declared(
    expression: str, timezone: str, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check_schedule(expression, timezone)
    assert str(caught.value).startswith("@dispatch.cron: ")
    assert message in str(caught.value)


def test_a_schedule_is_text() -> None:
    with pytest.raises(TypeError, match="the schedule must be a string, got 5"):
        check_schedule(5, "UTC")
    with pytest.raises(TypeError, match="timezone must be a string, got None"):
        check_schedule("* * * * *", None)


def test_without_cronsim_a_schedule_is_judged_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may import the program that a server runs; what only the server needs is not in a bare install."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    check_schedule("no schedule", "UTC")
    with pytest.raises(ModuleNotFoundError):
        next_after("* * * * *", "UTC", 0)
