"""What is sent over HTTP, and what answers mean (PROTOCOL.md section 8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dwp_core.codec import get_codec
from dwp_core.errors import AuthError, ConnectionError, FrameError, InvalidRequest, LimitError
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.http_exchange import BeginExchange, Credentials, no_frame, read_answer, read_head
from tests.portable.forms import FORMS

RECORDED = Path(__file__).parents[1] / "vectors" / "http" / "rpc.jsonl"


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize("form", FORMS)
def test_the_token_goes_into_the_frame_and_changes_nothing_else(format: str, form: str) -> None:
    codec = get_codec(format, form)
    plain = codec.encode("request", "c1", method="stats", data=b'{"a":1}', ts=5_000_000_007)
    request = BeginExchange("c1", codec, plain).sealed("dk_1")
    assert request.headers == {"content-type": f"application/{format}", "accept": f"application/{format}"}
    assert request.query == []
    expected = codec.encode("request", "c1", method="stats", token="dk_1", data=b'{"a":1}', ts=5_000_000_007)
    assert request.body == expected


def test_without_a_token_the_frame_is_sent_as_it_is() -> None:
    message = get_codec("json").encode("ping", "c1", ts=0)
    assert BeginExchange("c1", get_codec("json"), message).sealed("").body == message


def test_a_token_that_is_no_text_is_refused_without_being_shown() -> None:
    message = get_codec("json").encode("ping", "c1", ts=0)
    with pytest.raises(InvalidRequest, match="the token cannot be sent") as caught:
        BeginExchange("c1", get_codec("json"), message).sealed("secret\udc80")
    assert "secret" not in str(caught.value)


def stream(credentials: Credentials) -> BeginExchange:
    return BeginExchange(
        "c1",
        get_codec("json"),
        query=(("channel", "jobs"),),
        headers=(("last-event-id", "7"),),
        credentials=credentials,
    )


def test_a_stream_has_its_token_in_the_header() -> None:
    begin = stream(Credentials.HEADER)
    assert begin.is_stream
    request = begin.sealed("dk_1")
    assert request.headers["authorization"] == "Bearer dk_1"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["last-event-id"] == "7"
    assert (request.query, request.body) == ([("channel", "jobs")], b"")


@pytest.mark.parametrize(
    ("credentials", "token"),
    [(Credentials.QUERY, "dk_1"), (Credentials.HEADER, "dk\u00e9"), (Credentials.HEADER, "a\r\nb")],
)
def test_a_token_that_no_header_can_hold_goes_into_the_query_as_where_it_must(
    credentials: Credentials, token: str
) -> None:
    request = stream(credentials).sealed(token)
    assert "authorization" not in request.headers
    assert request.query == [("channel", "jobs"), ("token", token)]


def test_a_stream_without_a_token_names_none() -> None:
    request = stream(Credentials.HEADER).sealed("")
    assert request.query == [("channel", "jobs")]
    assert "authorization" not in request.headers


def test_a_head_tells_what_the_server_honours() -> None:
    head = read_head(
        200, [("DWP-Features", "wait, batch,later"), ("DWP-Log", "l"), ("Content-Type", "A/B ; c=d")]
    )
    assert (head.features, head.log, head.content_type) == (frozenset(("wait", "batch")), "l", "a/b")
    assert read_head(200, []).features is None
    assert read_head(200, [("dwp-features", "")]).features == frozenset()


def exchanges() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


@pytest.mark.parametrize("exchange", exchanges(), ids=lambda exchange: exchange["title"])
def test_every_recorded_answer_is_read_or_said_to_be_none(exchange: dict[str, Any]) -> None:
    response = exchange["response"]
    head = read_head(response["status"], [tuple(pair) for pair in response["headers"]])
    body = response["body"]["text"].encode()
    if not body:
        with pytest.raises(FrameError, match="empty"):
            read_answer(head, body, None, DEFAULT_LIMITS)
        return
    frame, codec = read_answer(head, body, None, DEFAULT_LIMITS)
    known = json.loads(body)
    assert frame.type == known["type"]
    assert codec.value(frame, DEFAULT_LIMITS) == known.get("data")
    assert (frame.error.code if frame.error else 200) == response["status"]


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "message"),
    [
        (301, [("location", "https://other/")], b"", ConnectionError, "sends us elsewhere to https://other/"),
        (302, [], b"", ConnectionError, "sends us elsewhere: use that"),
        (404, [], b"<h1>nothing here</h1>", ConnectionError, "HTTP 404: <h1>nothing here"),
        (405, [], b"", ConnectionError, "HTTP 405"),
        (502, [], b"bad gateway", ConnectionError, "HTTP 502: bad gateway"),
        (403, [], b"go away", AuthError, "HTTP 403: go away"),
        (413, [], b"", LimitError, "HTTP 413"),
        (200, [], b"<html>", ConnectionError, "does not speak DWP: because"),
    ],
)
def test_what_is_no_frame_says_who_may_have_said_it(
    status: int, headers: list[tuple[str, str]], body: bytes, kind: type, message: str
) -> None:
    error = no_frame(read_head(status, headers), body, "because", "http://here/rpc")
    assert type(error) is kind
    assert message in str(error)
    assert str(error).startswith("http://here/rpc: ")
    assert error.code == (status if status >= 400 else 503)
