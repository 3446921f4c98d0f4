"""What a stream of server-sent events is made of."""

from __future__ import annotations

from dwp_core.sse import EventStream, beginning, block
from tests.core.serving import event


def test_an_event_is_a_block_with_its_seq_its_type_and_one_line_of_json() -> None:
    assert EventStream().event(event(7)) == (
        b"id: 7\nevent: job.completed\n"
        b'data: {"type":"job.completed","ts":"2026-01-02T03:04:05Z",'
        b'"topic":"job:job_01h455vb4pex5vsknk084sn02q","seq":7,"data":{"n": 7}}\n\n'
    )


def test_a_line_break_in_json_does_not_end_the_field() -> None:
    spread = event(1)._replace(data=b'{\r\n"n":1}')
    assert b'"data":{  "n":1}}\n\n' in EventStream().event(spread)


def test_a_stream_begins_with_how_to_come_back() -> None:
    assert beginning(12) == b"retry: 3000\nid: 12\n\n"


def test_what_the_server_says_itself_need_not_move_the_reader() -> None:
    assert block("drain", b"{}") == b"event: drain\ndata: {}\n\n"
