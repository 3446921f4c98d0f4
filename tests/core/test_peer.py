from __future__ import annotations

import json
from typing import Any

import pytest

from dwp_core.peer import BASE_CREDITS, FEATURES, Peer, PeerLimits, auth_data, read_auth_answer


def test_a_client_says_who_it_is_and_what_it_can_do() -> None:
    assert json.loads(auth_data(token="dk", format="msgpack", name="dispatch-python", version="1")) == {
        "token": "dk",
        "format": "msgpack",
        "client": {"name": "dispatch-python", "version": "1"},
        "features": list(FEATURES),
    }


def test_an_answer_without_features_comes_from_a_base_server() -> None:
    peer = read_auth_answer({"format": "json", "session_id": "ws_1"})
    assert peer == Peer("ws_1", "json")
    assert peer.is_base
    assert (peer.credits, peer.heartbeat, peer.limits) == (BASE_CREDITS, None, PeerLimits())


def test_everything_that_a_negotiated_server_says_is_believed() -> None:
    limits = {
        "message": 1,
        "payload": 2,
        "depth": 9,
        "in_flight": 3,
        "subscriptions": 4,
        "batch": 5,
        "wait_ms": 6,
    }
    peer = read_auth_answer(
        {
            "format": "msgpack",
            "session_id": "ws_2",
            "server": {"name": "dispatch", "version": "0.1"},
            "features": ["resume", "telepathy", "wait"],
            "heartbeat_ms": 2500,
            "limits": limits,
            "credits": 77,
            "log": "log_a",
        }
    )
    assert peer == Peer(
        "ws_2",
        "msgpack",
        features=frozenset(("resume", "wait")),
        heartbeat=2.5,
        credits=77,
        log="log_a",
        name="dispatch 0.1",
        limits=PeerLimits(message=1, payload=2, in_flight=3, subscriptions=4, batch=5, wait_ms=6),
    )
    assert not peer.is_base


@pytest.mark.parametrize("format", ["json", "MSGPACK", "", None, 7])
def test_only_the_exact_name_selects_messagepack(format: Any) -> None:
    assert read_auth_answer({"format": format}).format == "json"


@pytest.mark.parametrize("nonsense", [None, "x", -1, 0, True, 1.5, [], {}, 2**53, 10**400])
def test_numbers_that_make_no_sense_count_as_absent(nonsense: Any) -> None:
    answer = {
        "session_id": nonsense,
        "heartbeat_ms": nonsense,
        "credits": nonsense,
        "log": nonsense,
        "server": nonsense,
    }
    peer = read_auth_answer(
        {**answer, "format": "json", "features": nonsense, "limits": {"in_flight": nonsense}}
    )
    assert (peer.heartbeat, peer.credits, peer.limits, peer.features) == (
        None,
        BASE_CREDITS,
        PeerLimits(),
        frozenset(),
    )


def test_features_that_are_no_names_are_passed_over() -> None:
    assert read_auth_answer({"format": "json", "features": [["resume"], {}, None, "wait"]}).features == {
        "wait"
    }


def test_a_heartbeat_that_would_be_a_flood_is_slowed_down() -> None:
    assert read_auth_answer({"format": "json", "heartbeat_ms": 1}).heartbeat == 0.1


@pytest.mark.parametrize("value", [None, [], "welcome", 5, {}])
def test_an_answer_that_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="its answer to the login must be an object"):
        read_auth_answer(value)
