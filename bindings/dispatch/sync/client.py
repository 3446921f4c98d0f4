"""The client without an event loop. What each call means is in `dispatch.calls`, what happens to it in the core."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dispatch import operations
from dispatch.calls import BlockingCalls
from dispatch.client import Client
from dispatch.dialing import Dialer
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dispatch.sync.driver import Driver
from dispatch.sync.subscription import States, Subscription
from dwp_core.client_events import ClientConfig
from dwp_core.subscriptions import Since

if TYPE_CHECKING:
    from dispatch.telemetry import OpenTelemetry


class Dispatch(Client[Driver], BlockingCalls):
    """A client of a Dispatch server, for programs without an event loop.

    One client serves a whole program: any number of threads may use it at once. A lost connection is made again and
    everything restored; what happens to calls under way is told by their errors.

    Ctrl-C interrupts every call at once, and the connection goes on: only where it comes in the middle of a step of the
    client itself, and not while that waits, the client is closed, and everybody who waits is told. A signal handler may
    call the client while it waits, too. After a fork, it belongs to the parent.

    Example:
        >>> def main():
        ...     with Dispatch(url="ws://127.0.0.1:8080/dwp", token="dk_...") as client:
        ...         job = client.enqueue("send-email", {"to": "user@example.com"})
        ...         print(client.wait(job["job_id"]))
    """

    def _new_driver(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> Driver:
        if dialer.goes_over_http:
            from dispatch.sync.http import HttpDriver

            return HttpDriver(config, dialer, timeout)
        return Driver(config, dialer, timeout)

    def _observed_run(self, telemetry: OpenTelemetry) -> Callable[..., Any]:
        run, where = self._driver.run, self._driver.config.where

        def observed(build: Callable[..., Operation[Any]], *args: Any, **kwargs: Any) -> Any:
            with telemetry.call(build(*args, **kwargs), where) as operation:
                return run(lambda: operation)

        return observed

    def connect(self) -> str:
        """Connect and log in.

        Returns:
            The session id that the server gave; "" over HTTP, which has no sessions.

        Raises:
            AuthError: the server refused the token.
            ConnectionError: the server cannot be reached or does not speak DWP.
            ClosedError: the client was connected before; make a new one.
        """
        return self._driver.connect()

    def close(self, *, drain: float = 0.0) -> None:
        """Close the connection. Calls that still wait end with `ClosedError`, subscriptions just end.

        Args:
            drain: seconds to wait for the answers to calls that are under way.
        """
        self._driver.close(drain)

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def subscribe(self, channel: str, *, since: Since = None, timeout: float | None = None) -> Subscription:
        """Listen to a channel. The server has confirmed it when this returns.

        Args:
            channel: "jobs", "workflows", "firehose", "job:<id>", "workflow:<run id>" or "queue:<name>".
            since: events after this `seq`, or all that the server still has, "start"; None means from now on.
            timeout: seconds to wait for the confirmation, instead of the client's.

        Raises:
            InvalidRequest: there is no such channel.
            ClosedError: the client is closed, or was never connected.
            TimeoutError: not confirmed in time.

        Source: PROTOCOL.md sections 5 and 9.
        """
        return self._listen(channel, since, frozenset(), timeout)

    def watch(self, id: str, *, timeout: float | None = None) -> Subscription:
        """Listen to one job or workflow run until it ends; the iteration ends with it.

        Has it ended already, there is nothing to iterate over.

        Args:
            id: a job id or a run id.
            timeout: seconds to wait for the confirmation, instead of the client's.

        Raises:
            NotFoundError: there is none of that id.
        """
        look = operations.entity(id)
        subscription = self._listen(look.channel, None, look.ends, timeout)
        try:
            entity = self._run(lambda: look.operation)
        except BaseException:
            subscription.unsubscribe()
            raise
        if entity.get("state") in operations.ENDED:
            subscription.end_here()
        return subscription

    def states(self) -> States:
        """Follow the connection: how it stands now, then every change, until the client is closed.

        Raises:
            ClosedError: the client was never connected.

        Example:
            >>> def log(client):
            ...     for change in client.states():
            ...         print(change.state, change.cause, change.retry_in)
        """
        changes = States(self._driver)
        with self._driver.lock:
            self._driver.follow(changes)
        return changes

    def _listen(
        self, channel: str, since: Since, until: frozenset[str], timeout: float | None
    ) -> Subscription:
        check_seconds("timeout", timeout)
        subscription = Subscription(self._driver, channel, until)
        self._driver.listen(subscription, since)
        try:
            return subscription.confirmed(self._driver.timeout if timeout is None else timeout)
        except BaseException:
            subscription.unsubscribe()
            raise
