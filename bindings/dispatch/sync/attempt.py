"""One attempt to reach the server, in a thread of its own: looking up a name cannot be interrupted.

The rest can. Whoever does not want it any more shuts its socket down, so that its thread does not stay until its time
is up.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from dispatch.dialing import Dialer


class Attempt:
    """A connection that is being made."""

    def __init__(self, left: set[object]) -> None:
        self.cancelled = False
        self.sock: socket.socket | None = None
        """What is being connected, as far as that is known here; its thread closes it."""
        self._left = left

    def cancel(self) -> None:
        """Nobody wants it any more, and nobody waits for it. What comes of it is closed."""
        self.cancelled = True
        self._left.discard(self)
        self.interrupt()

    def interrupt(self) -> None:
        """Have its thread look up, if it waits for the network."""
        if self.cancelled and self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def connect(self, dialer: Dialer, patience: float) -> socket.socket:
        """A socket that leads to the server, TLS and all, and does not block. Waits `patience` seconds at each step."""
        if dialer.transport is not None:
            return dialer.transport.connect_sync()
        address, proxy = dialer.address, dialer.current_proxy()
        sock: Any
        if address.socket_path is not None:
            sock = self._reach(socket.AF_UNIX, address.socket_path, patience)
        elif proxy is not None:
            from python_socks.sync import Proxy

            tunnel = Proxy.from_url(proxy.url, rdns=proxy.remote_dns)
            sock = tunnel.connect(address.host, address.port, timeout=patience)
        else:
            sock = self._reach_any(address.host, address.port, patience)
        try:
            if address.socket_path is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if dialer.tls is not None:
                self.sock = sock = dialer.tls.wrap_socket(
                    sock, server_hostname=address.host, do_handshake_on_connect=False
                )
                self.interrupt()
                sock.do_handshake()
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        connected: socket.socket = sock
        return connected

    def _reach_any(self, host: str, port: int, patience: float) -> socket.socket:
        """Connect to the first of the host's addresses that lets us, as `socket.create_connection` does."""
        failure: OSError = OSError(f"{host} has no address")
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                return self._reach(family, address, patience)
            except OSError as error:
                failure = error
            if self.cancelled:
                break
        raise failure

    def _reach(self, family: int, address: Any, patience: float) -> socket.socket:
        sock = self.sock = socket.socket(family)
        try:
            sock.settimeout(patience)
            if self.cancelled:
                raise OSError("it is not wanted any more")
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock
