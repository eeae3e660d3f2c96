"""Under load: the company of an image changes none of its answers, and one client does not shut out the others."""

from __future__ import annotations

import asyncio
import base64
import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export_cases import a_model, about, images_in
from serve_cases import Shades, asking, plain
from snellen.core.process import leave
from snellen.export.artifact import ArtifactAnswering
from snellen.export.formats import FORMATS
from snellen.export.runtimes import session, streams_of
from snellen.serve.batching import Batcher
from snellen.serve.decoding import Allowance, Decoders
from snellen.serve.limits import Limits
from snellen.serve.models import Served
from snellen.serve.refusal import Refusal
from snellen.serve.turns import Turns
from test_serve_batching import LATE, Notes, batching, held, seen

# ---- answers


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> ArtifactAnswering:
    """Asked by two threads at once, each with batches of its own."""
    model, file = a_model("classification"), tmp_path_factory.mktemp("artifact") / "model.onnx"
    file.write_bytes(FORMATS["onnx"].build(model)[0].SerializeToString())
    return ArtifactAnswering(about(model), session(file, "onnx", threads=2, streams=2), streams=2)


def test_answer_is_the_same_to_the_last_bit_alone_and_in_any_mix(artifact: ArtifactAnswering, tmp_path: Path) -> None:
    files = [path.read_bytes() for path in images_in(tmp_path, 18)]
    rng, models = random.Random(0), {"model": Served(artifact, {}, streams=artifact.streams)}
    mixes = [rng.sample(range(len(files)), rng.randint(1, 9)) for _ in range(30)]
    with asking(models, max_delay=2.0) as client:

        def answered(mix: list[int]) -> list[list[float]]:
            data = [base64.b64encode(files[i]).decode() for i in mix]
            image = {"name": "image", "datatype": "BYTES", "shape": [len(mix)], "data": data}
            response = client.post(
                "/v2/models/model/infer", json={"inputs": [image], "outputs": [{"name": "probabilities"}]}
            )
            assert response.status_code == 200, response.text
            [told] = response.json()["outputs"]
            width = told["shape"][1]
            return [told["data"][start : start + width] for start in range(0, len(mix) * width, width)]

        alone = [answered([i])[0] for i in range(len(files))]
        with ThreadPoolExecutor(4) as pool:
            for mix, told in zip(mixes, pool.map(answered, mixes), strict=True):
                assert told == [alone[i] for i in mix]
    assert len({tuple(each) for each in alone}) == len(files)


def test_calls_at_once_never_use_more_threads_than_there_are_cores_by_much() -> None:
    for cores in range(1, 129):
        streams = streams_of("onnx", cores)
        assert 1 <= streams <= cores and cores <= streams * -(-cores // streams) < cores + streams
        assert streams_of("torch", cores) == 1


# ---- batches of several threads


def test_threads_that_are_idle_share_what_waits() -> None:
    model = Shades()
    batcher = Batcher(model, Limits(max_batch=8, max_delay=1000 * LATE, queue=16), Notes(), threads=2)
    with batcher.places(8) as submit:  # the first waits for the others
        futures = [submit(seen(red)) for red in range(8)]
        for future in futures:
            future.result(LATE)
    batcher.close()
    assert model.batches[0] == 4 and sum(model.batches) == 8


def test_other_threads_answer_while_one_is_busy() -> None:
    model = Shades()
    batcher = Batcher(model, Limits(max_batch=4, max_delay=0.0, queue=16), Notes(), threads=2)
    first = held(model, batcher)
    gate, model.gate = model.gate, None
    assert [batcher.submit(seen(red)).result(LATE) is not None for red in range(6)] == [True] * 6
    assert gate is not None and not first.done()
    gate.set()
    assert first.result(LATE) is not None
    batcher.close()


def test_batch_does_not_wait_when_no_other_image_is_on_its_way() -> None:
    model = Shades()
    with batching(model, max_delay=1000 * LATE) as batcher:
        with batcher.places(1) as submit:
            assert submit(seen(1)).result(LATE) is not None
        with batcher.places(2) as submit:
            futures = [submit(seen(2)), submit(seen(3))]
            assert [future.result(LATE) is not None for future in futures] == [True, True]
    assert model.batches == [1, 2]


# ---- clients


def filled(batcher: Batcher, client: str, num: int, stack: ExitStack) -> int:
    """How many requests of ``num`` images this client gets in, one after the other."""
    taken = 0
    while True:
        try:
            stack.enter_context(batcher.places(num, client))
        except Refusal as refusal:
            assert (refusal.status, refusal.retry_after) == (503, 1)
            return taken
        taken += 1


@pytest.mark.parametrize("num", [1, 16])
def test_client_that_takes_all_it_can_leaves_room_for_others(num: int) -> None:
    with batching(Shades(), queue=128) as batcher, ExitStack() as stack, ExitStack() as greedy:
        assert filled(batcher, "greedy", num, greedy) * num >= 112
        batcher.check_room("new")
        assert filled(batcher, "new", 1, stack) >= 1
        with pytest.raises(Refusal, match="of this address"):
            batcher.check_room("greedy")


def test_clients_who_ask_all_they_can_come_to_hold_alike() -> None:
    rng = random.Random(0)
    with batching(Shades(), queue=128) as batcher, ExitStack() as stack:
        places: list[tuple[str, ExitStack]] = []
        for turn in range(3000):
            if turn > 300 and places:  # one is answered
                places.pop(rng.randrange(len(places)))[1].close()
            for client in ("a", "a", "a", "a", "b"):  # the one asks four times as often
                place = stack.enter_context(ExitStack())
                try:
                    place.enter_context(batcher.places(1, client))
                except Refusal:
                    continue
                places.append((client, place))
        held_by_b = sum(client == "b" for client, _ in places)
        assert batcher.taken_in == len(places) and abs(held_by_b - len(places) / 2) <= 6


def test_lone_client_may_ask_for_all_places_at_once() -> None:
    with batching(Shades(), queue=128) as batcher, batcher.places(128, "only"):
        with pytest.raises(Refusal):
            batcher.check_room("new")
    with batching(Shades(), queue=128) as batcher, batcher.places(128, "again"):
        assert batcher.taken_in == 128


# ---- decoders


def test_turns_go_round_among_clients() -> None:
    async def order() -> list[str]:
        turns, told, tasks = Turns(1), list[str](), list[asyncio.Task[None]]()

        async def one(client: str) -> None:
            async with turns.turn(client):
                told.append(client)
                await asyncio.sleep(0)

        for client in ("a", "a", "a", "a", "b", "c", "b"):
            tasks.append(asyncio.create_task(one(client)))
        await asyncio.gather(*tasks)
        async with turns.turn("z"), asyncio.timeout(LATE):
            return told

    assert asyncio.run(order()) == ["a", "a", "b", "c", "a", "b", "a"]


def test_turn_of_who_went_away_is_given_to_the_next() -> None:
    async def left_over() -> list[str]:
        turns, told = Turns(1), list[str]()

        async def one(client: str) -> None:
            async with turns.turn(client):
                told.append(client)

        async with turns.turn("first"):
            gone, stays = asyncio.create_task(one("gone")), asyncio.create_task(one("stays"))
            given = asyncio.create_task(one("given"))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
        given.cancel()
        await asyncio.gather(gone, stays, given, return_exceptions=True)
        async with asyncio.timeout(LATE), turns.turn("last"):
            return told

    assert asyncio.run(left_over()) == ["stays"]


def test_turn_that_is_given_to_a_task_that_is_cancelled_is_not_lost() -> None:
    async def twice() -> None:
        turns = Turns(1)

        async def one() -> None:
            async with turns.turn("client"):
                pass

        async with turns.turn("first"):
            task = asyncio.create_task(one())
            await asyncio.sleep(0)
        task.cancel()  # its turn was passed on by the end of the block, and it has not run since
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(LATE), turns.turn("last"):
            pass

    asyncio.run(twice())


def test_files_of_a_request_share_an_allowance() -> None:
    file, allowance = plain(7), Allowance(20.0)
    decoders = Decoders(Limits())
    try:
        assert decoders.decode(file, allowance=allowance).size == (24, 16)
        allowance.spend(20.0)
        with pytest.raises(Refusal, match="more than 20 s to decode together") as refused:
            decoders.decode(file, allowance=allowance)
        assert refused.value.status == 422
        assert decoders.decode(file).size == (24, 16)
    finally:
        decoders.close()


def test_request_whose_files_take_too_long_is_refused_and_gives_its_places_back() -> None:
    written = BytesIO()
    Image.effect_noise((500, 500), 90).convert("RGB").save(written, "PNG")
    data = [base64.b64encode(written.getvalue()).decode()] * 3
    image = {"name": "image", "datatype": "BYTES", "shape": [3], "data": data}
    with asking(request_decode_seconds=0.001) as client:
        response = client.post("/v2/models/shades/infer", json={"inputs": [image]})
        assert response.status_code == 422 and response.json()["error"].startswith("image ")
        assert client.get("/metrics").text.count('snellen_queue_images{model="shades"} 0.0') == 1


def test_process_ends_with_its_status_while_a_model_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model, statuses = Shades(), list[int]()
    monkeypatch.setattr("os._exit", statuses.append)
    with batching(model) as batcher:
        held(model, batcher)
        batcher.close(0)
        with pytest.raises(SystemExit):
            leave(7)
        assert statuses == [7]
        assert isinstance(model.gate, threading.Event)
        model.gate.set()
        batcher.close()
        with pytest.raises(SystemExit) as ended:
            leave(8)
        assert (statuses, ended.value.code) == ([7], 8)


def test_future_of_a_cancelled_image_does_not_stop_a_thread() -> None:
    model = Shades()
    with batching(model) as batcher:
        held(model, batcher)
        gone: list[Future[Any]] = [batcher.submit(seen(red)) for red in range(4)]
        assert all(future.cancel() for future in gone)
        assert isinstance(model.gate, threading.Event)
        model.gate.set()
        assert batcher.submit(seen(9)).result(LATE) is not None
    assert batcher.taken_in == 0 and model.asked == [250, 9]


def test_large_images_are_answered_one_at_a_time_and_small_ones_beside_them() -> None:
    inside, most, both = [0], [0], threading.Barrier(2)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if images.shape[1] < 100:
            both.wait(LATE)  # two are inside
        else:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threading.Event().wait(0.01)
            inside[0] -= 1
        return {"probabilities": np.full((len(images), 3), 1 / 3, np.float32), "label": np.zeros(len(images), int)}

    answering = ArtifactAnswering(about(a_model("classification")), run, streams=2)
    large, small = (answering.prepare(np.zeros((side, side, 3), np.uint8), (side, side)) for side in (2001, 8))
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda one: answering.decide([one]), [large] * 6):
            pass
        for _ in pool.map(lambda one: answering.decide([one]), [small] * 2):
            pass
    assert most == [1]
