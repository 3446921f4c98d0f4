"""Proxies as they stand between a client and its server: HTTP CONNECT and SOCKS5, with a password or without."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from typing import Self

from tests.contract.threads import LoopThread, stop_accepting

USER, PASSWORD = "ada", "p%40ss"
"""What they ask for, the password as it stands in a URL: it has an @."""


class Proxy:
    """Takes connections of either kind, and passes on what comes.

    Args:
        asks: whether it wants USER and PASSWORD.
        refuses: whether it lets nobody through.
        names: where else than their name says hosts are: a proxy looks names up itself.
    """

    def __init__(
        self, *, asks: bool = False, refuses: bool = False, names: dict[str, str] | None = None
    ) -> None:
        self.port = 0
        self.went: list[str] = []
        """Where clients wanted to go: host and port."""
        self._asks = asks
        self._refuses = refuses
        self._names = names or {}
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._thread.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._stop())
        self._thread.__exit__()

    def url(self, kind: str, login: str = "") -> str:
        """Its address: `kind` is "http" or "socks5", `login` stands before the host."""
        return f"{kind}://{login}127.0.0.1:{self.port}"

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        await stop_accepting(self._server.sockets)
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            way = await (self._socks(reader, writer) if first == b"\x05" else self._connect(reader, writer))
            if way is None:
                writer.write_eof()
                await reader.read()  # closed before that is read, it would be a reset, and the refusal lost
            else:
                host, port, yes = way
                there, back = await asyncio.open_connection(self._names.get(host, host), port)
                writer.write(yes)
                with contextlib.closing(back):
                    await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int, bytes] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split()[1]
        self.went.append(target)
        login = b64encode(f"{USER}:{PASSWORD.replace('%40', '@')}".encode()).decode()
        if self._refuses or (self._asks and f"Basic {login}" not in head):
            status = b"403 Forbidden" if self._refuses else b"407 Proxy Authentication Required"
            writer.write(b"HTTP/1.1 %b\r\n\r\n" % status)
            return None
        host, _, port = target.rpartition(":")
        return host, int(port), b"HTTP/1.1 200 Connection established\r\n\r\n"

    async def _socks(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int, bytes] | None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        method = 2 if self._asks else 0
        writer.write(b"\x05" + bytes([method if method in methods else 0xFF]))
        if self._asks:
            await reader.readexactly(1)
            login = [(await _counted(reader)).decode() for _ in range(2)]
            right = login == [USER, PASSWORD.replace("%40", "@")]
            writer.write(b"\x01" + bytes([not right]))
            if not right:
                return None
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await _counted(reader)).decode()
        else:
            host = ".".join(map(str, await reader.readexactly(4)))
        port = int.from_bytes(await reader.readexactly(2))
        self.went.append(f"{host}:{port}")
        if self._refuses:
            writer.write(b"\x05\x02\x00\x01" + bytes(6))
            return None
        return host, port, b"\x05\x00\x00\x01" + bytes(6)


async def _counted(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly((await reader.readexactly(1))[0])


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
