"""Times keep their nanoseconds, and what cannot be read is absent."""

from __future__ import annotations

import msgpack
import pytest

from dwp_core.codec.timestamps import (
    LAST_TIME,
    SECOND,
    ZERO_TIME,
    Stamper,
    format_rfc3339,
    json_time,
    pack_timestamp,
    parse_rfc3339,
    parse_timestamp,
    split,
)

MOMENT = 1_767_323_045 * SECOND


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-01-02T03:04:05Z", MOMENT),
        ("2026-01-02T03:04:05.1Z", MOMENT + 100_000_000),
        ("2026-01-02T03:04:05.123456789Z", MOMENT + 123_456_789),
        ("2026-01-02T03:04:05.123456789999Z", MOMENT + 123_456_789),
        ("2026-01-02T03:04:05.000000001Z", MOMENT + 1),
        ("2026-01-02T03:04:05+05:30", MOMENT - 19_800 * SECOND),
        ("2026-01-02T03:04:05.5-23:59", MOMENT + SECOND // 2 + 86_340 * SECOND),
        ("2026-01-02T03:04:05-00:00", MOMENT),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("0001-01-01T00:00:00Z", ZERO_TIME),
        ("0001-01-01T00:00:00+05:00", ZERO_TIME - 18_000 * SECOND),
        ("9999-12-31T23:59:59.999999999Z", LAST_TIME),
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND),
    ],
)
def test_rfc_3339_is_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert parse_rfc3339(text) == ns
    assert json_time(f'"{text}"'.encode()) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02t03:04:05Z",
        "2026-01-02T03:04:05z",
        "2026-01-02 03:04:05Z",
        "2026-01-02T3:04:05Z",
        "2026-01-02T03:04:05,5Z",
        "2026-01-02T03:04:05.Z",
        "2026-02-30T03:04:05Z",
        "2025-02-29T03:04:05Z",
        "2026-13-02T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:05Z",
        "2016-12-31T23:59:60Z",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+05:60",
        "2026-01-02T03:04:05+0530",
        "0000-01-01T00:00:00Z",
        "10000-01-02T03:04:05Z",
        "1795308703957894026",
        "2026-01-02T03:04:05Z ",
        "٢٠٢٦-01-02T03:04:05Z",
    ],
)
def test_what_is_not_rfc_3339_is_none(text: str) -> None:
    assert parse_rfc3339(text) is None


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (MOMENT, "2026-01-02T03:04:05Z"),
        (MOMENT + 1, "2026-01-02T03:04:05.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (0, "1970-01-01T00:00:00Z"),
        (ZERO_TIME, "0001-01-01T00:00:00Z"),
        (ZERO_TIME - 1, "0001-01-01T00:00:00Z"),
        (LAST_TIME, "9999-12-31T23:59:59.999999999Z"),
        (LAST_TIME + 1, "9999-12-31T23:59:59.999999999Z"),
    ],
)
def test_what_is_written_is_rfc_3339(ns: int, text: str) -> None:
    assert format_rfc3339(ns) == text


def test_a_stamp_is_right_whatever_was_stamped_before() -> None:
    stamper = Stamper()
    moments = [
        MOMENT,
        MOMENT + 1,
        MOMENT + SECOND - 1,
        MOMENT + SECOND,
        MOMENT - 1,
        5,
        0,
        -1,
        -SECOND,
        ZERO_TIME,
        LAST_TIME,
    ]
    for ns in [*moments, *reversed(moments)]:
        assert parse_rfc3339(stamper.text(ns)) == ns
    assert stamper.text(MOMENT) == "2026-01-02T03:04:05.000000000Z"
    assert stamper.text(LAST_TIME + 5) == "9999-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize(
    ("ns", "packed"),
    [
        (1_767_322_213 * SECOND, "d6ff69573265"),
        (0, "d6ff00000000"),
        ((2**32 - 1) * SECOND, "d6ffffffffff"),
        (2**32 * SECOND, "d7ff0000000100000000"),
        (MOMENT + 123_456_789, "d7ff1d6f3454695735a5"),
        ((2**34 - 1) * SECOND, "d7ff00000003ffffffff"),
        (2**34 * SECOND, "c70cff000000000000000400000000"),
        (-1, "c70cff3b9ac9ffffffffffffffffff"),
        (ZERO_TIME, "c70cff00000000fffffff1886e0900"),
    ],
)
def test_the_extension_is_the_shortest_that_holds_the_time(ns: int, packed: str) -> None:
    assert pack_timestamp(ns).hex() == packed
    assert pack_timestamp(ns) == msgpack.packb(msgpack.Timestamp(*divmod(ns, SECOND)))
    assert parse_timestamp(bytes.fromhex(packed)) == ns


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("c704ff69573265", 1_767_322_213 * SECOND),
        ("c80004ff69573265", 1_767_322_213 * SECOND),
        ("c900000004ff69573265", 1_767_322_213 * SECOND),
        ("c708ff1d6f3454695735a5", MOMENT + 123_456_789),
        ("d6ffffffffff", (2**32 - 1) * SECOND),
    ],
)
def test_any_header_of_the_right_length_is_read(value: str, ns: int) -> None:
    assert parse_timestamp(bytes.fromhex(value)) == ns


@pytest.mark.parametrize(
    "value",
    ["", "c0", "05", "a178", "ce69573265", "d60569573265", "d6ff6957", "c703ff695732", "c705ff6957326500",
     "d8ff" + "00" * 16, "d4ff00", "c7", "c80004", "d7ffffffffff695735a5", "c70cffffffffff00000000695735a5"],
)  # fmt: skip
def test_what_is_no_timestamp_extension_is_none(value: str) -> None:
    assert parse_timestamp(bytes.fromhex(value)) is None


@pytest.mark.parametrize("raw", [b"", b"5", b"null", b'"x"', b'"\xff"', b'"\\u0032"'])
def test_what_is_no_json_time_is_none(raw: bytes) -> None:
    assert json_time(raw) is None


def test_a_time_is_split_into_seconds_and_nanoseconds() -> None:
    assert split(-1) == (-1, 999_999_999)
    assert split(LAST_TIME + 1) == (253_402_300_799, 999_999_999)
