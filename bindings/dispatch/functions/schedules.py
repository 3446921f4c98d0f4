"""Reads cron expressions: judges them when they are declared, and tells the time that comes next, in a time zone.

cronsim does the reading and the stepping, as Debian's cron does it. It is small, typed, needs nothing else, is kept by
those who run Healthchecks on it, and knows what cron does when clocks change: an entry for a time of day fires once,
also on a day that has this time twice or not at all, and one for every so many minutes goes on as if nothing happened.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from dwp_core.jobs import SECOND

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""What crontab(5) has for schedules that many have."""


def next_after(expression: str, timezone: str, after_ns: int) -> int | None:
    """The first time after one that the expression names.

    Args:
        expression: five fields (minute, hour, day of month, month, day of week), six with seconds before them, or a
            nickname such as "@daily".
        timezone: whose wall clock it means, a name of the IANA data base.
        after_ns: nanoseconds since 1970, exclusive.

    Returns:
        Nanoseconds since 1970, a whole second; None where no such time comes in the next 50 years.

    Raises:
        ValueError: there is no such schedule or time zone.
        ModuleNotFoundError: cronsim is not installed.

    Example:
        >>> next_after("30 9 * * MON-FRI", "Europe/Berlin", 1_700_000_000 * 10**9) == 1700037000 * 10**9
        True
    """
    from cronsim import CronSim, CronSimError

    after = datetime.fromtimestamp(after_ns // SECOND, UTC)
    zone = UTC if timezone == "UTC" else _zone(timezone)
    try:
        schedule = CronSim(NICKNAMES.get(expression, expression), after.astimezone(zone))
    except CronSimError as error:
        raise ValueError(
            f'there is no schedule "{expression}" ({str(error).lower()}): expected five fields, minute, hour, day of'
            ' month, month and day of week, e.g. "*/5 * * * *"'
        ) from None
    for at in schedule:
        seconds = int(at.timestamp())
        # Begun in the second of two equal hours, it would tell of the first one again.
        if seconds * SECOND > after_ns:
            return seconds * SECOND
    return None


def check_schedule(expression: object, timezone: object) -> None:
    """Judges a schedule. Where cronsim is not installed, only what needs no cronsim: a server has it, and judges again.

    Raises:
        TypeError: they are no strings.
        ValueError: there is no such schedule or time zone, or the schedule never comes.
    """
    for what, value in (("the schedule", expression), ("timezone", timezone)):
        if not isinstance(value, str):
            raise TypeError(
                f"@dispatch.cron: {what} must be a string, got {value!r} ({type(value).__name__})"
            )
    try:
        never = next_after(str(expression), str(timezone), 0) is None
    except ModuleNotFoundError as error:
        if error.name != "cronsim":
            raise
        return
    except ValueError as error:
        raise ValueError(f"@dispatch.cron: {error}") from None
    if never:
        raise ValueError(f'@dispatch.cron: the schedule "{expression}" never comes')


@lru_cache
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a directory, "../x", a name that is not there
        raise ValueError(
            f'there is no time zone "{name}": expected a name such as "Europe/Berlin" or "UTC"'
            " (on Windows they come with the package tzdata)"
        ) from None
