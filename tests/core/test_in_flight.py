"""Requests that are taken up and not answered (`dwp_core.in_flight`)."""

from __future__ import annotations

from dwp_core.in_flight import InFlight


def test_each_request_is_settled_once() -> None:
    table = InFlight()
    table.add("a", size=5)
    table.add("b", size=7)
    assert (table.sizes, table.load) == ({"a": 5, "b": 7}, 12)
    assert table.settle("a")
    assert not table.settle("a")
    assert (table.sizes, table.load) == ({"b": 7}, 7)
    table.clear()
    assert (table.sizes, table.load) == ({}, 0)


def test_a_request_expires_once_unless_it_was_settled() -> None:
    table = InFlight()
    assert table.next_expiry is None
    assert table.pop_expired(100.0) is None
    for id, at in (("a", 5.0), ("b", 3.0), ("c", 4.0)):
        table.add(id, size=0)
        table.expire(id, at)
    assert table.next_expiry == 3.0
    table.settle("b")
    assert table.pop_expired(3.9) is None
    assert table.pop_expired(9.0) == "c"
    assert "c" in table.sizes
    assert table.next_expiry == 5.0
    table.clear()
    assert table.next_expiry is None
