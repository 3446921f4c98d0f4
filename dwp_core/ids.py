"""TypeIDs: a prefix, `_`, and 26 characters of Crockford base32 that hold a UUIDv7 (PROTOCOL.md section 4).

Time and randomness come from outside, so that a simulated run makes the same ids every time. Ids made in one
millisecond by one source still sort in the order of their making.
"""

from __future__ import annotations

from collections.abc import Callable

from dwp_core.errors import InvalidRequest

JOB = "job"
RUN = "wfrun"
EVENT = "evt"
CHECKPOINT = "ckpt"
CRON = "cron"
DEAD_LETTER = "dlq"
WORKER = "wkr"

PREFIXES = frozenset((JOB, RUN, EVENT, CHECKPOINT, CRON, DEAD_LETTER, WORKER))

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_SUFFIX_LENGTH = 26
_RANDOM_BYTES = 10
_COUNTER_MASK = (1 << 74) - 1


class IdSource:
    """Makes TypeIDs from a wall clock and random bytes that the driver provides.

    Args:
        random_bytes: gives that many random bytes, e.g. `os.urandom`.
        now_ns: gives the wall time in nanoseconds since 1970, e.g. `time.time_ns`.

    Example:
        >>> ids = IdSource(random_bytes=lambda n: bytes(n), now_ns=lambda: 1_700_000_000_000_000_000)
        >>> ids.new("job")
        'job_01hf7yat00e008000000000000'
    """

    def __init__(self, *, random_bytes: Callable[[int], bytes], now_ns: Callable[[], int]) -> None:
        self._random_bytes = random_bytes
        self._now_ns = now_ns
        self._last_ms = -1
        self._tail = 0

    def new(self, prefix: str) -> str:
        """A new id with this prefix, greater than every id made before by this source."""
        ms = self._now_ns() // 1_000_000
        if ms > self._last_ms:
            self._last_ms = ms
            self._tail = int.from_bytes(self._random_bytes(_RANDOM_BYTES), "big") & _COUNTER_MASK >> 1
        else:
            # Same millisecond, or the clock stepped back: count on, so that order of making is order of sorting.
            self._tail = (self._tail + 1) & _COUNTER_MASK
        return f"{prefix}_{_base32(_uuid7(self._last_ms, self._tail))}"


def parse_id(text: object, prefix: str, what: str) -> str:
    """The id itself when it is a TypeID with that prefix.

    Args:
        text: what the peer or the caller gave.
        prefix: the prefix it must have.
        what: the name of the thing, for the message, e.g. "job id".

    Raises:
        InvalidRequest: (400) it is none, and why.

    Example:
        >>> parse_id("job_01hf7yat00e008000000000000", "job", "job id")
        'job_01hf7yat00e008000000000000'
    """
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f"invalid {what}: expected {_example(prefix)}, got {_shown(text)}")
    head, underscore, suffix = text.rpartition("_")
    if not underscore or head != prefix:
        raise InvalidRequest(f'invalid {what}: expected prefix "{prefix}", got {_shown(text)}')
    if len(suffix) != _SUFFIX_LENGTH or suffix[0] > "7" or not _ALPHABET_SET.issuperset(suffix):
        raise InvalidRequest(
            f"invalid {what}: {_shown(text)} must end in 26 lower-case base32 characters, as in {_example(prefix)}"
        )
    return text


def _uuid7(ms: int, tail: int) -> int:
    """RFC 9562 section 5.7: 48 bits of milliseconds, version 7, 12 bits, variant 2, 62 bits."""
    return (ms & 0xFFFFFFFFFFFF) << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & ((1 << 62) - 1)


def _base32(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _example(prefix: str) -> str:
    return f"{prefix}_01h455vb4pex5vsknk084sn02q"


_ALPHABET_SET = frozenset(_ALPHABET)
