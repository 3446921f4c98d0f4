"""Streams of server-sent events are read as browsers read them, however they are cut into pieces."""

from __future__ import annotations

import pytest

from dwp_core.errors import FrameError
from dwp_core.events import LoggedEvent
from dwp_core.sse import COMMENT, EventStream, beginning
from dwp_core.sse_reading import Block, BlockReader

TEXT = b"\xef\xbb\xbfretry: 3000\r\nid: 4\r\n\r\n: comment\nevent:a\rdata: 1\rdata:2\r\rnonsense\ndata\n\nid: 9\n\n"
BLOCKS = [Block("", b"", "4"), Block("a", b"1\n2", ""), Block("", b"", ""), Block("", b"", "9")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(TEXT)])
def test_a_stream_means_the_same_in_whatever_pieces_it_comes(size: int) -> None:
    reader = BlockReader(1000)
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    assert [block for piece in pieces for block in reader.feed(piece)] == BLOCKS


def test_what_our_server_writes_is_read() -> None:
    event = LoggedEvent(7, "job.started", 0, "job:job_1", "", "", "", b"{}")
    blocks = BlockReader(1000).feed(beginning(6) + COMMENT + EventStream().event(event))
    assert [(block.type, block.id) for block in blocks] == [("", "6"), ("job.started", "7")]


@pytest.mark.parametrize("line", [b"data: " + b"x" * 200, b"data: xxxxxxxx\n" * 20])
@pytest.mark.parametrize("size", [10, 1000])
def test_a_block_that_is_too_large_is_refused(line: bytes, size: int) -> None:
    reader = BlockReader(100)
    pieces = [line[at : at + size] for at in range(0, len(line), size)]
    with pytest.raises(FrameError, match="larger than 100 bytes") as caught:
        list(map(reader.feed, pieces))
    assert caught.value.code == 413


def test_many_blocks_that_are_small_are_no_large_one() -> None:
    reader = BlockReader(100)
    for _ in range(100):
        assert len(reader.feed(b"data: 12345678\n\ndata: 1")) == 1
        assert len(reader.feed(b"2345678\n\n")) == 1


def test_a_block_without_an_end_is_refused_even_if_its_lines_say_nothing() -> None:
    """Else it would grow for ever."""
    reader = BlockReader(100)
    with pytest.raises(FrameError, match="larger than 100 bytes"):
        list(map(reader.feed, [b"data\n"] * 100))


def test_a_line_break_is_one_as_soon_as_it_can_be() -> None:
    """The event is there with the CR; the LF that may follow it belongs to it."""
    reader = BlockReader(100)
    assert reader.feed(b"id: 1\r\n\r") == [Block("", b"", "1")]
    assert reader.feed(b"\n") == []
    assert reader.feed(b"id: 2\r\r") == [Block("", b"", "2")]
