from __future__ import annotations

import re
from typing import Any

import pytest

from dwp_core.errors import InvalidRequest
from dwp_core.ids import PREFIXES, IdSource, parse_id

MS = 1_000_000
GOOD = "job_01h455vb4pex5vsknk084sn02q"


class Clock:
    def __init__(self, ms: int) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms * MS


def source(clock: Clock, tail: bytes = b"\xff" * 10) -> IdSource:
    return IdSource(random_bytes=lambda n: tail[:n], now_ns=clock)


def uuid_of(text: str) -> int:
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for letter in text.rpartition("_")[2]:
        number = number * 32 + alphabet.index(letter)
    return number


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_an_id_is_a_prefix_and_a_uuid_of_version_7(prefix: str) -> None:
    made = source(Clock(1_700_000_000_000)).new(prefix)
    assert re.fullmatch(prefix + "_[0-7][0-9a-hjkmnp-tv-z]{25}", made)
    number = uuid_of(made)
    assert (number >> 80, number >> 76 & 15, number >> 62 & 3) == (1_700_000_000_000, 7, 2)
    assert parse_id(made, prefix, "id") == made


def test_ids_sort_in_the_order_of_their_making_also_within_a_millisecond() -> None:
    clock = Clock(1_700_000_000_000)
    ids = source(clock)
    made = [ids.new("job") for _ in range(100)]
    clock.ms += 1
    made += [ids.new("job") for _ in range(100)]
    assert made == sorted(set(made))


def test_a_clock_that_steps_back_does_not_disturb_the_order() -> None:
    clock = Clock(1_700_000_000_000)
    ids = source(clock)
    first = ids.new("job")
    clock.ms -= 3600_000
    assert ids.new("job") > first


def test_time_and_randomness_are_all_that_an_id_depends_on() -> None:
    assert source(Clock(5)).new("job") == source(Clock(5)).new("job")
    assert source(Clock(5), bytes(10)).new("job") != source(Clock(5)).new("job")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "invalid job id: expected job_01h455vb4pex5vsknk084sn02q, got None"),
        (7, "got 7"),
        ("", 'got ""'),
        ("01h455vb4pex5vsknk084sn02q", 'expected prefix "job"'),
        ("wfrun_01h455vb4pex5vsknk084sn02q", 'expected prefix "job", got "wfrun_01'),
        ("job_" + "0" * 25, "must end in 26 lower-case base32 characters"),
        ("job_81h455vb4pex5vsknk084sn02q", "must end in 26"),
        ("job_01H455VB4PEX5VSKNK084SN02Q", "must end in 26"),
        ("job_01h455vb4pex5vsknk084sn0u!", "must end in 26"),
        ("job_" + "x" * 500, "..."),
    ],
)
def test_what_is_no_id_is_refused_with_an_example(text: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        parse_id(text, "job", "job id")
    assert parse_id(GOOD, "job", "job id") == GOOD
