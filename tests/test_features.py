"""Features of the frozen backbone are computed once, and anew when anything they follow from has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shapes import save_folders
from snellen.data.loader import ImageSet
from snellen.train import features as feature_cache
from snellen.train.session import Session
from tiny_runs import SETTINGS, SIDE, fresh, said, start

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Data that tests share; they take a fresh trainer each, with ``fresh``."""
    folder = tmp_path_factory.mktemp("session")
    return start(save_folders(folder / "data", per_class=14, side=SIDE), folder, **SETTINGS)


def features_of(session: Session, computed: list[int]) -> Tensor:
    side = session.sides["val"]
    hashes = [session.hashes[record.id] for record in side.records]
    before = len(computed)
    found = feature_cache.frozen_features(session.model, side, hashes, session.plan, session.cache, session.console)
    assert len(computed) <= before + 1
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each computation of features."""
    calls: list[int] = []
    compute = feature_cache._compute

    def counting(model: nn.Module, images: ImageSet, *rest: Any) -> Tensor:
        calls.append(len(images))
        return compute(model, images, *rest)

    monkeypatch.setattr(feature_cache, "_compute", counting)
    return calls


def test_features_are_computed_once_for_the_same_files_and_weights(
    images: Session, tmp_path: Path, computed: list[int]
) -> None:
    session = replace(images, model=fresh(images).model, cache=tmp_path)
    first = features_of(session, computed)
    again = features_of(session, computed)
    assert len(computed) == 1 and torch.equal(first, again)
    assert "from the cache" in said(session)
    session.model.get_submodule("head").weight.data.zero_()  # type: ignore[union-attr, operator]
    features_of(session, computed)
    assert len(computed) == 1  # the head makes no features


@pytest.mark.parametrize("changed", ["a weight", "a statistic", "a file", "the preprocessing", "the arithmetic"])
def test_features_are_computed_anew_when_anything_they_follow_from_changed(
    changed: str, images: Session, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = replace(images, model=fresh(images).model, cache=tmp_path)
    features_of(session, computed)
    with torch.no_grad():
        if changed == "a weight":
            session.model.get_parameter("backbone.stem.0.weight")[0, 0, 0, 0] += 1e-3
        elif changed == "a statistic":
            session.model.get_buffer("backbone.stem.1.running_mean")[0] += 1e-3
    if changed == "a file":
        hashes = session.hashes
        other = {**hashes, session.sides["val"].records[0].id: "0" * 64}
        monkeypatch.setattr(Session, "hashes", property(lambda session: other))
    elif changed == "the preprocessing":
        session.plan = replace(session.plan, preprocessing=replace(session.plan.preprocessing, fit="center crop"))
    elif changed == "the arithmetic":
        session.plan = replace(session.plan, precision="bf16")
    features_of(session, computed)
    assert len(computed) == 2


def test_a_damaged_cache_of_features_is_computed_anew(images: Session, tmp_path: Path, computed: list[int]) -> None:
    session = replace(images, model=fresh(images).model, cache=tmp_path)
    first = features_of(session, computed)
    (file,) = (tmp_path / "features").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert torch.equal(features_of(session, computed), first) and len(computed) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(images: Session, tmp_path: Path, computed: list[int]) -> None:
    (tmp_path / "features").write_text("in the way")
    session = replace(images, model=fresh(images).model, cache=tmp_path)
    first = features_of(session, computed)
    assert torch.equal(first, features_of(session, computed)) and len(computed) == 2
    assert "features are not kept" in said(session)


def test_features_follow_the_images_and_not_their_order(images: Session, tmp_path: Path, computed: list[int]) -> None:
    session = replace(images, model=fresh(images).model.eval(), cache=tmp_path)
    side = session.sides["val"]
    turned = ImageSet(records=side.records[::-1], targets=side.targets[::-1], store=side.store)
    first = features_of(session, computed)
    second = features_of(replace(session, sides={**session.sides, "val": turned}), computed)
    assert len(computed) == 2
    torch.testing.assert_close(first, second.flip(0))
