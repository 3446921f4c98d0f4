"""The server's side of one connection (`dwp_core.server`): login, requests, liveness, stall, drain, the end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dwp_core.codec import get_codec
from dwp_core.effects import CloseTransport
from dwp_core.errors import ConflictError, NotFoundError
from dwp_core.frames import DEFAULT_LIMITS, Limits
from dwp_core.peer import FEATURES
from dwp_core.server import ServerSession
from dwp_core.server_events import Identity, RequestReceived, ServerConfig, SessionClosed, WaitExpired
from tests.core.serving import EPOCH_NS, JOB, Client, error_of, event
from tests.portable.forms import FORMS

SMALL = ServerConfig(in_flight=2, subscriptions=2, batch=2, limits=Limits(message=600, payload=200, depth=5))


@pytest.fixture
def client() -> Client:
    client = Client()
    client.login()
    return client


# ── the login ──


def test_the_answer_to_a_login_names_codec_and_session() -> None:
    assert Client().login(features=None) == {"format": "json", "session_id": "ws_1"}


def test_the_answer_is_already_in_the_codec_that_was_asked_for() -> None:
    client = Client()
    auth = {"id": "a", "type": "request", "method": "auth", "data": {"format": "msgpack"}}
    client.session.receive_message(json.dumps(auth).encode(), now=0.0)
    assert not client.session.binary
    client.session.accept(Identity("me"), now=0.0)
    assert client.session.binary
    [answer] = client.session.take_messages()
    codec = get_codec("msgpack")
    frame = codec.decode(answer, DEFAULT_LIMITS)
    assert codec.value(frame, DEFAULT_LIMITS)["format"] == "msgpack"


@pytest.mark.parametrize(
    ("message", "code", "text", "correl_id"),
    [
        (b"hello", 400, "invalid auth frame", None),
        (b"\x84\xa2id\xa11", 400, "invalid auth frame", None),
        (b'{"id":"x","type":"request","method":"stats"}', 400, "first frame must be auth", "x"),
        (b'{"id":"x","type":"ping"}', 400, "first frame must be auth", "x"),
        (b'{"id":"x","type":"request","method":"auth","data":"dk"}', 400, "invalid auth data", "x"),
    ],
)
def test_a_bad_login_is_refused_in_json_and_closed(
    message: bytes, code: int, text: str, correl_id: str | None
) -> None:
    client = Client()
    [answer] = client.send(message)
    assert answer["error"]["code"] == code
    assert answer["error"]["message"] == text
    assert answer.get("correl_id") == correl_id
    assert client.close_code == 1008
    assert client.events() == [SessionClosed(text)]


def test_a_wrong_token_is_401_in_json_whatever_was_asked_for() -> None:
    client = Client()
    client.send(
        {"id": "a", "type": "request", "method": "auth", "data": {"token": "no", "format": "msgpack"}}
    )
    client.session.reject(now=client.now)
    assert error_of(client.take()) == (401, "authentication failed")
    assert client.close_code == 1008


def test_a_login_that_does_not_come_in_time_is_refused() -> None:
    client = Client()
    assert client.sleep(9.9) == []
    assert error_of(client.sleep(0.2)) == (401, "authentication timed out")
    assert client.close_code == 1008


def test_a_login_that_is_not_judged_in_time_is_refused() -> None:
    client = Client()
    client.send({"id": "a", "type": "request", "method": "auth"})
    assert error_of(client.sleep(10.0)) == (401, "authentication timed out")
    client.session.accept(Identity("late"), now=client.now)
    client.session.reject(now=client.now)
    assert client.take() == []


def test_what_comes_before_the_login_is_judged_is_taken_up_after_it() -> None:
    client = Client()
    client.send({"id": "a", "type": "request", "method": "auth"})
    assert client.ask("unsubscribe", {"channel": "jobs"}) == []
    client.session.accept(Identity("me", scopes=frozenset(("*",))), now=client.now)
    assert [frame["correl_id"] for frame in client.take()] == ["a", "c1"]


def test_what_comes_before_the_login_is_judged_has_a_bound() -> None:
    client = Client(config=SMALL)
    client.send({"id": "a", "type": "request", "method": "auth"})
    assert client.ask("stats") == []
    assert client.ask("stats") == []
    assert error_of(client.ask("stats"))[0] == 429
    assert client.close_code == 1008


def test_what_comes_before_the_login_is_judged_has_a_bound_in_bytes_as_well() -> None:
    client = Client(config=SMALL)
    client.send({"id": "a", "type": "request", "method": "auth"})
    assert client.send(b"x" * 400) == []
    assert error_of(client.send(b"x" * 400))[0] == 429


# ── requests ──


def test_a_request_goes_to_its_handler_and_is_answered_once(client: Client) -> None:
    assert client.ask("job.enqueue", {"name": "x", "payload": [1, 2]}, id="r") == []
    assert client.events() == [
        RequestReceived(
            "r", "job.enqueue", {"name": "x", "payload": [1, 2]}, b'{"name": "x", "payload": [1, 2]}'
        )
    ]
    assert client.session.in_flight == 1
    client.session.respond("r", b'{"job_id":"j"}', now=client.now)
    [answer] = client.take()
    assert answer["type"] == "response"
    assert answer["correl_id"] == "r"
    assert answer["data"] == {"job_id": "j"}
    with pytest.raises(NotFoundError, match='no request with id "r" waits'):
        client.session.respond("r", b"{}", now=client.now)
    with pytest.raises(NotFoundError):
        client.session.fail("r", ConflictError("again"), now=client.now)
    assert client.take() == []


def test_requests_are_answered_in_any_order(client: Client) -> None:
    for id in ("a", "b", "c"):
        client.ask("stats", id=id)
    assert client.requests() == ["a", "b", "c"]
    client.session.respond("c", b"{}", now=client.now)
    client.session.fail("a", ConflictError("no"), now=client.now)
    client.session.respond("b", b"{}", now=client.now)
    assert [(frame["type"], frame["correl_id"]) for frame in client.take()] == [
        ("response", "c"),
        ("error", "a"),
        ("response", "b"),
    ]


def test_every_frame_has_an_id_of_its_own_and_the_time(client: Client) -> None:
    client.ask("stats", id="a")
    client.session.respond("a", b"{}", now=client.now + 0.5)
    said = client.take() + client.ask("nonsense") + client.send({"id": "p", "type": "ping"})
    assert len({frame["id"] for frame in said}) == 3
    assert said[0]["ts"] == "2026-01-02T03:05:45.500000000Z"


def test_an_error_carries_code_message_and_details(client: Client) -> None:
    client.ask("stats", id="a")
    client.session.fail("a", ConflictError("taken", details="by another"), now=client.now)
    [answer] = client.take()
    assert answer["error"] == {"code": 409, "message": "taken", "details": "by another"}


def test_bad_data_is_refused_before_it_reaches_a_handler(client: Client) -> None:
    assert error_of(client.ask("job.get", {"job_id": 7})) == (
        400,
        'job.get: job_id must be an id with prefix "job", got 7 (int)',
    )
    assert error_of(client.ask("job.get", "text"))[0] == 400
    assert (
        error_of(
            client.send(
                b'{"id":"n","type":"request","method":"job.enqueue","data":{"name":"x","payload":1e999}}'
            )
        )[0]
        == 400
    )
    assert client.events() == []
    assert client.session.in_flight == 0


def test_data_of_a_method_that_reads_none_is_not_judged(client: Client) -> None:
    assert client.send(b'{"id":"n","type":"request","method":"stats","data":1e999}') == []
    assert client.requests() == ["n"]


def test_a_payload_beyond_the_limit_is_413_and_the_connection_lives_on() -> None:
    client = Client(config=SMALL)
    client.login()
    assert error_of(client.ask("job.enqueue", {"name": "x", "payload": "y" * 300}))[0] == 413
    assert error_of(client.ask("job.enqueue", {"name": "x", "payload": [[[[[1]]]]]}))[0] == 400
    assert client.ask("stats", id="ok") == []
    assert client.requests() == ["ok"]


def test_a_message_beyond_the_limit_closes_with_1009() -> None:
    client = Client(config=SMALL)
    client.login()
    client.send(b"x" * 601)
    assert client.close_code == 1009
    client.events()
    assert client.closed == "a message may have 600 bytes, not 601"
    assert client.ask("stats") == []


def test_requests_beyond_the_limit_are_429() -> None:
    client = Client(config=SMALL)
    client.login()
    assert client.session.room == 2
    client.ask("stats", id="a")
    client.ask("stats", id="b")
    assert client.session.room == 0
    assert error_of(client.ask("stats", id="c"))[0] == 429
    client.session.respond("a", b"{}", now=client.now)
    client.take()
    assert client.ask("stats", id="c") == []


def test_requests_that_carry_much_data_overload_a_connection_until_they_are_answered() -> None:
    client = Client(config=replace(SMALL, in_flight=10))
    client.login()
    for id in ("a", "b", "c", "d"):
        assert not client.session.overloaded
        client.ask("job.enqueue", {"name": "x", "payload": "y" * 150}, id=id)
    assert client.session.overloaded
    client.session.respond("a", b"{}", now=client.now)
    assert not client.session.overloaded
    client.session.close(now=client.now)
    assert not client.session.overloaded


def test_a_batch_beyond_the_limit_is_429() -> None:
    client = Client(config=SMALL)
    client.login()
    jobs = [{"name": "x"}] * 3
    assert error_of(client.ask("job.enqueue_many", {"jobs": jobs})) == (
        429,
        "job.enqueue_many: at most 2 jobs at once, got 3",
    )
    client.ask("job.enqueue_many", {"jobs": jobs[:2]}, id="ok")
    assert client.requests() == ["ok"]


def test_a_malformed_frame_is_400_and_the_connection_lives_on(client: Client) -> None:
    [answer] = client.send(b'{"id":"x","type":5}')
    assert answer["error"]["code"] == 400
    assert answer["correl_id"] == "x"
    [answer] = client.send(b"garbage")
    assert "correl_id" not in answer
    assert client.ask("stats") == []


def test_frames_of_other_types_are_refused(client: Client) -> None:
    for kind in ("response", "event", "error", "REQUEST", "", "x" * 100):
        code, text = error_of(client.send({"id": "x", "type": kind, "method": "stats"}))
        assert code == 400
        assert text.startswith("a client sends frames of type request, ping or pong")
    assert client.events() == []


# ── pings ──


def test_a_ping_is_answered_with_its_own_time(client: Client) -> None:
    [pong] = client.send({"id": "p", "type": "ping", "ts": "2026-01-02T03:04:05.123456789Z"})
    assert (pong["type"], pong["correl_id"], pong["ts"]) == ("pong", "p", "2026-01-02T03:04:05.123456789Z")
    [pong] = client.send({"id": "p", "type": "ping"})
    assert pong["ts"].startswith("2026")


def test_a_pong_is_swallowed(client: Client) -> None:
    assert client.send({"id": "p", "type": "pong"}) == []


def test_a_silent_negotiated_peer_is_asked_and_then_dropped(client: Client) -> None:
    assert client.sleep(19.9) == []
    [ping] = client.sleep(0.2)
    assert ping["type"] == "ping"
    assert client.sleep(19.8) == []
    client.sleep(0.2)
    assert client.aborted == "nothing was heard for 40 s"
    client.events()
    assert client.closed
    assert client.session.next_deadline is None


def test_anything_that_comes_is_a_sign_of_life(client: Client) -> None:
    for _ in range(10):
        assert client.sleep(15) == []
        client.send({"id": "p", "type": "pong"})
    assert client.aborted is None


def test_a_base_peer_is_never_asked() -> None:
    client = Client()
    client.login(features=None)
    assert client.session.next_deadline is None
    assert client.sleep(10_000) == []


# ── waiting ──


def test_a_wait_expires_after_its_own_time_or_the_servers(client: Client) -> None:
    client.ask("job.wait", {"job_id": JOB, "timeout_ms": 500}, id="short")
    client.ask("job.wait", {"job_id": JOB, "timeout_ms": 500_000}, id="long")
    client.ask("job.wait", {"job_id": JOB}, id="open")
    assert client.requests() == ["short", "long", "open"]
    client.sleep(0.6)
    assert client.events() == [WaitExpired("short")]
    client.send({"id": "p", "type": "pong"})
    client.sleep(29.3)
    assert client.events() == []
    client.sleep(0.2)
    assert client.events() == [WaitExpired("long"), WaitExpired("open")]
    assert client.session.in_flight == 3


def test_a_wait_that_was_answered_does_not_expire(client: Client) -> None:
    client.ask("job.wait", {"job_id": JOB, "timeout_ms": 500}, id="w")
    client.ask("job.wait", {"job_id": JOB, "timeout_ms": 600}, id="v")
    client.session.respond("w", b"{}", now=client.now)
    client.session.respond("v", b"{}", now=client.now)
    client.events()
    client.sleep(1)
    assert client.events() == []


# ── the socket ──


def test_a_write_that_makes_no_progress_ends_the_connection() -> None:
    client = Client()
    client.login(features=None)
    client.session.write_blocked(now=client.now)
    client.sleep(29)
    client.session.write_progress(now=client.now)
    client.sleep(29)
    assert client.aborted is None
    client.sleep(2)
    assert client.aborted == "the peer took nothing for 30 s"
    client.session.write_blocked(now=client.now)
    client.session.write_progress(now=client.now)
    client.session.write_resumed(now=client.now)
    assert client.session.next_deadline is None


def test_a_write_that_goes_on_is_no_stall() -> None:
    client = Client()
    client.login(features=None)
    client.session.write_blocked(now=client.now)
    client.session.write_resumed(now=client.now)
    client.session.write_progress(now=client.now)
    assert client.session.next_deadline is None


# ── the end ──


def test_a_lost_connection_takes_its_requests_with_it(client: Client) -> None:
    client.ask("stats", id="a")
    client.events()
    client.session.transport_closed(now=client.now)
    assert client.events() == [SessionClosed("the connection was closed")]
    client.session.respond("a", b"{}", now=client.now)
    client.session.fail("a", ConflictError("late"), now=client.now)
    client.session.transport_closed(now=client.now)
    client.session.drain(deadline=200.0, retry_after=1.0, now=client.now)
    client.session.close(now=client.now)
    client.session.receive_message(b"{}", now=client.now)
    client.session.pump(now=client.now)
    client.session.log_read([], after=0, through=0, now=client.now)
    assert client.take() == []
    assert client.events() == []
    assert client.session.next_deadline is None


def test_a_close_waits_for_the_peer_but_not_for_ever(client: Client) -> None:
    client.session.close(1000, "bye", now=client.now)
    assert client.take() == []
    assert client.close_code == 1000
    assert client.ask("stats") == []
    client.sleep(5)
    assert client.aborted == "the peer did not answer the closing handshake"
    assert client.session.next_deadline is None


def test_a_close_that_the_peer_answers_is_over(client: Client) -> None:
    client.session.close(1000, "bye", now=client.now)
    client.take()
    client.events()
    client.session.transport_closed(now=client.now)
    assert client.events() == []
    assert client.session.next_deadline is None


def test_a_reason_fits_into_a_close_frame(client: Client) -> None:
    client.session.close(1000, "ü" * 100, now=client.now)
    client.session.take_messages()
    assert client.session.take_effects() == [CloseTransport(0, 1000, "ü" * 61)]


# ── draining ──


def test_draining_is_told_finishes_what_is_in_flight_and_closes(client: Client) -> None:
    client.ask("stats", id="a")
    client.ask("stats", id="b")
    client.session.drain(deadline=client.now + 10, retry_after=1.5, now=client.now)
    [told] = client.take()
    assert told["type"] == "event"
    assert "channel" not in told
    assert told["data"] == {"type": "drain", "data": {"deadline_ms": 10_000, "retry_after_ms": 1_500}}
    assert error_of(client.ask("stats", id="c"))[0] == 503
    client.session.respond("a", b"{}", now=client.now)
    assert client.close_code is None
    client.session.fail("b", ConflictError("no"), now=client.now)
    assert len(client.take()) == 2
    assert client.close_code == 1001


def test_draining_an_idle_connection_closes_it_at_once(client: Client) -> None:
    client.session.drain(deadline=client.now + 10, retry_after=1, now=client.now)
    assert len(client.take()) == 1
    assert client.close_code == 1001


def test_draining_ends_at_its_deadline(client: Client) -> None:
    client.ask("stats", id="a")
    client.session.drain(deadline=client.now + 10, retry_after=1, now=client.now)
    client.sleep(9.9)
    assert client.close_code is None
    client.sleep(0.2)
    assert client.close_code == 1001


def test_a_base_peer_is_not_told_of_draining() -> None:
    client = Client()
    client.login(features=None)
    client.ask("stats", id="a")
    client.session.drain(deadline=client.now + 10, retry_after=1, now=client.now)
    assert client.take() == []
    assert error_of(client.ask("stats", id="c"))[0] == 503


@pytest.mark.parametrize("judging", [False, True])
def test_draining_closes_a_connection_that_is_not_logged_in(judging: bool) -> None:
    client = Client()
    if judging:
        client.send({"id": "a", "type": "request", "method": "auth"})
    client.session.drain(deadline=client.now + 10, retry_after=1, now=client.now)
    client.take()
    assert client.close_code == 1001


# ── forms ──


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_every_codec_form_carries_a_conversation(name: str, form: str) -> None:
    from dwp_core.hub import Hub

    hub = Hub(form=form)
    session = ServerSession(
        config=replace(ServerConfig(), features=frozenset(FEATURES)),
        hub=hub,
        session_id="ws_1",
        now=0.0,
        epoch_ns=EPOCH_NS,
    )
    json_codec, codec = get_codec("json", form), get_codec(name, form)
    auth = b'{"token":"t","format":"%b","features":["resume"]}' % name.encode()
    session.receive_message(json_codec.encode("request", "a", method="auth", data=auth, ts=0), now=0.0)
    session.accept(Identity("me", scopes=frozenset(("*",))), now=0.0)
    ask = codec.encode("request", "s", method="subscribe", data=b'{"channel":"jobs"}', ts=0)
    session.receive_message(ask, now=0.0)
    frames = [codec.decode(message, DEFAULT_LIMITS) for message in session.take_messages()]
    assert [frame.correl_id for frame in frames] == ["a", "s"]
    [fanout] = hub.publish([event(1)], now=0.0)
    assert fanout.binary == (name == "msgpack")
    head = codec.event(codec.decode(fanout.messages[0], DEFAULT_LIMITS))
    assert head is not None
    assert (head.type, head.topic, head.seq) == ("job.completed", f"job:{JOB}", 1)


# ── what is counted ──


def test_answers_are_counted_by_method_and_code(client: Client) -> None:
    client.ask("subscribe", {"channel": "jobs"})
    client.ask("unsubscribe", {"channel": "jobs"})
    client.ask("subscribe", {"channel": "nonsense"})
    client.ask("no.such.method")
    guest = Client(hub=client.hub)
    guest.send({"id": "a", "type": "request", "method": "auth", "data": {"token": "guess"}})
    guest.session.reject(now=0.0)
    assert client.hub.answers == {
        ("auth", 200): 1,
        ("subscribe", 200): 1,
        ("unsubscribe", 200): 1,
        ("subscribe", 400): 1,
        ("", 405): 1,
        ("auth", 401): 1,
    }
