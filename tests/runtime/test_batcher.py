# SPDX-License-Identifier: Apache-2.0
"""Which request is read next."""

import asyncio

import pytest

from edad_jax.runtime.batcher import Batcher, TooManyPiecesError
from edad_jax.runtime.limits import Limits
from tests.runtime.stand_ins import Counter, Long

PATIENCE = 300  # seconds after which something counts as stuck


def run_with(model, limits, work):
    """Returns what work(batcher) does while the batcher runs."""

    async def run():
        batcher = Batcher(model, limits)
        running = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(work(batcher), PATIENCE)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return asyncio.run(run())


def test_a_long_request_is_read_although_short_ones_keep_coming():
    model = Long()

    async def work(batcher):
        long = asyncio.create_task(batcher.read(["40"]))

        async def keep_asking():
            while not long.done():
                await batcher.read(["1"])

        await asyncio.gather(long, keep_asking(), keep_asking(), keep_asking())

    run_with(model, Limits(gather_seconds=0.0), work)
    assert model.seen.count("40") == 40
    assert 30 < model.seen.count("1") < 60  # they took turns


def test_of_two_requests_the_shorter_one_is_read_first():
    model = Long()

    async def work(batcher):
        await asyncio.gather(batcher.read(["5"]), batcher.read(["30"]), batcher.read(["2"]))

    run_with(model, Limits(gather_seconds=0.0), work)
    last = {text: len(model.seen) - model.seen[::-1].index(text) for text in ("2", "5", "30")}
    assert last["2"] < last["5"] < last["30"] == 37


def test_what_comes_together_is_read_together_and_a_bound_stops_one_alone():
    model = Counter()

    async def work(batcher):
        asked = [batcher.read([text] * count) for text, count in (("a", 3), ("bb", 5), ("c", 9))]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = run_with(model, Limits(pieces=8), work)
    assert [len(first), len(second)] == [3, 5] and '"length 2"' in second[0]
    assert isinstance(third, TooManyPiecesError)
    assert "got 9 word pieces in 9 of 9 texts, expected 8 in all at most" in str(third)
    assert sum(model.batches) == 8 and len(model.batches) < 8


def test_a_request_that_is_cancelled_is_read_no_further():
    model = Long()

    async def work(batcher):
        long = asyncio.create_task(batcher.read(["10000"]))
        while not model.seen:
            await asyncio.sleep(0.001)
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        await batcher.read(["1"])
        await batcher.read(["1"])
        return len(model.seen)

    assert run_with(model, Limits(gather_seconds=0.0), work) < 10_000
    assert model.seen[-2:] == ["1", "1"]
    with pytest.raises(ValueError, match="expected 5 in all"):
        run_with(model, Limits(pieces=5), lambda batcher: batcher.read(["3", "3"]))
