"""The trio client. What each call means is in `dispatch.calls`, what happens to it in `dwp_core.client`."""

from __future__ import annotations

import trio

from dispatch.client import AwaitedClient
from dispatch.dialing import Dialer
from dispatch.trio.driver import Driver
from dispatch.trio.subscription import States, Subscription
from dwp_core.client_events import ClientConfig


class Dispatch(AwaitedClient[Driver, Subscription, States]):
    """A client of a Dispatch server, for trio.

    One client serves a whole program: any number of tasks of one `trio.run` may use it at once. A lost connection is
    made again and everything restored; what happens to calls under way is told by their errors. Cancelling a call
    withdraws it and leaves the connection as it is. The client's own tasks live in a nursery that it owns, apart from
    its caller's: they are gone when `close()` or `async with` is done.

    Example:
        >>> async def main():
        ...     async with Dispatch(url="ws://127.0.0.1:8080/dwp", token="dk_...") as client:
        ...         job = await client.enqueue("send-email", {"to": "user@example.com"})
        ...         print(await client.wait(job["job_id"]))
    """

    def _new_driver(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> Driver:
        if dialer.goes_over_http:
            from dispatch.trio.http import HttpDriver

            return HttpDriver(config, dialer, timeout)
        return Driver(config, dialer, timeout)

    def _new_feed(self, channel: str, until: frozenset[str]) -> Subscription:
        return Subscription(self._driver, channel, until)

    async def watch(self, id: str) -> Subscription:
        await trio.lowlevel.checkpoint_if_cancelled()  # it begins with a subscription, which is sent at once
        return await super().watch(id)

    watch.__doc__ = AwaitedClient.watch.__doc__

    def _new_changes(self) -> States:
        return States(self._driver)
