"""Features of the frozen backbone are computed once, and anew when anything they follow from has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shapes import save_folders
from snellen.data.image_sets import ImageSet
from snellen.train import features as feature_cache
from snellen.train.probe import refit, run_probe
from snellen.train.session import Session
from tiny_runs import SETTINGS, SIDE, fresh, said, start

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Data that tests share; they take a fresh trainer each, with ``fresh``."""
    folder = tmp_path_factory.mktemp("session")
    return start(save_folders(folder / "data", per_class=14, side=SIDE), folder, **SETTINGS)


def features_of(session: Session, computed: list[int]) -> Tensor:
    """What the backbone returns."""
    found = stages_of(session, computed)
    return found[max(found)]


def stages_of(session: Session, computed: list[int]) -> feature_cache.Features:
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

    def counting(model: nn.Module, images: ImageSet, *rest: Any) -> feature_cache.Features:
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


@pytest.mark.parametrize("changed", [{"activation": "tanh"}, {"norm": "group"}])
def test_another_network_of_the_same_weights_has_other_features(
    images: Session, tmp_path: Path, computed: list[int], changed: dict[str, Any]
) -> None:
    session = replace(images, model=fresh(images).model.eval(), cache=tmp_path)
    features_of(session, computed)
    features_of(replace(session, plan=replace(session.plan, **changed)), computed)
    assert len(computed) == 2


def test_features_follow_the_images_and_not_their_order(images: Session, tmp_path: Path, computed: list[int]) -> None:
    session = replace(images, model=fresh(images).model.eval(), cache=tmp_path)
    side = session.sides["val"]
    turned = ImageSet(records=side.records[::-1], targets=side.targets[::-1], store=side.store)
    first = features_of(session, computed)
    second = features_of(replace(session, sides={**session.sides, "val": turned}), computed)
    assert len(computed) == 1  # folds of one data set see its images in different orders
    assert torch.equal(first, second.flip(0))


def test_one_pass_gives_the_stages_that_are_watched_and_what_the_network_itself_sees(
    images: Session, tmp_path: Path, computed: list[int]
) -> None:
    session = replace(images, model=fresh(images).model.eval(), cache=tmp_path)
    first, again = stages_of(session, computed), stages_of(session, computed)
    assert len(computed) == 1 and list(first) == list(again) == feature_cache.watched_stages(session.model.backbone)
    assert all(torch.equal(first[stage], again[stage]) for stage in first)
    side = session.sides["val"]
    pixels = torch.stack([torch.from_numpy(side.store.prepared(record)) for record in side.records]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(first[max(first)], session.model.features(pixels))  # type: ignore[operator]


def test_a_probe_is_fitted_anew_on_the_features_that_it_has(images: Session, tmp_path: Path) -> None:
    session = replace(images, model=fresh(images).model, cache=tmp_path)
    session.plan = replace(session.plan, probe="features")
    parts = (session.model, session.task, session.sides, session.hashes, session.plan, tmp_path, session.console)
    probe = run_probe(*parts)
    assert probe is not None and probe.features.keys() == probe.predictions.keys() == session.sides.keys()
    assert torch.equal(probe.features["train"], probe.stages[max(probe.stages)]["train"])
    same = refit(probe, session.task, session.sides, session.plan)
    assert all(torch.equal(same.head[name], probe.head[name]) for name in probe.head)
    weighted = refit(probe, session.task, session.sides, replace(session.plan, class_weights=(5.0, 1.0, 1.0)))
    assert not torch.equal(weighted.head["head.weight"], probe.head["head.weight"])
    assert weighted.features is probe.features and weighted.stages is probe.stages
