"""The exact counters: what one request costs in function calls and socket writes, the same in every run.

Not a time is looked at. The bars are in `benchmarks.bars`, the counting in `benchmarks.counters`.
"""

from __future__ import annotations

import sys

import pytest

from benchmarks.bars import find
from benchmarks.counters import PYTHON, count_fan_out, count_requests

on_the_counted_python = pytest.mark.skipif(
    sys.version_info[:2] != PYTHON or sys.implementation.name != "cpython",
    reason=f"counted on CPython {PYTHON[0]}.{PYTHON[1]}: others call other things in asyncio, and from 3.12 on the"
    " profiler counts every thread, the peer's as well",
)


@on_the_counted_python
def test_a_pipelined_request_takes_few_function_calls() -> None:
    assert find("D1", "pipelined").met(count_requests(64).calls)


@on_the_counted_python
def test_a_sequential_request_takes_few_function_calls() -> None:
    assert find("D1", "sequential").met(count_requests(1, windows=200).calls)


@on_the_counted_python
def test_requests_in_flight_together_share_their_socket_writes() -> None:
    assert find("D2", "pipelined").met(count_requests(64).writes)


@on_the_counted_python
def test_a_sequential_request_is_one_socket_write() -> None:
    assert count_requests(1, windows=200).writes == find("D2", "sequential").bar


@on_the_counted_python
def test_counts_are_the_same_in_every_run() -> None:
    # But for what asyncio and the clock do once a window or once a second.
    once, again = count_requests(8), count_requests(8)
    assert (round(once.calls), round(once.writes, 1)) == (round(again.calls), round(again.writes, 1))


def test_an_event_is_encoded_once_per_codec_and_label_however_many_listen() -> None:
    assert count_fan_out(2).encodes == count_fan_out(11).encodes == find("D3", "encodes").bar


def test_the_events_of_a_turn_are_one_write_per_connection() -> None:
    assert count_fan_out(5).writes == find("D3", "writes").bar
