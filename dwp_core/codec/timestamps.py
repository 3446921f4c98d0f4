"""Times on the wire: RFC 3339 text and the MessagePack timestamp extension, to and from integer nanoseconds since 1970.

Nothing here reads a clock. A time that cannot be read is None, never an error, because no frame is rejected for its
`ts`; what is written is always right (PROTOCOL.md section 2).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dwp_core.codec import json_syntax

SECOND = 1_000_000_000

ZERO_TIME = -62_135_596_800 * SECOND
"""Go's zero time, 0001-01-01T00:00:00Z, in nanoseconds since 1970."""

LAST_TIME = 253_402_300_800 * SECOND - 1
"""The last nanosecond of the year 9999, beyond which RFC 3339 has no text."""

_RFC3339 = re.compile(
    # The hour is looked at here: from Python 3.14 on, fromisoformat() takes 24 for the midnight that follows.
    r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
_EXT_LENGTHS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_EXT_HEADERS = {0xC7: 1, 0xC8: 2, 0xC9: 4}


def format_rfc3339(ns: int) -> str:
    """The RFC 3339 text of a time, in UTC, with nine fraction digits unless the fraction is zero.

    Args:
        ns: nanoseconds since 1970; held to the years 1 to 9999.

    Example:
        >>> format_rfc3339(1_767_323_045_123_456_789)
        '2026-01-02T03:04:05.123456789Z'
        >>> format_rfc3339(ZERO_TIME)
        '0001-01-01T00:00:00Z'

    PROTOCOL.md section 2; RFC 3339 section 5.6.
    """
    seconds, fraction = divmod(_held(ns), SECOND)
    text = _second_text(seconds)
    return f"{text}.{fraction:09d}Z" if fraction else f"{text}Z"


def parse_rfc3339(text: str) -> int | None:
    """Nanoseconds since 1970, or None when the text is no RFC 3339 time.

    Any offset is taken; fraction digits beyond the ninth are cut off. Strict where RFC 3339 is (upper-case T and Z, a
    zone, no leap second), because that is what the existing server reads.

    Example:
        >>> parse_rfc3339("2026-01-02T03:04:05.5+01:00")
        1767319445500000000
        >>> parse_rfc3339("yesterday") is None
        True

    PROTOCOL.md section 2; RFC 3339 section 5.6.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    second, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(second + "Z")
    except ValueError:  # the digits name no day, hour, minute or second that exists
        return None
    since = moment - _EPOCH
    seconds = since.days * _DAY + since.seconds
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * SECOND + (int(fraction[:9].ljust(9, "0")) if fraction else 0)


def json_time(raw: bytes) -> int | None:
    """Nanoseconds since 1970 of one JSON value, or None when it is no string with an RFC 3339 time.

    Args:
        raw: the JSON text of the `ts` of a frame, b"" where it is absent.

    Example:
        >>> json_time(b'"2026-01-02T03:04:05Z"')
        1767323045000000000

    PROTOCOL.md section 2.
    """
    if raw[:1] != b'"':
        return None
    text = str(raw, "utf-8", "surrogateescape")
    return parse_rfc3339(json_syntax.scan(text, 0)[0] if "\\" in text else text[1:-1])


def pack_timestamp(ns: int) -> bytes:
    """The whole MessagePack extension value (type -1) of a time, in the shortest of its three forms.

    Args:
        ns: nanoseconds since 1970; held to the years 1 to 9999.

    Example:
        >>> pack_timestamp(1_767_322_213_000_000_000).hex()
        'd6ff69573265'

    PROTOCOL.md section 2; the MessagePack specification, "Timestamp extension type".
    """
    seconds, fraction = divmod(_held(ns), SECOND)
    if not 0 <= seconds < 1 << 34:
        return b"\xc7\x0c\xff" + fraction.to_bytes(4, "big") + seconds.to_bytes(8, "big", signed=True)
    if fraction == 0 and seconds < 1 << 32:
        return b"\xd6\xff" + seconds.to_bytes(4, "big")
    return b"\xd7\xff" + (fraction << 34 | seconds).to_bytes(8, "big")


def parse_timestamp(value: bytes) -> int | None:
    """Nanoseconds since 1970 of one MessagePack value, or None when it is no timestamp extension.

    Every header that can carry 4, 8 or 12 bytes is taken, not only the shortest one.

    Args:
        value: the bytes of exactly one MessagePack value, its header included.

    Example:
        >>> parse_timestamp(bytes.fromhex("c704ff69573265"))
        1767322213000000000
        >>> parse_timestamp(b"\\xc0") is None
        True

    PROTOCOL.md section 2; the MessagePack specification, "Timestamp extension type".
    """
    code = value[0] if value else 0
    if code in _EXT_LENGTHS:
        kind, payload = value[1:2], value[2:]
        expected = _EXT_LENGTHS[code]
    elif code in _EXT_HEADERS:
        start = 1 + _EXT_HEADERS[code]
        expected = int.from_bytes(value[1:start], "big")
        kind, payload = value[start : start + 1], value[start + 1 :]
    else:
        return None
    if kind != b"\xff" or len(payload) != expected:
        return None
    return _timestamp_payload(payload)


class Stamper:
    """Writes times, and remembers the second of the last one, so that stamping a frame costs little.

    Safe to share between threads: the remembered second is replaced as a whole, never changed.

    Attributes:
        known: a second in nanoseconds since 1970, and its text up to and with the decimal point.

    Example:
        >>> Stamper().text(1_767_323_045_000_000_001)
        '2026-01-02T03:04:05.000000001Z'

    PROTOCOL.md section 2.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known = (0, "1970-01-01T00:00:00.")

    def text(self, ns: int) -> str:
        """The RFC 3339 text of a time in nanoseconds since 1970, always with nine fraction digits."""
        second, text = self.known
        fraction = ns - second
        if not 0 <= fraction < SECOND:
            held = _held(ns)
            fraction = held % SECOND
            text = _second_text(held // SECOND) + "."
            self.known = (held - fraction, text)
        return f"{text}{fraction:09d}Z"


def split(ns: int) -> tuple[int, int]:
    """Whole seconds since 1970 and the nanoseconds beyond them, held to the years 1 to 9999."""
    return divmod(_held(ns), SECOND)


def _timestamp_payload(payload: bytes) -> int | None:
    if len(payload) == 4:
        return int.from_bytes(payload, "big") * SECOND
    if len(payload) == 8:
        both = int.from_bytes(payload, "big")
        seconds, fraction = both & (1 << 34) - 1, both >> 34
    elif len(payload) == 12:
        seconds, fraction = (
            int.from_bytes(payload[4:], "big", signed=True),
            int.from_bytes(payload[:4], "big"),
        )
    else:
        return None
    return seconds * SECOND + fraction if fraction < SECOND else None


def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(days=seconds // _DAY, seconds=seconds % _DAY)).isoformat()[:19]


def _held(ns: int) -> int:
    return min(max(ns, ZERO_TIME), LAST_TIME)
