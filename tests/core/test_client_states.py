from __future__ import annotations

from dwp_core.client_states import CLIENT_STATES, CLOSED, CLOSING, FINISHING, GIVE_UP, LOST, ONLINE, OVER


def test_every_state_but_the_last_can_be_given_up() -> None:
    assert CLIENT_STATES.final == {CLOSED}
    assert all(CLIENT_STATES.allows(state, GIVE_UP) for state in CLIENT_STATES.states - {CLOSED})


def test_who_was_closed_by_its_application_never_tries_again() -> None:
    assert {FINISHING, CLOSING, CLOSED} == OVER
    assert not any(CLIENT_STATES.allows(state, LOST) for state in OVER)


def test_every_state_with_a_login_can_lose_its_connection_or_is_over() -> None:
    assert all(CLIENT_STATES.allows(state, LOST) for state in ONLINE - OVER)
