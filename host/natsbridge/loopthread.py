"""Event loops in threads of their own, for the synchronous calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from natsbridge.errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, NATSBridgeError

__all__ = ["LoopThread", "run_once"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="natsbridge", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return its result; Ctrl-C cancels it and waits for its end."""
        if threading.current_thread() is self._thread:
            work.close()
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                "a connection cannot be called from a callback on its own thread: let on_progress"
                " only take notes",
            )
        if not self._thread.is_alive():
            work.close()
            raise NATSBridgeError(
                NATS_CONNECTION_FAILED, "the connection is closed: call connect() again"
            )
        done = threading.Event()
        task: list[asyncio.Task[T]] = []
        exits: list[BaseException] = []

        async def guarded() -> T:
            # From a callback, SystemExit or KeyboardInterrupt would end this thread: the caller's.
            try:
                return await work
            except (KeyboardInterrupt, SystemExit) as e:
                exits.append(e)
                raise asyncio.CancelledError from e

        def start() -> None:
            task.append(self._loop.create_task(guarded()))
            task[0].add_done_callback(lambda _: done.set())

        self._loop.call_soon_threadsafe(start)
        try:
            done.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: task[0].cancel())
            done.wait()
            raise
        if exits:
            raise exits[0]
        return task[0].result()

    def stop(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


def run_once(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine in a thread that ends with it."""
    thread = LoopThread()
    try:
        return thread.run(work)
    finally:
        thread.stop()
