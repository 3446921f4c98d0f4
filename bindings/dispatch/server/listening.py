"""Where a server listens: a TCP port, or a Unix socket that only this user may connect to."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Generator
from pathlib import Path

from dispatch.server.server import PATH

BACKLOG = 2048


class CannotServe(Exception):
    """Serving cannot begin; the message is for people."""


@contextlib.contextmanager
def listen(host: str, port: int, unix: Path | None) -> Generator[socket.socket]:
    """A socket that listens, for as long as it is needed.

    Args:
        unix: listen on this path instead of a port. A socket that a server left behind there is replaced.

    Raises:
        CannotServe: that is not possible, and why.
    """
    listener = _listen_on_port(host, port) if unix is None else _listen_on_path(unix)
    try:
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()
        if unix is not None:
            unix.unlink(missing_ok=True)


def address_of(listener: socket.socket) -> str:
    """The URL that clients take."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}{PATH}"


def _listen_on_port(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise CannotServe(f'there is no address "{host}" ({error}); choose another with --host') from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Now, not when the loop runs: two servers that start at once must not both believe that the port is theirs.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotServe(_why_not_on_port(host, port, error)) from error
    return listener


def _why_not_on_port(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use by another program; stop that one, or choose another port with --port"
            " (0 takes any that is free)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not for this user; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {host}; choose another with --host"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"


def _listen_on_path(path: Path) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise CannotServe("this system has no Unix sockets; choose a port with --port")
    _remove_left_behind(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # only this user may connect: the file's mode is its only lock
    try:
        listener.bind(str(path.absolute()))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotServe(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener


def _remove_left_behind(path: Path) -> None:
    """A server that was killed leaves its socket; nobody listens on it."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise CannotServe(f"{path} is there, and is no socket; choose another path with --unix")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CannotServe(f"cannot tell who listens on {path}: {error.strerror or error}") from error
        else:
            raise CannotServe(
                f"another server listens on {path}; stop that one, or choose another with --unix"
            )
