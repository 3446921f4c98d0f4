from __future__ import annotations

import pytest

from dwp_core.backoff import Backoff


def test_the_bound_doubles_until_the_cap() -> None:
    backoff = Backoff(base=0.5, cap=4.0)
    assert [backoff.delay(attempt=n, jitter=1.0) for n in (1, 2, 3, 4, 5, 5000)] == [
        0.5,
        1.0,
        2.0,
        4.0,
        4.0,
        4.0,
    ]


def test_the_whole_time_is_jitter() -> None:
    backoff = Backoff(base=2.0, cap=8.0)
    assert backoff.delay(attempt=1, jitter=0.0) == 0.0
    assert backoff.delay(attempt=1, jitter=0.25) == 0.5


@pytest.mark.parametrize("wrong", [{"base": 0.0}, {"base": 5.0, "cap": 4.0}, {"stable_after": -1.0}])
def test_times_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs 0 < base <= cap"):
        Backoff(**wrong)
