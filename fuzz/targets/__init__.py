"""The targets: plain functions of bytes. What they raise is a finding."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzz.mutation import Mutation, mutate_json, mutate_script

Function = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """One target: its module has `target(data)` and `seeds()`.

    Attributes:
        name: what it is called on the command line; the folder of its corpus.
        module: where it is.
        about: what it promises.
        max_len: longest input that is tried.
        mutation: how its inputs are changed, besides what libFuzzer does.
    """

    name: str
    module: str
    about: str
    max_len: int = 4096
    mutation: Mutation | None = None

    def function(self) -> Function:
        found: Function = importlib.import_module(self.module).target
        return found

    def seeds(self) -> Iterator[bytes]:
        yield from importlib.import_module(self.module).seeds()


TARGETS = {
    target.name: target
    for target in (
        Target(
            "codec_json",
            "fuzz.targets.codec_json",
            "both forms of the JSON codec: same verdict, same values",
            max_len=10_000,
            mutation=mutate_json,
        ),
        Target(
            "codec_msgpack",
            "fuzz.targets.codec_msgpack",
            "both forms of the MessagePack codec: same verdict, same values",
        ),
        Target(
            "payload",
            "fuzz.targets.payload",
            "the judge of payloads agrees with the standard library's parser",
            max_len=10_000,
            mutation=mutate_json,
        ),
        Target(
            "client_session",
            "fuzz.targets.client_session",
            "a client survives every server",
            max_len=16_384,
            mutation=mutate_script,
        ),
        Target(
            "server_session",
            "fuzz.targets.server_session",
            "a server survives every client",
            max_len=16_384,
            mutation=mutate_script,
        ),
        Target(
            "wire",
            "fuzz.targets.wire",
            "a client's WebSocket and session survive every byte, whole and one at a time",
            max_len=2_500,
        ),
        Target(
            "server_wire",
            "fuzz.targets.server_wire",
            "a server's WebSocket and session survive every byte, whole and one at a time",
            max_len=2_500,
        ),
    )
}
