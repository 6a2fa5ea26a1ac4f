"""What waits for the model: items of one group are computed together, by the one thread that talks to JAX."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

Compute = Callable[[list[Any]], list[Any]]


class _Job(NamedTuple):
    """An item that waits.

    Attributes:
        compute: returns a result for each of several items.
        item: the item.
        group: what items that are computed together have in common.
        most: the largest number of them.
        started: set to the future of the whole batch, and the item's row in it.
    """

    compute: Compute
    item: Any
    group: Hashable
    most: int
    started: asyncio.Future[tuple[asyncio.Future[list[Any]], int]]


class Batcher:
    """A queue in front of one thread. Nothing waits for a full batch: what came while one was computed is the next one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "model")
        self._waiting: list[_Job] = []
        self._busy = False

    @property
    def waiting(self) -> int:
        """The number of items whose turn has not come."""
        return sum(not job.started.done() for job in self._waiting)

    async def run(self, compute: Compute, item: Any, group: Hashable, most: int) -> Any:
        """Returns the result for an item, which is computed together with at most `most` - 1 others of its group.

        An item whose task is cancelled before its turn is left out. What `compute` raises, it raises for the whole batch.
        """
        job = _Job(compute, item, group, most, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._start()
        batch, row = await job.started
        return (await asyncio.shield(batch))[row]

    def _start(self) -> None:
        self._waiting = [job for job in self._waiting if not job.started.done()]
        if self._busy or not self._waiting:
            return
        first = self._waiting[0]
        jobs = [job for job in self._waiting if job.group == first.group][: first.most]
        self._busy = True
        loop = asyncio.get_running_loop()
        batch = loop.run_in_executor(self._thread, first.compute, [job.item for job in jobs])
        for row, job in enumerate(jobs):
            job.started.set_result((batch, row))
        batch.add_done_callback(self._finished)

    def _finished(self, batch: asyncio.Future[list[Any]]) -> None:
        self._busy = False
        if not batch.cancelled():
            batch.exception()  # those who still wait raise it; without this, one that nobody awaits would be logged
        self._start()
