"""Changes that understand what they change: JSON by tokens, scripts by steps.

Bytes that libFuzzer turns round are mostly refused at the first of them; a number of 4,301 digits in a frame that is
cut short comes from here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from fuzz import script

Mutation = Callable[[bytes, random.Random], bytes]

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+|\s+|"')

_VALUES = (
    *b"null true false 0 -0 -0.0 1.0 1e5 1E400 -1e400 1e-400 0.1e-5 1e308 1.7976931348623159e308 123456789.5".split(),
    *b"9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809".split(),
    *b"18446744073709551615 18446744073709551616 123456789012345678901234567890".split(),
    *b"NaN Infinity -Infinity nul True .5 5. 01 -01 - +1 1e 1e+ 1_000 0x10 /**/".split(),
    *b'[] {} [[]] [1,2] [1,] [,] {,} [ { ] } , : "'.split(),
    *rb'{"a":{}} {"a":1,"a":2} {"a":1,} {"\u0061":1,"a":2} {a:1} {1:2} {null:1} {"a"} {"":1}'.split(),
    *rb'"" "a" "\u0000" "\ud800" "\udc00\ud800" "\ud83d\ude00" "\/" "\x" "\u12" "\u00e9"'.split(),
    *rb'"request" "response" "event" "error" "ping" "\u0070ing" "reqeust" "auth" "drain" "stats"'.split(),
    *rb'"id" "\u0069d" "type" "method" "correl_id" "token" "data" "error" "channel" "credits" "ts" "ID"'.split(),
    *rb'"code" "message" "details" "seq" "topic" "features" "format" "msgpack" "since" "start" "gap"'.split(),
    *rb'"2026-01-02T03:04:05Z" "2026-01-02t03:04:05.1234567891z" "2026-02-30T03:04:05Z"'.split(),
    *rb'"0000-01-01T00:00:00Z" "9999-12-31T23:59:60Z" "2026-01-02T03:04:05+24:00"'.split(),
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\xc3\xa9"',
    b'"\xf0\x9f\x98\x80"',
    b'"\x00"',
    b'"\t"',
    b"\xef\xbb\xbf",
    b"\xc2\xa0",
    b"\x0b",
    b" ",
    b"\r\n",
    b"1" * 4300,
    b"-" + b"1" * 4301,
    b"[" * 128 + b"]" * 128,
    b"[" * 129 + b"]" * 129,
    b'{"a":' * 129 + b"1" + b"}" * 129,
    b'"' + b"x" * 300 + b'"',
    b'"' + b"x" * 600 + b'"',
)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Some tokens replaced, put in, taken out, swapped or repeated."""
    tokens = _TOKEN.findall(data) or [b""]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        at, other, what = rng.randrange(len(tokens)), rng.randrange(len(tokens)), rng.random()
        if what < 0.5:
            tokens[at] = rng.choice(_VALUES)
        elif what < 0.7:
            tokens.insert(at, rng.choice(_VALUES))
        elif what < 0.8 and len(tokens) > 1:
            del tokens[at]
        elif what < 0.9:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        else:
            tokens[at:at] = tokens[min(at, other) : max(at, other) + 1][:40]
    return b"".join(tokens)


def mutate_script(data: bytes, rng: random.Random) -> bytes:
    """Steps left out, repeated, swapped, changed; messages in them changed as JSON."""
    settings, steps = data[:1] or b"\x00", list(script.read(data[1:]))
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not steps:
            break
        at, other, what = rng.randrange(len(steps)), rng.randrange(len(steps)), rng.random()
        if what < 0.2 and len(steps) > 1:
            del steps[at]
        elif what < 0.4:
            steps.insert(other, steps[at])
        elif what < 0.6:
            steps[at], steps[other] = steps[other], steps[at]
        elif what < 0.7:
            steps[at] = rng.choice(_STEPS), bytes((rng.randrange(256),))
        elif what < 0.8:
            steps.insert(at, (rng.choice(_STEPS), bytes((rng.randrange(256),))))
        else:
            letter, argument = steps[at]
            steps[at] = letter, mutate_json(argument, rng)
    return settings + script.write(steps)


_STEPS = b"Sofcrwpxsunbgtaqd+-reLPBm"
