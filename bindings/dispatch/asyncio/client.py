"""The asyncio client. What each call means is in `dispatch.calls`, what happens to it in `dwp_core.client`."""

from __future__ import annotations

from dispatch.asyncio.driver import Driver
from dispatch.asyncio.subscription import States, Subscription
from dispatch.client import AwaitedClient
from dispatch.dialing import Dialer
from dwp_core.client_events import ClientConfig


class Dispatch(AwaitedClient[Driver, Subscription, States]):
    """A client of a Dispatch server, for asyncio.

    One client serves a whole program: any number of tasks of one event loop may use it at once. A lost connection is
    made again and everything restored; what happens to calls under way is told by their errors.

    Example:
        >>> async def main():
        ...     async with Dispatch(url="ws://127.0.0.1:8080/dwp", token="dk_...") as client:
        ...         job = await client.enqueue("send-email", {"to": "user@example.com"})
        ...         print(await client.wait(job["job_id"]))
    """

    def _new_driver(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> Driver:
        if dialer.goes_over_http:
            from dispatch.asyncio.http import HttpDriver

            return HttpDriver(config, dialer, timeout)
        return Driver(config, dialer, timeout)

    def _new_feed(self, channel: str, until: frozenset[str]) -> Subscription:
        return Subscription(self._driver, channel, until)

    def _new_changes(self) -> States:
        return States(self._driver)
