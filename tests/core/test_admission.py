"""The login and each request, judged before anything is done (`dwp_core.admission`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dwp_core.admission import admit, decode_login, read_login, welcome
from dwp_core.codec import get_codec
from dwp_core.errors import DispatchError
from dwp_core.frames import Frame
from dwp_core.server_events import Identity, ServerConfig

CONFIG = ServerConfig(name="test", version="1", in_flight=2, methods=frozenset(("stats", "job.get")))
JSON = get_codec("json")


def frame(**fields: Any) -> Frame:
    return decode_login(JSON, json.dumps({"id": "x", "type": "request", **fields}).encode(), CONFIG)


def refused_login(**fields: Any) -> tuple[int, str, str]:
    with pytest.raises(DispatchError) as caught:
        read_login(JSON, frame(**fields), CONFIG)
    return caught.value.code, caught.value.message, caught.value.details


def test_the_token_is_in_the_data_or_else_in_the_frame() -> None:
    assert read_login(JSON, frame(method="auth", token="b", data={"token": "a"}), CONFIG).token == "a"
    assert read_login(JSON, frame(method="auth", token="b", data={}), CONFIG).token == "b"
    assert read_login(JSON, frame(method="auth", token="b"), CONFIG).token == "b"
    assert read_login(JSON, frame(method="auth", token="b", data={"token": None}), CONFIG).token == "b"
    assert read_login(JSON, frame(method="auth"), CONFIG).token == ""


def test_only_the_exact_name_selects_messagepack() -> None:
    for asked, given in (("msgpack", "msgpack"), ("MsgPack", "json"), ("protobuf", "json"), ("", "json")):
        assert read_login(JSON, frame(method="auth", data={"format": asked}), CONFIG).format == given


def test_features_are_what_both_sides_have() -> None:
    offered = ["resume", "teleport", 5, "wait"]
    login = read_login(JSON, frame(method="auth", data={"features": offered}), CONFIG)
    assert login.features == {"resume", "wait"}
    assert read_login(JSON, frame(method="auth", data={"features": "resume"}), CONFIG).features == frozenset()


def test_what_is_no_frame_is_an_invalid_auth_frame() -> None:
    with pytest.raises(DispatchError) as caught:
        decode_login(JSON, b"hello", CONFIG)
    assert (caught.value.code, caught.value.message) == (400, "invalid auth frame")
    assert caught.value.details


def test_the_first_frame_must_be_auth() -> None:
    assert refused_login(method="stats")[:2] == (400, "first frame must be auth")
    assert refused_login(method="auth", type="ping")[:2] == (400, "first frame must be auth")


@pytest.mark.parametrize(
    ("data", "details"),
    [
        ("dk_full", "auth: data must be an object, got str"),
        ({"token": 5}, "auth: token must be a string, got int"),
        ({"token": "x", "format": []}, "auth: format must be a string, got list"),
    ],
)
def test_auth_data_that_cannot_be_used_is_said_to_be_so(data: object, details: str) -> None:
    assert refused_login(method="auth", data=data) == (400, "invalid auth data", details)


def test_a_base_peer_is_told_no_more_than_it_knows() -> None:
    login = read_login(JSON, frame(method="auth", data={"format": "msgpack"}), CONFIG)
    assert json.loads(welcome(CONFIG, login, session_id="ws_1", log="log-1")) == {
        "format": "msgpack",
        "session_id": "ws_1",
    }


def test_a_negotiated_peer_is_told_everything_it_may_rely_on() -> None:
    login = read_login(JSON, frame(method="auth", data={"features": ["wait", "resume"]}), CONFIG)
    assert json.loads(welcome(CONFIG, login, session_id="ws_1", log="log-1")) == {
        "format": "json",
        "session_id": "ws_1",
        "server": {"name": "test", "version": "1"},
        "features": ["resume", "wait"],
        "heartbeat_ms": 20_000,
        "limits": {
            "message": 16 * 1024 * 1024,
            "payload": 8 * 1024 * 1024,
            "depth": 128,
            "in_flight": 2,
            "subscriptions": 1024,
            "batch": 1000,
            "wait_ms": 30_000,
            "idempotency_ms": 86_400_000,
        },
        "credits": 1000,
        "log": "log-1",
    }


def asked(
    method: str,
    *,
    id: str = "x",
    scopes: tuple[str, ...] = ("*",),
    in_flight: tuple[str, ...] = (),
    draining: bool = False,
) -> tuple[int, str] | str:
    identity = Identity("me", scopes=frozenset(scopes))
    try:
        return admit(
            frame(method=method, id=id), identity, CONFIG, in_flight=in_flight, draining=draining
        ).name
    except DispatchError as error:
        return error.code, error.message


def test_a_request_that_may_be_carried_out_is_admitted() -> None:
    assert asked("stats") == "stats"
    assert asked("job.get", scopes=("job:read",)) == "job.get"


def test_an_unknown_method_is_405_whatever_the_scopes() -> None:
    assert asked("nonsense", scopes=()) == (405, "unknown method: nonsense")
    assert asked("", scopes=()) == (405, "unknown method: ")
    assert asked("auth") == (405, "unknown method: auth")


def test_a_missing_scope_is_403() -> None:
    assert asked("stats", scopes=("admin",)) == (403, "insufficient permissions")


def test_a_method_that_this_server_does_not_have_is_405() -> None:
    assert asked("cron.list") == (405, "unknown method: cron.list (not served by this server yet)")


def test_a_draining_server_carries_out_nothing_new() -> None:
    assert asked("stats", draining=True) == (503, "the server is going away; the request was not carried out")


def test_ids_must_tell_requests_apart() -> None:
    assert asked("stats", id="") == (400, "stats: a request needs an id, to be answered by")
    assert asked("stats", in_flight=("x",)) == (
        400,
        'stats: a request with id "x" is not answered yet; each needs its own',
    )


def test_too_many_requests_in_flight_are_429() -> None:
    assert asked("stats", in_flight=("a", "b")) == (
        429,
        "stats: 2 requests are not answered yet; wait for an answer",
    )
