"""What a type checker must refuse; each such line says so. Never run: `test_typing.py` has it checked."""

from __future__ import annotations

import dispatch


@dispatch.function
def plain(to: str) -> int:
    return len(to)


@dispatch.function(queues="mail")  # wrong
def misspelt(to: str) -> int:
    return len(to)


@dispatch.cron("@daily", overlap="sometimes")  # wrong
@dispatch.function
def nightly(to: str) -> int:
    return len(to)


nightly(1)  # wrong
plain()  # wrong
plain(1)  # wrong
plain("a") + "b"  # wrong
dispatch.functoin  # wrong
