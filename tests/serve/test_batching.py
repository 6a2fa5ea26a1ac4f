"""Items that wait for the model: which are computed together, and which are given up."""

import asyncio
import threading

import pytest

from paca_jax.serve.batching import Batcher


class Model:
    """Squares numbers, in batches that it notes, once it may go on."""

    def __init__(self):
        self.batches, self.entered, self.may_go_on = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.batches.append(items)
        self.entered.set()
        self.may_go_on.wait()
        if -1 in items:
            raise RuntimeError("a bad item")
        return [item**2 for item in items]


async def behind_the_first(model, others):
    """Starts an item and, while it is computed, others of (item, group, most); returns their tasks."""
    batcher = Batcher()
    first = asyncio.create_task(batcher.run(model, 0, "a", 4))
    await asyncio.to_thread(model.entered.wait)
    tasks = [asyncio.create_task(batcher.run(model, *other)) for other in others]
    await asyncio.sleep(0)  # so that each has come to wait
    assert batcher.waiting == len(others)
    return first, tasks


def test_items_of_a_group_that_wait_are_computed_together():
    model = Model()
    groups = "abaaaba"

    async def scenario():
        first, tasks = await behind_the_first(model, [(number + 1, group, 4) for number, group in enumerate(groups)])
        model.may_go_on.set()
        return await asyncio.gather(first, *tasks)

    assert asyncio.run(scenario()) == [number**2 for number in range(8)]
    assert model.batches == [[0], [1, 3, 4, 5], [2, 6], [7]]


def test_an_item_that_is_cancelled_while_it_waits_is_not_computed():
    model = Model()

    async def scenario():
        first, tasks = await behind_the_first(model, [(1, "a", 4), (2, "a", 4), (3, "a", 4)])
        tasks[1].cancel()
        model.may_go_on.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    found = asyncio.run(scenario())
    assert [found[0], found[1], found[3]] == [0, 1, 9]
    assert isinstance(found[2], asyncio.CancelledError)
    assert model.batches == [[0], [1, 3]]


def test_a_batch_that_is_cancelled_while_it_is_computed_stops_nobody():
    model = Model()

    async def scenario():
        first, tasks = await behind_the_first(model, [(1, "a", 1), (2, "b", 1)])
        first.cancel()
        await asyncio.sleep(0)
        model.may_go_on.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(scenario()) == [1, 4]


def test_an_error_is_that_of_its_batch_alone():
    model = Model()

    async def scenario():
        first, tasks = await behind_the_first(model, [(-1, "a", 4), (1, "a", 4), (2, "b", 4)])
        model.may_go_on.set()
        found = await asyncio.gather(first, *tasks, return_exceptions=True)
        with pytest.raises(RuntimeError):
            await tasks[0]
        return found

    found = asyncio.run(scenario())
    assert (found[0], found[3]) == (0, 4)
    assert str(found[1]) == str(found[2]) == "a bad item"
