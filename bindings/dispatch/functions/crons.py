"""Declares cron entries: what `@dispatch.cron` was given becomes a `CronDeclaration`, or an error that says why not.

When an entry fires is decided in `dwp_core.crons`; when its times are is read in `dispatch.functions.schedules`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch.functions.schedules import check_schedule
from dwp_core.codec.payload import encode_payload
from dwp_core.crons import CATCH_UPS, OVERLAPS, CatchUp, CronDeclaration, Overlap
from dwp_core.jobs import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_NS,
    SECOND,
)
from dwp_core.methods import NAME_LIMIT

if TYPE_CHECKING:
    from dispatch.functions.registry import Function


def declare_cron(
    function: Function[..., Any],
    expression: str,
    *,
    timezone: str,
    overlap: Overlap,
    catch_up: CatchUp,
    name: str | None,
    payload: Any,
    app_id: str,
    org_id: str,
) -> CronDeclaration:
    """The entry that the arguments of `@dispatch.cron` declare for a function.

    Raises:
        TypeError: an argument is mistyped, or the payload does not fit the function.
        ValueError: there is no such schedule, time zone or policy.
    """
    check_schedule(expression, timezone)
    for option, policy, policies in (("overlap", overlap, OVERLAPS), ("catch_up", catch_up, CATCH_UPS)):
        if policy not in policies:
            raise ValueError(f"@dispatch.cron: {option} must be one of {', '.join(policies)}, got {policy!r}")
    for option, text in (("name", name), ("app_id", app_id), ("org_id", org_id)):
        if text is not None and not isinstance(text, str):
            raise TypeError(
                f"@dispatch.cron: {option} must be a string, got {text!r} ({type(text).__name__})"
            )
    entry_name = function.label if name is None else name
    if not 1 <= len(entry_name) <= NAME_LIMIT:
        raise ValueError(f"@dispatch.cron: name must be of 1 to {NAME_LIMIT} characters, got {entry_name!r}")
    try:
        function.bind(payload)
    except TypeError as error:
        raise TypeError(f"@dispatch.cron: its payload does not fit: {error}") from None
    options = function.options
    return CronDeclaration(
        entry_name,
        expression,
        timezone,
        function.name,
        b"" if payload is None else encode_payload(payload, what=f"@dispatch.cron: payload of {entry_name}"),
        overlap,
        catch_up,
        DEFAULT_QUEUE if options.queue is None else options.queue,
        DEFAULT_PRIORITY if options.priority is None else options.priority,
        DEFAULT_MAX_RETRIES if options.max_retries is None else options.max_retries,
        DEFAULT_TIMEOUT_NS if options.timeout is None else int(options.timeout * SECOND),
        app_id,
        org_id,
    )
