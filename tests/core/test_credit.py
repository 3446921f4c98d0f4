"""How many events a connection may be sent (`dwp_core.credit`)."""

from __future__ import annotations

from dwp_core.credit import UNLIMITED, SendCredit


def test_a_negotiated_peer_is_limited_from_the_start() -> None:
    credit = SendCredit(initial=5, limited=True)
    assert credit.available == 5
    credit.available -= 5
    credit.grant(2)
    assert credit.available == 2


def test_a_base_peer_that_never_grants_is_not_limited() -> None:
    credit = SendCredit(initial=5, limited=False)
    credit.available -= 1_000_000
    assert credit.available > UNLIMITED // 2


def test_the_first_grant_limits_a_base_peer_as_if_counted_from_the_start() -> None:
    credit = SendCredit(initial=5, limited=False)
    credit.available -= 3
    credit.grant(10)
    assert credit.available == 12
    assert credit.limited


def test_a_base_peer_that_is_ahead_of_its_start_has_what_it_grants() -> None:
    credit = SendCredit(initial=5, limited=False)
    credit.available -= 50
    credit.grant(10)
    assert credit.available == 10


def test_credit_has_a_bound() -> None:
    credit = SendCredit(limited=True)
    credit.grant(2**62)
    assert credit.available == 2**31 - 1
