"""From `start` to `Connected`: the transport, the login, the first connection (PROTOCOL.md section 3)."""

from __future__ import annotations

from typing import Any

import pytest

from dwp_core.client_events import ClientConfig, Closed, Connected, Disconnected
from dwp_core.codec import get_codec
from dwp_core.effects import AbortTransport, Connect
from dwp_core.errors import AuthError, ConnectionError, DispatchError, LimitError
from dwp_core.frames import ErrorDetail
from dwp_core.peer import FEATURES
from tests.core.scripted_server import Script, aborted, connecting
from tests.portable.forms import FORMS


def closed(script: Script) -> DispatchError:
    """Why it gave up."""
    [event] = script.told(Closed)
    assert event.cause is not None
    return event.cause


def test_the_auth_frame_is_json_and_carries_the_token_twice() -> None:
    script = Script(ClientConfig(format="msgpack", name="me", version="7")).start()
    auth = script.open("dk_secret")
    assert (auth.type, auth.method, auth.token, auth.binary) == ("request", "auth", "dk_secret", False)
    assert auth.data == {
        "token": "dk_secret",
        "format": "msgpack",
        "client": {"name": "me", "version": "7"},
        "features": list(FEATURES),
    }


def test_who_is_let_in_is_connected() -> None:
    script = Script().connect()
    connected = script.one(Connected)
    assert (connected.peer.session_id, connected.peer.is_base, connected.resumed) == ("ws_1", True, False)
    assert script.session.peer is connected.peer


@pytest.mark.parametrize("asked", ["json", "msgpack"])
@pytest.mark.parametrize("chosen", ["json", "msgpack"])
@pytest.mark.parametrize("form", FORMS)
def test_the_format_of_the_answer_is_believed_and_not_that_of_the_request(
    asked: str, chosen: str, form: str
) -> None:
    script = Script(ClientConfig(format=asked, form=form)).connect(format=chosen)
    script.ask("stats")
    [request] = script.sent()
    assert request.binary == (chosen == "msgpack")
    script.answer(request, {"n": 1})
    assert script.values() == [("call", {"n": 1})]


def test_an_answer_in_one_codec_can_name_the_other() -> None:
    script = Script().start()
    auth = script.open()
    script.codec = get_codec("msgpack")
    script.say("response", correl_id=auth.id, data={"format": "json", "session_id": "x"})
    script.ask()
    assert not script.sent()[-1].binary


def test_a_message_may_come_in_a_bytearray() -> None:
    script = Script(ClientConfig(format="msgpack")).start()
    auth = script.open()
    raw = get_codec("msgpack").encode("response", "s1", correl_id=auth.id, data=b'{"format":"msgpack"}', ts=0)
    script.receive(bytearray(raw))
    assert script.session.state == "ready"


@pytest.mark.parametrize(("code", "kind"), [(400, DispatchError), (401, AuthError), (403, AuthError)])
def test_a_refused_login_is_fatal(code: int, kind: type[DispatchError]) -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    auth = script.open()
    script.say("error", correl_id=auth.id, error=ErrorDetail(code, "authentication failed", "why"))
    error = closed(script)
    assert (type(error), error.code, error.details) == (
        AuthError if kind is AuthError else type(error),
        code,
        "why",
    )
    assert str(error) == "the server refused the login: authentication failed (why)"
    assert aborted(script) == "login refused"


def test_a_refusal_that_answers_no_frame_counts_as_well() -> None:
    script = Script().start()
    script.open()
    script.say("error", error=ErrorDetail(400, "invalid auth frame"))
    assert str(closed(script)) == "the server refused the login: invalid auth frame"


def test_a_refusal_without_a_word_is_told_with_its_code() -> None:
    script = Script().start()
    script.open()
    script.receive(b'{"id":"s1","type":"error"}')
    assert str(closed(script)) == "the server refused the login: error 0"


@pytest.mark.parametrize(("code", "kind"), [(429, LimitError), (500, DispatchError), (503, ConnectionError)])
def test_a_server_that_cannot_let_us_in_now_may_be_tried_again(code: int, kind: type[DispatchError]) -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    script.open()
    script.say("error", error=ErrorDetail(code, "not now"))
    assert type(script.one(Disconnected).cause) is kind


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_http_answer_that_refuses_us_is_fatal(status: int) -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    script.fail("server rejected WebSocket connection", status=status)
    error = closed(script)
    assert error.code == status
    assert isinstance(error, AuthError) == (status != 400)


def test_another_http_answer_is_not() -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    script.fail("bad gateway", status=502)
    lost = script.one(Disconnected)
    assert (type(lost.cause), lost.cause.code) == (ConnectionError, 502)
    assert str(lost.cause) == "cannot connect to the server: bad gateway"


def test_what_time_cannot_mend_is_not_tried_again() -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    script.fail("its certificate is not trusted", fatal=True)
    assert "its certificate is not trusted" in str(closed(script))
    assert script.session.next_deadline is None


@pytest.mark.parametrize("token", ["\ud800", "dk\udfff"])
def test_a_token_that_cannot_be_sent_is_told_and_not_sent(token: str) -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    script.session.transport_opened(1, token=token, now=script.now)
    error = closed(script)
    assert isinstance(error, AuthError)
    assert "cannot log in to the server" in str(error)
    assert script.sent() == []
    assert aborted(script) == "unusable token"


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "does not speak DWP"),
        (b"HTTP/1.1 200 OK", "does not speak DWP"),
        (b"\xff\x00", "does not speak DWP"),
        (
            b'{"id":"s1","type":"response","correl_id":"other","data":{}}',
            'a frame of type "response" came instead',
        ),
        (b'{"id":"s1","type":"event"}', 'a frame of type "event" came instead of the answer to the login'),
        (
            b'{"id":"s1","type":"response","correl_id":"c1"}',
            "must be an object that names the session, got NoneType",
        ),
        (b'{"id":"s1","type":"response","correl_id":"c1","data":[1]}', "got list"),
        (b'{"id":"s1","type":"response","correl_id":"c1","data":{"a":1e999}}', "does not speak DWP"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_and_may_be_tried_again(message: bytes, complaint: str) -> None:
    script = Script(ClientConfig(wait_for_server=100.0)).start()
    script.open()
    script.receive(message)
    assert complaint in str(script.one(Disconnected).cause)
    assert [type(e).__name__ for e in script.transport()[1:]] == ["CloseTransport", "AbortTransport"]


@pytest.mark.parametrize(("accepted", "step"), [(False, "answer the login"), (True, "let us in")])
def test_an_attempt_has_a_bounded_time(accepted: bool, step: str) -> None:
    script = Script(ClientConfig(connect_timeout=4.0)).start()
    script.subscribe()
    script.open()
    if accepted:
        script.welcome()
    script.sleep(4.0)
    assert str(closed(script)) == f"the server did not {step} within 4 s"
    assert aborted(script) == "too slow"


def test_a_transport_that_never_opens_is_given_up() -> None:
    script = Script(ClientConfig(connect_timeout=4.0)).start()
    assert script.timer() == 104.0
    assert "within 4 s" in str(closed(script))
    assert isinstance(script.transport()[-1], AbortTransport)


@pytest.mark.parametrize("step", ["connecting", "authenticating"])
def test_a_connection_that_is_lost_before_the_login_is_done_says_so(step: str) -> None:
    script = Script().start()
    if step == "authenticating":
        script.open()
    script.cut(1006)
    assert ("before it answered the login" in str(closed(script))) == (step == "authenticating")


def test_the_first_connection_is_one_attempt() -> None:
    script = Script().start()
    script.fail()
    assert "connection refused" in str(closed(script))
    assert script.session.state == "closed"


def test_the_server_is_waited_for_when_asked_to() -> None:
    script = Script(ClientConfig(wait_for_server=5.0), jitter=0.999).start()
    attempts = 0
    while script.session.state != "closed":
        attempts += 1
        script.fail()
        if script.session.state == "backing_off":
            script.timer()
    assert attempts > 3
    assert script.now == 105.0, "the last attempt is made when the time is over"


def test_each_attempt_is_a_generation_of_its_own() -> None:
    script = Script(ClientConfig(wait_for_server=50.0)).start()
    seen: list[Connect] = []
    for _ in range(3):
        seen.append(connecting(script))
        script.fail()
        script.timer()
    assert [each.attempt for each in seen] == [1, 2, 3]
    assert len({each.generation for each in seen}) == 3


def test_what_is_asked_meanwhile_is_sent_when_it_is_connected_and_before_it_says_so() -> None:
    script = Script().start()
    script.read(tag=1)
    script.ask(tag=2)
    script.open()
    script.welcome()
    assert script.methods() == ["job.get", "stats"]
    script.one(Connected)


def test_a_server_without_credit_of_its_own_choice_keeps_the_default() -> None:
    answer: dict[str, Any] = {"features": ["resume"], "credits": -5, "limits": [], "heartbeat_ms": 10**400}
    script = Script().connect(**answer)
    peer = script.one(Connected).peer
    assert (peer.credits, peer.heartbeat) == (1000, None)
