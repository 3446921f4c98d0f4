"""RpcSession: one frame in, one frame out, judged as over a WebSocket (PROTOCOL.md section 8)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dwp_core.codec import get_codec
from dwp_core.errors import ConflictError, DispatchError
from dwp_core.frames import DEFAULT_LIMITS, Limits
from dwp_core.http_rpc import FEATURES, RpcLoad, RpcSession
from dwp_core.hub import Hub
from dwp_core.server_events import (
    Identity,
    LoginReceived,
    RequestReceived,
    ServerConfig,
    SessionClosed,
    WaitExpired,
)
from tests.core.serving import EPOCH_NS, JOB

ME = Identity("me", scopes=frozenset("*"))


class Exchange:
    """One HTTP request, seen from its client."""

    def __init__(
        self, config: ServerConfig | None = None, load: RpcLoad | None = None, **headers: str
    ) -> None:
        self.hub = Hub(epoch_ns=EPOCH_NS)
        self.session = RpcSession(
            config=config or ServerConfig(),
            hub=self.hub,
            session_id="rpc_1",
            now=0.0,
            epoch_ns=EPOCH_NS,
            load=load or RpcLoad(),
            **headers,
        )

    def send(self, body: bytes | dict[str, Any], *, now: float = 0.0) -> None:
        self.session.receive_part(body if isinstance(body, bytes) else json.dumps(body).encode(), now=now)
        self.session.receive_end(now=now)

    def token(self) -> str:
        """The token that the session asks its driver about."""
        [login] = self.session.take_events()
        assert isinstance(login, LoginReceived)
        return login.token

    def ask(self, method: str, data: Any = None, *, identity: Identity = ME, **more: Any) -> None:
        """A request from somebody with a good key."""
        frame = {"id": "1", "type": "request", "method": method, "token": "dk", **more}
        self.send(frame if data is None else {**frame, "data": data})
        assert self.token() == "dk"
        self.session.accept(identity, now=0.0)

    def request(self) -> RequestReceived:
        """The request that the driver is to carry out."""
        [request] = self.session.take_events()
        assert isinstance(request, RequestReceived)
        return request

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and frame; there is exactly one, and nothing happens any more."""
        [message] = self.session.take_messages()
        assert self.session.take_effects() == []
        assert self.session.next_deadline is None
        frame: dict[str, Any] = json.loads(message)
        return self.session.status, frame

    def refusal(self) -> tuple[int, str]:
        """Status and message of an error frame."""
        status, frame = self.answer()
        assert frame["type"] == "error"
        assert frame["error"]["code"] == status
        return status, frame["error"]["message"]


# ── the answer ──


def test_a_request_reaches_a_handler_and_its_answer_is_the_body() -> None:
    exchange = Exchange()
    exchange.ask("job.get", {"job_id": JOB})
    request = exchange.request()
    assert (request.method, request.params) == ("job.get", {"job_id": JOB})
    assert exchange.session.status == 0
    exchange.session.respond(request.id, b'{"id":"j"}', now=0.0)
    status, frame = exchange.answer()
    assert (status, frame["type"], frame["correl_id"], frame["data"]) == (200, "response", "1", {"id": "j"})
    assert exchange.session.take_events() == [SessionClosed("it was answered")]


def test_an_error_frame_gives_its_code_to_the_http_status() -> None:
    exchange = Exchange()
    exchange.ask("job.cancel", {"job_id": JOB})
    exchange.session.fail(exchange.request().id, ConflictError("it is completed"), now=0.0)
    assert exchange.refusal() == (409, "it is completed")


def test_a_code_that_is_no_http_error_becomes_500() -> None:
    exchange = Exchange()
    exchange.ask("job.cancel", {"job_id": JOB})
    exchange.session.fail(exchange.request().id, DispatchError("odd", code=7), now=0.0)
    assert exchange.answer()[0] == 500


def test_a_ping_is_answered_with_its_time() -> None:
    exchange = Exchange()
    exchange.send({"id": "p", "type": "ping", "ts": "2026-01-02T03:04:05Z"})
    exchange.token()
    exchange.session.accept(ME, now=3.0)
    status, frame = exchange.answer()
    assert (status, frame["type"], frame["correl_id"]) == (200, "pong", "p")
    assert frame["ts"].startswith("2026-01-02T03:04:05")


def test_the_features_are_those_that_a_request_by_itself_can_use() -> None:
    exchange = Exchange(ServerConfig(features=frozenset(("wait", "resume"))))
    exchange.ask("stats")
    assert exchange.session.features == {"wait"}
    assert {"idempotency", "options", "batch", "wait"} == FEATURES


# ── the codec ──


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/json; charset=utf-8", " Application/JSON "]
)
def test_json_by_its_content_type_or_none(content_type: str) -> None:
    exchange = Exchange(content_type=content_type)
    exchange.ask("stats")
    exchange.session.respond(exchange.request().id, b"{}", now=0.0)
    assert exchange.session.content_type == "application/json"
    assert exchange.answer()[0] == 200


@pytest.mark.parametrize(
    "content_type", ["application/msgpack", "application/x-msgpack; v=5", "application/vnd.msgpack"]
)
def test_messagepack_is_answered_in_messagepack(content_type: str) -> None:
    codec = get_codec("msgpack")
    exchange = Exchange(content_type=content_type)
    exchange.send(codec.encode("request", "1", method="stats", token="dk", ts=0))
    assert exchange.token() == "dk"
    exchange.session.accept(ME, now=0.0)
    exchange.session.respond(exchange.request().id, b'{"n":1}', now=0.0)
    [message] = exchange.session.take_messages()
    frame = codec.decode(message, DEFAULT_LIMITS)
    assert exchange.session.content_type == "application/msgpack"
    assert (frame.correl_id, codec.value(frame, DEFAULT_LIMITS)) == ("1", {"n": 1})


def test_another_content_type_is_refused_with_the_right_ones() -> None:
    exchange = Exchange(content_type="text/plain")
    exchange.send({"id": "1", "type": "request", "method": "stats"})
    assert exchange.refusal() == (
        400,
        'content-type must be application/json or application/msgpack, got "text/plain"',
    )


@pytest.mark.parametrize("body", [b"", b"hello", b'{"id":1}'])
def test_what_is_no_frame_is_400(body: bytes) -> None:
    exchange = Exchange()
    exchange.send(body)
    assert exchange.refusal()[0] == 400


def test_a_400_echoes_the_id_where_it_can() -> None:
    exchange = Exchange()
    exchange.send(b'{"id":"x","type":7}')
    status, frame = exchange.answer()
    assert (status, frame["correl_id"]) == (400, "x")


# ── who asks ──


@pytest.mark.parametrize(
    ("frame_token", "authorization", "data", "token"),
    [
        ("dk_frame", "Bearer dk_header", {"token": "dk_data"}, "dk_frame"),
        ("", "Bearer dk_header", {"token": "dk_data"}, "dk_header"),
        ("", "bearer  dk_header ", None, "dk_header"),
        ("", "dk_header", None, "dk_header"),
        ("", "", {"token": "dk_data"}, "dk_data"),
        ("", "", {"token": 7}, ""),
        ("", "", [], ""),
        ("", "", None, ""),
    ],
)
def test_the_token_is_in_the_frame_else_in_the_header_else_in_the_data(
    frame_token: str, authorization: str, data: Any, token: str
) -> None:
    exchange = Exchange(authorization=authorization)
    frame = {"id": "1", "type": "request", "method": "stats", "token": frame_token}
    exchange.send(frame if data is None else {**frame, "data": data})
    assert exchange.token() == token


def test_data_that_nobody_can_read_hold_no_token() -> None:
    exchange = Exchange()
    exchange.send(b'{"id":"1","type":"request","method":"job.get","data":{"job_id":1e999}}')
    assert exchange.token() == ""


def test_a_token_is_not_shown() -> None:
    assert "dk_secret" not in repr(LoginReceived("dk_secret"))


def test_an_unknown_key_is_401() -> None:
    exchange = Exchange()
    exchange.send({"id": "1", "type": "request", "method": "stats"})
    exchange.token()
    exchange.session.reject(now=0.0)
    status, frame = exchange.answer()
    assert (status, frame["correl_id"], frame["error"]["message"]) == (401, "1", "authentication failed")


def test_a_missing_scope_is_403() -> None:
    exchange = Exchange()
    exchange.ask("job.get", {"job_id": JOB}, identity=Identity("reader", scopes=frozenset(("stats:read",))))
    assert exchange.refusal()[0] == 403


# ── what may be asked ──


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe"])
def test_subscriptions_are_400(method: str) -> None:
    exchange = Exchange()
    exchange.ask(method, {"channel": "jobs"})
    status, message = exchange.refusal()
    assert status == 400
    assert message.startswith(f"{method}: events come over a WebSocket")


def test_a_channel_is_not_looked_at() -> None:
    exchange = Exchange()
    exchange.ask("subscribe", {"channel": "nope"})
    assert "events come over" in exchange.refusal()[1]


@pytest.mark.parametrize("method", ["auth", "nonsense", ""])
def test_unknown_methods_are_405(method: str) -> None:
    exchange = Exchange()
    exchange.ask(method)
    assert exchange.refusal() == (405, f"unknown method: {method}")


@pytest.mark.parametrize("kind", ["pong", "response", "event", "nonsense"])
def test_frames_of_other_types_are_400(kind: str) -> None:
    exchange = Exchange()
    exchange.send({"id": "1", "type": kind})
    exchange.token()
    exchange.session.accept(ME, now=0.0)
    assert exchange.refusal() == (400, f'a frame of type request or ping is answered here, not "{kind}"')


def test_credits_are_passed_over() -> None:
    exchange = Exchange()
    exchange.ask("stats", credits=5)
    assert exchange.request().method == "stats"


def test_too_many_jobs_at_once_are_429() -> None:
    exchange = Exchange(ServerConfig(batch=1))
    exchange.ask("job.enqueue_many", {"jobs": [{"name": "a"}, {"name": "b"}]})
    assert exchange.refusal()[0] == 429


def test_a_key_has_so_many_unanswered_requests_and_no_more() -> None:
    load, config = RpcLoad(), ServerConfig(in_flight=2)
    exchanges = [Exchange(config, load) for _ in range(4)]
    for exchange in exchanges[:3]:
        exchange.ask("stats")
    exchanges[0].session.respond(exchanges[0].request().id, b"{}", now=0.0)
    assert exchanges[0].answer()[0] == 200
    assert exchanges[2].refusal() == (429, "stats: 2 requests of this key are not answered yet; wait for one")
    exchanges[3].ask("stats")
    assert exchanges[3].request().method == "stats"
    other = Exchange(config, load)
    other.ask("stats", identity=replace(ME, subject="you"))
    assert other.request().method == "stats"


def test_a_client_that_leaves_is_counted_no_more() -> None:
    load = RpcLoad()
    exchange = Exchange(load=load)
    exchange.ask("stats")
    assert load.of(ME) == 1
    exchange.session.transport_closed(now=0.0)
    assert load.of(ME) == 0
    exchange.session.respond("1", b"{}", now=0.0)
    assert exchange.session.take_messages() == []


# ── size and time ──


def test_a_body_may_come_in_parts() -> None:
    exchange = Exchange()
    for byte in b'{"id":"1","type":"request","method":"stats","token":"dk"}':
        exchange.session.receive_part(bytes([byte]), now=0.0)
    exchange.session.receive_end(now=0.0)
    assert exchange.token() == "dk"


def test_a_body_that_is_too_large_is_413_at_once_and_the_rest_is_passed_over() -> None:
    exchange = Exchange(ServerConfig(limits=Limits(message=10, payload=10, depth=5)))
    exchange.session.receive_part(b"12345678901", now=0.0)
    assert exchange.refusal() == (413, "a frame may have 10 bytes, and this one has more")
    exchange.session.receive_part(b"2", now=0.0)
    exchange.session.receive_end(now=0.0)
    exchange.session.announce(5000, now=0.0)
    assert exchange.session.take_messages() == []


def test_a_body_that_will_be_too_large_need_not_come() -> None:
    exchange = Exchange(ServerConfig(limits=Limits(message=10, payload=10, depth=5)))
    exchange.session.announce(10, now=0.0)
    assert exchange.session.status == 0
    exchange.session.announce(11, now=0.0)
    assert exchange.refusal() == (413, "a frame may have 10 bytes, not 11")


def test_a_payload_that_is_too_large_is_413() -> None:
    exchange = Exchange(ServerConfig(limits=Limits(message=1000, payload=10, depth=5)))
    exchange.ask("job.enqueue", {"name": "a", "payload": "x" * 20})
    assert exchange.refusal()[0] == 413


def test_a_request_that_does_not_arrive_is_left_and_one_that_goes_on_arriving_has_time() -> None:
    exchange = Exchange(ServerConfig(auth_timeout=10.0))
    exchange.session.receive_part(b" " * 32 * 1024 * 5, now=9.0)
    assert exchange.session.next_deadline == 15.0
    exchange.session.handle_timer(now=15.0)
    assert exchange.refusal() == (400, "the request did not arrive in time")


def test_a_key_that_is_not_judged_in_time_is_401() -> None:
    exchange = Exchange(ServerConfig(auth_timeout=10.0))
    exchange.send({"id": "1", "type": "request", "method": "stats"}, now=5.0)
    exchange.token()
    exchange.session.handle_timer(now=15.0)
    assert exchange.refusal() == (401, "authentication timed out")
    exchange.session.accept(ME, now=16.0)
    assert exchange.session.take_messages() == []


def test_a_wait_is_told_when_it_has_waited_long_enough() -> None:
    exchange = Exchange(ServerConfig(wait=2.0))
    exchange.ask("job.wait", {"job_id": JOB, "timeout_ms": 60_000})
    request = exchange.request()
    assert exchange.session.next_deadline == 2.0
    exchange.session.handle_timer(now=2.0)
    assert exchange.session.take_events() == [WaitExpired(request.id)]


# ── a server that stops ──


def test_the_driver_may_refuse_first_and_only_first() -> None:
    exchange = Exchange()
    exchange.session.refuse(DispatchError("no", code=403), now=0.0)
    exchange.session.refuse(DispatchError("no again", code=400), now=0.0)
    exchange.send({"id": "1", "type": "request", "method": "stats"})
    assert exchange.refusal() == (403, "no")


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_not_taken_up_when_the_server_drains_is_503(whole: bool) -> None:
    exchange = Exchange()
    if whole:
        exchange.send({"id": "1", "type": "request", "method": "stats"})
        exchange.token()
    exchange.session.drain(deadline=10.0, retry_after=1.0, now=0.0)
    assert exchange.refusal()[0] == 503


def test_what_is_taken_up_is_still_answered() -> None:
    exchange = Exchange()
    exchange.ask("stats")
    request = exchange.request()
    exchange.session.drain(deadline=10.0, retry_after=1.0, now=0.0)
    exchange.session.respond(request.id, b"{}", now=1.0)
    assert exchange.answer()[0] == 200


def test_a_request_whose_outcome_nobody_knows_is_not_said_to_be_undone() -> None:
    exchange = Exchange()
    exchange.ask("stats")
    exchange.request()
    exchange.session.drain(deadline=10.0, retry_after=1.0, now=0.0)
    exchange.session.handle_timer(now=10.0)
    assert exchange.refusal() == (500, "the server stopped before it knew the outcome")
