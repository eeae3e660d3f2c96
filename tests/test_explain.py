"""Maps of what an answer hangs on: they are where they should be, follow the model, and say when they say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explain_cases import CELL, MarkFinder, marked_model, middle, photograph, save_turned
from snellen.core.errors import ConfigError, DataError
from snellen.core.preprocessing import Fit
from snellen.data.image import read_image
from snellen.explain.asked import asked_of
from snellen.explain.deletion import deletion_of
from snellen.explain.explanation import Explanation
from snellen.explain.grad_cam import grad_cam_of
from snellen.explain.occlusion import Patch, num_places, occlusion_of
from snellen.explain.scene import MOST_SIDE, scaled
from snellen.explain.trials import Trials
from snellen.nn.network import Network
from snellen.nn.plain import CNN, MLP
from snellen.predict.answering import NetworkAnswering
from snellen.tasks.base import create_task
from snellen.tasks.detection.target import Boxes
from snellen.tasks.loading import LoadedModel
from snellen.tasks.segmentation.target import ClassMap

FITS: tuple[Fit, ...] = ("squash", "center crop", "letterbox")
MARK = (32, 8, 40, 16)  # off the middle, where any fit sees it


def explained(how: str, model: LoadedModel, pixels: np.ndarray, **asked: object) -> list[Explanation]:
    if how == "grad-cam":
        return grad_cam_of(model, pixels, **asked)  # type: ignore[arg-type]
    return occlusion_of(NetworkAnswering(model), pixels, patch=Patch(fill="grey"), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["grad-cam", "occlusion"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", [1, 2, 7])
def test_a_map_is_hottest_at_the_mark_that_the_answer_hangs_on(
    how: str, fit: Fit, orientation: int, tmp_path: Path
) -> None:
    save_turned(tmp_path / "turned.png", photograph(MARK), orientation)
    header, pixels = read_image(tmp_path / "turned.png")
    [told] = explained(how, marked_model(fit), pixels, of="mark", size=(header.width, header.height))
    assert told.heat is not None
    assert told.heat.shape == pixels.shape[:2]
    assert told.heat.max() == 1
    assert told.heat.min() == 0
    found, true = middle(told.heat > 0.9), middle(pixels[..., 0] > 200)
    assert np.abs(np.subtract(found, true)).max() <= 1.5 * CELL
    assert told.deletion is not None
    assert told.deletion.telling
    assert told.deletion.after < told.deletion.elsewhere


@pytest.mark.parametrize("how", ["grad-cam", "occlusion"])
@pytest.mark.parametrize("fit", FITS)
def test_the_map_of_an_image_with_nothing_relevant_is_flat_and_says_so(how: str, fit: Fit) -> None:
    [told] = explained(how, marked_model(fit), photograph(None), of="mark")
    assert told.heat is not None
    assert told.heat.max() < 0.05
    assert told.deletion is not None
    assert not told.deletion.telling


@pytest.mark.parametrize("how", ["grad-cam", "occlusion"])
def test_what_a_centre_crop_does_not_see_is_cold_and_told(how: str) -> None:
    pixels = photograph((0, 14, 6, 30))
    [told] = explained(how, marked_model("center crop"), pixels, of="mark")
    assert told.heat is not None
    assert told.seen is not None
    x0, y0, x1, y1 = told.seen
    assert (x1 - x0, y1 - y0) == pytest.approx((0.875 * 44, 0.875 * 44), abs=1)
    outside = told.heat.copy()
    outside[y0:y1, x0:x1] = 0
    assert outside.max() == 0


def test_grad_cam_of_pooled_features_is_the_class_activation_map() -> None:
    """Selvaraju et al. 2017, section 3: with a linear head on averages it is that of Zhou et al. 2016."""
    model = _random_model(CNN((8, 12), "batch", "relu"))
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    [told] = grad_cam_of(model, pixels, of="mark", check=False)
    network = model.network
    assert isinstance(network, Network)
    with torch.no_grad():
        maps = network.backbone.get_submodule("layers")(
            network.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        )
        cells = torch.einsum("k,khw->hw", network.head.weight[1], maps[0]).clamp_min(0)
        wide = nn.functional.interpolate(cells[None, None], (32, 32), mode="bilinear")[0, 0]
    np.testing.assert_allclose(told.heat, wide / wide.max(), atol=1e-4)


def test_the_map_follows_the_weights_of_the_head() -> None:
    """A sanity check of Adebayo et al. 2018: a map that survived another head would be of the image alone."""
    model = _random_model(CNN((8, 12), "batch", "tanh"))
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    network = model.network
    assert isinstance(network, Network)
    heats = []
    for seed in range(6):
        torch.manual_seed(seed)
        nn.init.normal_(network.head.weight)
        [told] = grad_cam_of(model, pixels, of="mark", check=False)
        assert told.heat is not None
        heats += [told.heat.ravel()] if told.heat.any() else []  # where all speaks against the class it is flat
    assert len(heats) > 2
    alike = np.corrcoef(heats)[np.triu_indices(len(heats), 1)]
    assert alike.mean() < 0.4
    assert alike.max() < 0.95


def test_the_check_tells_a_map_of_the_mark_from_a_map_of_something_else() -> None:
    trials = Trials(NetworkAnswering(marked_model()), photograph(MARK), (60, 44))
    [asked] = trials.asked("mark")
    right, wrong = np.zeros((44, 60), np.float32), np.zeros((44, 60), np.float32)
    right[8:16, 32:40] = 1
    wrong[30:38, 4:12] = 1
    assert deletion_of(trials, right, asked).telling
    told = deletion_of(trials, wrong, asked)
    assert not told.telling
    assert "no more than chance" in str(told)


def test_each_present_label_has_a_map_of_its_own() -> None:
    def both(head: nn.Linear) -> None:
        head.weight.copy_(500 * torch.eye(2))
        head.bias.fill_(-1)

    model = marked_model(task="multilabel", classes=("red", "blue"), head=both)
    pixels = photograph(MARK)
    pixels[28:38, 10:20] = (0, 0, 250)
    told = {each.of: each.heat for each in grad_cam_of(model, pixels, check=False)}
    assert list(told) == ["red", "blue"]
    assert told["red"] is not None
    assert told["blue"] is not None
    assert told["red"][12, 36] > 0.5 > 0.1 > told["red"][33, 15]
    assert told["blue"][33, 15] > 0.5 > 0.1 > told["blue"][12, 36]


@pytest.mark.parametrize("how", ["grad-cam", "occlusion"])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_lowers_a_number_is_as_hot_as_what_raises_it(how: str, sign: int) -> None:
    def signed(head: nn.Linear) -> None:
        head.weight[-1, 0] = sign * 100.0

    model = marked_model(task="regression", classes=("redness",), head=signed)
    [told] = explained(how, model, photograph(MARK))
    assert told.heat is not None
    assert np.abs(np.subtract(middle(told.heat > 0.9), (36, 12))).max() <= 1.5 * CELL


class _WithTokens(MarkFinder):
    """The same as a transformer has it: a class token before those of the places, and at last it alone is read."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block() for _ in range(3)), _Read())

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.act(self.look(images)).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([tokens.new_zeros(len(tokens), 1, 2), tokens], 1))[:, 0]


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.mix.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix(tokens)


class _Read(_Block):
    def forward(self, tokens: Tensor) -> Tensor:
        read = self.mix(tokens[:, 1:].mean(1, keepdim=True))
        return torch.cat([read, tokens[:, 1:]], 1)


class _ChannelsLast(MarkFinder):
    output_fmt = "NHWC"

    def __init__(self) -> None:
        super().__init__()
        self.act = _LastRelu()

    def pooled(self, maps: Tensor) -> Tensor:
        return maps.mean((1, 2))


class _LastRelu(nn.ReLU):
    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps).permute(0, 2, 3, 1)


@pytest.mark.parametrize("backbone", [_WithTokens, _ChannelsLast])
def test_tokens_and_channels_last_are_put_back_into_places(backbone: type[nn.Module]) -> None:
    [told] = grad_cam_of(marked_model(backbone=backbone()), photograph(MARK), of="mark", check=False)
    assert told.heat is not None
    assert np.abs(np.subtract(middle(told.heat > 0.9), (36, 12))).max() <= 1.5 * CELL


def test_a_network_without_maps_names_occlusion_which_does_without() -> None:
    model = _random_model(MLP(32, (4,), "none", "relu", 0.0))
    with pytest.raises(ConfigError, match="how = 'occlusion'"):
        grad_cam_of(model, photograph(MARK))
    [told] = occlusion_of(NetworkAnswering(model), photograph(MARK), of="mark", check=False)
    assert told.heat is not None
    assert told.heat.shape == (44, 60)


def test_objects_are_scored_by_what_is_left_of_them() -> None:
    task = create_task("detection", ("cell", "blob"), (0.5, 0.5))
    boxes = np.array([(0, 0, 10, 10), (20, 20, 30, 30), (0, 0, 4, 4)], np.float32)
    seen = Boxes.predicted((40, 40), boxes, np.array([0, 0, 1]), np.array([0.9, 0.7, 0.2], np.float32))
    [asked] = asked_of(task, seen)
    assert (asked.name, asked.score(seen)) == ("cell", pytest.approx(0.8))
    moved = Boxes.predicted((40, 40), boxes[:1] + 5, np.array([0]), np.array([0.9], np.float32))
    assert asked.score(moved) == pytest.approx((0.9 * 25 / 175 + 0.9 * 0) / 2, abs=1e-4)
    assert asked.score(Boxes.empty((40, 40))) == 0
    with pytest.raises(DataError, match="no object of blob"):
        asked_of(task, seen, "blob")


def test_pixels_are_scored_by_what_keeps_its_class_and_how_surely() -> None:
    task = create_task("segmentation", ("background", "road", "tree"))
    classes = np.zeros((4, 5), np.uint8)
    classes[:2] = 1
    seen = ClassMap.from_array(classes, np.array([0.9, 0.8, 0], np.float32))
    [asked] = asked_of(task, seen)
    assert (asked.name, asked.score(seen)) == ("road", pytest.approx(0.8))
    classes[0] = 2
    assert asked.score(ClassMap.from_array(classes, np.array([0.9, 0.6, 0.5], np.float32))) == pytest.approx(0.3)
    with pytest.raises(DataError, match=r"no pixel of tree here, .*background, road"):
        asked_of(task, seen, "tree")


def test_an_unknown_class_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mark'"):
        grad_cam_of(marked_model(), photograph(MARK), of="marc")


def test_the_cost_of_an_occlusion_is_told_before_and_kept() -> None:
    answering = _Counting(marked_model("letterbox"))
    pixels, patch = photograph(MARK), Patch(side=12, stride=5)
    [told] = occlusion_of(answering, pixels, of="mark", patch=patch, check=False)
    explanation_frame = NetworkAnswering(marked_model("letterbox")).prepare(pixels, (60, 44)).frame
    assert answering.asked == num_places(explanation_frame, patch) + 2  # and twice the image as it is
    assert told.peak is not None
    assert told.peak > 0


@pytest.mark.parametrize("bad", [{"side": 0}, {"stride": 0}, {"side": 4, "stride": 5}])
def test_a_patch_that_would_miss_parts_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="give"):
        Patch(**bad)


def test_the_map_of_a_large_photograph_is_reduced_and_says_of_what() -> None:
    pixels = photograph((400, 100, 900, 600), (2000, 1200))
    [told] = grad_cam_of(marked_model(), pixels, of="mark", check=False)
    assert told.heat is not None
    assert told.heat.shape == (round(1200 * MOST_SIDE / 2000), MOST_SIDE)
    assert told.size == (2000, 1200)
    assert told.to_json()["heat_size"] == [1024, 614]


def test_next_to_nothing_does_not_glow() -> None:
    heat, peak = scaled(np.array([[1e-5, -1.0, np.nan]]), 0.1)
    assert peak == 0.1
    np.testing.assert_allclose(heat, [[1e-4, 0, 0]], rtol=1e-5)


class _Counting(NetworkAnswering):
    asked = 0

    def decide(self, seen):  # type: ignore[no-untyped-def]
        self.asked += len(seen)
        return super().decide(seen)


def _random_model(backbone: nn.Module) -> LoadedModel:
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.3)

    def random(head: nn.Linear) -> None:
        nn.init.normal_(head.weight)

    return marked_model(backbone=backbone, head=random)
