"""Batches: who shares one changes no answer, who breaks one breaks it for himself, who went away is left out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_cases import Shades
from snellen.serve.batching import Batcher, ModelFailed, Shared
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal

LATE = 20  # seconds: nothing here takes as long


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def batch(self, waited: Sequence[float], seconds: float, failed: int) -> None:
        assert all(each >= 0 for each in waited) and seconds >= 0
        self.told.append((len(waited), failed))


@contextmanager
def batching(model: Shades, notes: Notes | None = None, **limits: Any) -> Iterator[Batcher]:
    batcher = Batcher(model, Limits(**{"max_batch": 4, "max_delay": 0.0, "queue": 8, **limits}), notes or Notes())
    try:
        yield batcher
    finally:
        if model.gate is not None:
            model.gate.set()
        batcher.close()


def seen(red: int) -> Any:
    return np.array([red, 10.0, 10.0]), (4, 4)


def held(model: Shades, batcher: Batcher) -> Future[Any]:
    """An image that the model is busy with, until its gate opens."""
    model.gate = threading.Event()
    first = batcher.submit(seen(250))
    waiting = threading.Event()
    while not first.running():
        waiting.wait(0.001)
    return first


def test_batch_closes_when_it_is_full() -> None:
    model, notes = Shades(), Notes()
    with batching(model, notes, max_delay=1000 * LATE) as batcher, batcher.places(8):
        futures = [batcher.submit(seen(red)) for red in range(8)]
        assert [len(future.result(LATE).scores) for future in futures] == [3] * 8
    assert model.batches == [4, 4]
    assert notes.told == [(4, 0), (4, 0)]


def test_batch_closes_when_its_first_image_waited_long_enough() -> None:
    model = Shades()
    with batching(model, max_delay=1.0) as batcher, batcher.places(2):  # the other never comes
        assert batcher.submit(seen(1)).result(LATE) is not None
    assert model.batches == [1]


def test_what_waits_while_the_model_is_busy_is_answered_together() -> None:
    model = Shades()
    with batching(model) as batcher:
        first = held(model, batcher)
        rest = [batcher.submit(seen(red)) for red in range(6)]
        assert model.gate is not None
        model.gate.set()
        for future in [first, *rest]:
            future.result(LATE)
    assert model.batches == [1, 4, 2]


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=12), st.integers(1, 5), st.sets(st.integers(0, 255), max_size=3)
)
def test_answer_is_the_same_alone_and_in_any_company(reds: list[int], most: int, broken: set[int]) -> None:
    alone = Shades().decide([seen(red) for red in reds])
    with batching(Shades(broken=tuple(broken)), max_batch=most, queue=20, max_delay=0.5) as batcher:
        futures = [batcher.submit(seen(red)) for red in reds]
        for red, future, target in zip(reds, futures, alone, strict=True):
            if red in broken:
                with pytest.raises(ModelFailed):
                    future.result(LATE)
            else:
                found = future.result(LATE)
                assert found.index == target.index
                np.testing.assert_array_equal(found.scores, target.scores)


def test_image_that_breaks_the_model_fails_alone_and_is_counted() -> None:
    model, notes = Shades(broken=(13,)), Notes()
    with batching(model, notes, max_delay=1000 * LATE) as batcher, batcher.places(4):
        futures = [batcher.submit(seen(red)) for red in (1, 13, 2, 3)]
        assert [type(future.exception(LATE)) for future in futures] == [type(None), ModelFailed, type(None), type(None)]
    assert notes.told == [(4, 1)]


def test_model_that_gives_too_few_answers_is_not_believed() -> None:
    class Lazy(Shades):
        def decide(self, seen: Sequence[Any]) -> list[Any]:
            return super().decide(seen)[1:]

    with batching(Lazy()) as batcher, pytest.raises(ModelFailed):
        batcher.submit(seen(1)).result(LATE)


def test_who_went_away_is_dropped_before_the_model_runs() -> None:
    model = Shades()
    with batching(model) as batcher:
        held(model, batcher)
        gone, stays = batcher.submit(seen(77)), batcher.submit(seen(88))
        assert gone.cancel()
        assert model.gate is not None
        model.gate.set()
        stays.result(LATE)
    assert 77 not in model.asked and 88 in model.asked


def test_full_queue_refuses_and_has_room_again_afterwards() -> None:
    with batching(Shades()) as batcher:
        with batcher.places(7):
            batcher.check_room("another")
            with batcher.places(1, "another"), pytest.raises(Refusal) as refused:
                batcher.check_room("one more")
        batcher.check_room()
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        with pytest.raises(Refusal) as never, batcher.places(9):
            pass
        assert never.value.status == 413


def test_closing_answers_what_was_taken_in_and_nothing_after() -> None:
    model = Shades()
    with batching(model) as batcher:
        first = held(model, batcher)
        futures = [first, *(batcher.submit(seen(red)) for red in range(5))]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        assert model.gate is not None
        model.gate.set()
        closing.join(LATE)
        assert not closing.is_alive() and all(future.result(0) is not None for future in futures)
        with pytest.raises(Refusal, match="stopping"):
            batcher.submit(seen(1))
        with pytest.raises(Refusal, match="stopping"), batcher.places(1):
            pass


def test_shared_model_answers_as_the_model_does() -> None:
    model = Shades()
    images = [seen(red) for red in range(11)]
    with batching(model) as batcher:
        shared = Shared(model, batcher, Limits(max_batch=4))
        found = shared.decide(images)
    assert [each.index for each in found] == [each.index for each in Shades().decide(images)]
    assert max(model.batches) <= 4
    assert (shared.task.name, shared.preprocessing, shared.min_side) == ("classification", model.preprocessing, None)


def test_explanation_that_nobody_waits_for_stops_asking() -> None:
    model = Shades()
    with batching(model) as batcher:
        shared = Shared(model, batcher, Limits(max_batch=4))
        shared.given_up = True
        with pytest.raises(Refusal):
            shared.decide([seen(1)])
    assert model.asked == []
