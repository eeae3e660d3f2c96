"""The one-stage detector: its geometry by hand, its losses at their ends, and that it learns to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET
from snellen.nn.detection.boxes import iou
from snellen.nn.detection.dense import LOSS_WEIGHTS, Branch, DenseDetector, Raw, cells, decode
from snellen.nn.detection.neck import FeaturePyramid, Neck
from snellen.nn.detection.nms import select
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone, create_map_backbone
from snellen.nn.folding import for_inference

torch.set_num_threads(1)

CLASSES = ("rectangle", "circle")
PREPROCESSING = Preprocessing(input_size=(64, 64), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
OBJECTS = Truth.of_boxes(torch.tensor([[34.0, 4, 60, 18], [6, 28, 30, 62]]), torch.tensor([0, 1]))


class Tinted(MapBackbone):
    """Maps of mere means over 4, 8 and 16 pixels: a backbone for tests that are not about seeing."""

    channels = (3, 3, 3)
    reductions = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.gain * nn.functional.avg_pool2d(images, side) for side in self.reductions]


def _detector(model: str | None = None, side: int = 64, **settings: object) -> DenseDetector:
    torch.manual_seed(0)
    backbone = create_map_backbone(model, input_size=(side, side)) if model else Tinted()
    return DenseDetector(PREPROCESSING, backbone, 2, width=16, **settings)  # type: ignore[arg-type]


def _images(count: int = 1, side: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def _raw(truth: Truth, strides: Sequence[int] = (4, 8, 16), side: int = 64) -> Raw:
    """What a perfect detector would say of one image: distances to the sides, and no doubt where a centre is within."""
    levels = [torch.zeros(1, 1, side // stride, side // stride) for stride in strides]
    where = cells(levels, strides)
    box, score = torch.zeros(1, len(where.strides), 4), torch.full((1, len(where.strides), 2), -20.0)
    for i, ((x, y), stride) in enumerate(zip(where.centres.tolist(), where.strides.tolist(), strict=True)):
        for (x0, y0, x1, y1), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
            if x0 < x < x1 and y0 < y < y1:
                box[0, i] = (torch.tensor([x - x0, y - y0, x1 - x, y1 - y]) / stride).log()
                score[0, i, label] = 20.0
    return Raw({"score": score, "box": box}, levels, where)


# --- geometry


def test_cells_are_where_the_pixels_are() -> None:
    """An image of 16 x 8 (width x height): centres are half a cell in; rows come one after the other."""
    where = cells([torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 1, 2)], (4, 8))
    first = [(2, 2), (6, 2), (10, 2), (14, 2), (2, 6), (6, 6), (10, 6), (14, 6)]
    assert [tuple(centre) for centre in where.centres.tolist()] == [*first, (4, 4), (12, 4)]
    assert where.strides.tolist() == [4.0] * 8 + [8.0] * 2


def test_boxes_are_decoded_by_hand() -> None:
    """1 stride to the left, 2 up, 1/2 to the right, 3 down, from (6, 2) with 4 pixels and from (12, 4) with 8."""
    where = cells([torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 1, 2)], (4, 8))
    raw = torch.tensor([1.0, 2, 0.5, 3]).log().expand(1, 10, 4)
    boxes = decode(raw, where)[0]
    torch.testing.assert_close(boxes[1], torch.tensor([2.0, -6, 8, 14]))
    torch.testing.assert_close(boxes[9], torch.tensor([4.0, -12, 16, 28]))


def test_distributions_are_decoded_to_their_expectations() -> None:
    """Distances of 1, 2, 1 1/2 and 3 strides, from (6, 2) with 4 pixels."""
    where = cells([torch.zeros(1, 1, 2, 4)], (4,))
    chances = torch.zeros(4, 17)
    chances[0, 1] = chances[1, 2] = chances[3, 3] = 1
    chances[2, 1] = chances[2, 2] = 0.5
    boxes = decode(chances.log().clamp_min(-50).flatten().expand(1, 8, 68), where)[0]
    torch.testing.assert_close(boxes[1], torch.tensor([2.0, -6, 12, 14]))


def test_a_branch_answers_in_the_order_of_the_cells() -> None:
    """A map that holds the x of each centre, read by a branch that repeats it."""
    branch = Branch(1, 1, 2, depth=0)
    nn.init.ones_(branch.predict.weight)
    where = cells([torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 1, 2)], (4, 8))
    levels = [where.centres[:8, 0].reshape(1, 1, 2, 4), where.centres[8:, 0].reshape(1, 1, 1, 2)]
    assert torch.equal(branch(levels)[0, :, 0], where.centres[:, 0])


def test_a_perfect_answer_is_the_truth_and_costs_nothing() -> None:
    detector, raw = _detector(), _raw(Truth.of_boxes(OBJECTS.boxes[:1] / 2, OBJECTS.labels[:1]))
    truth = Truth.of_boxes(OBJECTS.boxes[:1] / 2, OBJECTS.labels[:1])
    terms = detector.terms(raw, [truth])
    assert float(terms["box"]) == pytest.approx(0, abs=1e-4)
    assert float(terms["class"]) == pytest.approx(0, abs=1e-4)
    found = select(detector.candidates(raw)[0], threshold=0.5)
    torch.testing.assert_close(found.boxes, truth.boxes, rtol=0, atol=1e-3)
    assert found.labels.tolist() == [0] and found.scores.tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("fault", ("no half pixel", "no stride", "rows for columns"))
def test_a_fault_in_the_geometry_would_be_seen(fault: str) -> None:
    raw = _raw(OBJECTS)
    where = raw.cells
    broken = {
        "no half pixel": replace(where, centres=where.centres - where.strides[:, None] / 2),
        "no stride": replace(where, strides=torch.ones_like(where.strides)),
        "rows for columns": replace(where, centres=where.centres.flip(1)),
    }[fault]
    detector = _detector()
    healthy, faulty = (float(detector.terms(each, [OBJECTS])["box"]) for each in (raw, replace(raw, cells=broken)))
    assert healthy == pytest.approx(0, abs=1e-4) and faulty > 0.1


@pytest.mark.parametrize("distribution", (0.0, 0.25))
def test_at_the_start_boxes_are_four_strides_wide_and_scores_low(distribution: float) -> None:
    with torch.no_grad():
        candidates = _detector(loss_weights={"distribution": distribution}).eval()(_images())[0]
    where = _raw(OBJECTS).cells
    torch.testing.assert_close(candidates[:, 2] - candidates[:, 0], 4 * where.strides, rtol=0.3, atol=0)
    assert 0.003 < float(candidates[:, 4:].min()) and float(candidates[:, 4:].max()) < 0.03


# --- the pyramid


def test_levels_are_strides_8_16_32_or_the_last_three() -> None:
    for reductions, strides in (
        ((2, 4, 8, 16, 32), (8, 16, 32)),
        ((4, 8, 16, 32), (8, 16, 32)),
        ((1, 2, 4, 8, 16), (4, 8, 16)),
        ((8, 16), (8, 16)),
        ((16, 16, 16), (8, 16, 32)),
        ((14, 14, 14), (7, 14, 28)),
    ):
        neck = FeaturePyramid([6] * len(reductions), reductions, 4)
        side = 2 * max(strides)
        levels = neck([torch.rand(2, 6, side // each, side // each) for each in reductions])
        assert neck.strides == strides and neck.multiple == max(strides)
        assert [tuple(level.shape) for level in levels] == [(2, 4, side // each, side // each) for each in strides]


@pytest.mark.parametrize(("kind", "upwards"), (("pan", True), ("fpn", False)))
def test_every_level_sees_the_coarser_ones_and_with_pan_the_finer(kind: Neck, upwards: bool) -> None:
    neck = FeaturePyramid((3, 3, 3), (8, 16, 32), 4, kind).eval()
    maps = [torch.rand(1, 3, side, side, requires_grad=True) for side in (8, 4, 2)]
    levels = neck(maps)
    to_fine = torch.autograd.grad(levels[0].sum(), maps[2], retain_graph=True)[0]
    to_coarse = torch.autograd.grad(levels[2].sum(), maps[0], allow_unused=True)[0]
    assert bool(to_fine.abs().sum() > 0)
    assert (to_coarse is not None and bool(to_coarse.abs().sum() > 0)) == upwards


def test_a_pyramid_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="1/4, 1/16"):
        FeaturePyramid((3, 3), (4, 16), 4)
    with pytest.raises(ConfigError, match="neck = 'bifpn'"):
        FeaturePyramid((3, 3), (8, 16), 4, "bifpn")  # type: ignore[arg-type]


def test_a_size_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError, match="multiples of 16, not 60 x 70 pixels: use 64 x 64"):
        _detector()(torch.zeros(1, 3, 70, 60))


@pytest.mark.parametrize(("height", "width"), ((32, 64), (96, 48), (16, 32)))
def test_images_of_any_fitting_size_are_taken(height: int, width: int) -> None:
    candidates = _detector().eval()(torch.zeros(2, 3, height, width))
    assert candidates.shape == (2, height * width * (16 + 4 + 1) // 256, 6) and candidates.dtype == torch.float32


# --- losses


def test_an_image_without_objects_teaches_background_alone() -> None:
    detector = _detector()
    losses = detector.losses(_images(2), [Truth.empty(), Truth.empty()])
    assert float(losses["box"].detach()) == 0.0 and float(losses["class"].detach()) > 0
    (losses["box"] + losses["class"]).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    assert float(detector.head.branches["score"].predict.weight.grad.abs().sum()) > 0
    assert float(detector.head.branches["box"].predict.weight.grad.abs().sum()) == 0


def test_every_parameter_is_learnt() -> None:
    """At the second step: residual branches of the backbone begin as zero, so that at the first some have no slope."""
    detector = _detector(SMALL_RESNET)
    large = Truth.of_boxes(torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([0]))  # for the coarsest level
    optimizer = torch.optim.SGD(detector.parameters(), 0.01)
    for _ in range(2):
        optimizer.step()
        optimizer.zero_grad()
        torch.stack(list(detector.losses(_images(2), [OBJECTS, large]).values())).sum().backward()
    still = [name for name, p in detector.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert still == []


def test_what_is_said_within_a_crowd_costs_nothing() -> None:
    detector, raw = _detector(), _raw(OBJECTS)
    crowd = Truth(torch.tensor([[0.0, 0, 28, 64]]), torch.tensor([0]), torch.tensor([True]))
    empty = _raw(Truth.empty())
    loud = {**empty.outputs, "score": empty.outputs["score"].clone()}
    loud["score"][:, raw.cells.centres[:, 0] < 28] = 20.0
    assert float(detector.terms(replace(empty, outputs=loud), [crowd])["class"]) == pytest.approx(0, abs=1e-4)
    assert float(detector.terms(replace(empty, outputs=loud), [Truth.empty()])["class"]) > 1


def test_losses_are_finite_however_far_off_the_answers_are() -> None:
    detector = _detector()
    for value in (-1e4, -60.0, 60.0, 1e4):
        raw = _raw(OBJECTS)
        outputs = {name: torch.full_like(said, value).requires_grad_() for name, said in raw.outputs.items()}
        terms = torch.stack(list(detector.terms(replace(raw, outputs=outputs), [OBJECTS]).values()))
        slopes = torch.autograd.grad(terms.sum(), list(outputs.values()))
        assert bool(terms.isfinite().all()) and all(bool(slope.isfinite().all()) for slope in slopes), value


def test_losses_are_float32_and_hardly_change_in_bf16() -> None:
    detector = _detector().eval()
    plain = detector.losses(_images(), [OBJECTS])
    with torch.autocast("cpu", torch.bfloat16):
        rough = detector.losses(_images(), [OBJECTS])
        assert detector(_images()).dtype == torch.float32
    for name, term in plain.items():
        assert rough[name].dtype == torch.float32
        assert float(rough[name].detach()) == pytest.approx(float(term.detach()), rel=0.05), name


def test_terms_are_weighted_as_asked() -> None:
    raw = _raw(Truth.of_boxes(OBJECTS.boxes + 3, OBJECTS.labels))
    usual, other = (_detector(loss_weights=w).terms(raw, [OBJECTS]) for w in (LOSS_WEIGHTS, {"class": 3.0}))
    assert float(other["class"]) == pytest.approx(3 * float(usual["class"]))
    assert float(other["box"]) == pytest.approx(float(usual["box"]))


def test_distributions_of_distances_are_learnt_where_their_term_counts() -> None:
    detector = _detector(loss_weights={"distribution": 0.25})
    optimizer = torch.optim.Adam(detector.parameters(), 1e-2)
    told = []
    for _ in range(25):
        terms = detector.losses(_images(), [OBJECTS])
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        told.append({name: float(term.detach()) for name, term in terms.items()})
    assert set(told[0]) == {"class", "box", "distribution"}
    assert told[-1]["distribution"] < 0.7 * told[0]["distribution"] and told[-1]["box"] < 0.7 * told[0]["box"]
    nothing = detector.losses(_images(), [Truth.empty()])
    assert float(nothing["distribution"].detach()) == 0.0 and nothing["distribution"].requires_grad


def test_unknown_losses_are_refused_by_name() -> None:
    for settings in ({"box_loss": "gio"}, {"score_loss": "focl"}, {"loss_weights": {"boxes": 1.0}}):
        with pytest.raises(ConfigError, match=r"no loss '\w+'; did you mean"):
            _detector(**settings)


# --- as a network


def test_a_batch_answers_as_its_images_do_alone() -> None:
    detector, images = _detector().eval(), _images(3)
    with torch.no_grad():
        together, alone = detector(images), torch.cat([detector(image[None]) for image in images])
    torch.testing.assert_close(together, alone)


def test_assessing_is_losses_and_answers_in_one() -> None:
    detector, images, truths = _detector().eval(), _images(2), [OBJECTS, Truth.empty()]
    terms, candidates = detector.assess(images, truths)
    torch.testing.assert_close(candidates, detector(images).detach())
    for name, term in detector.losses(images, truths).items():
        torch.testing.assert_close(terms[name], term.detach())
        assert not terms[name].requires_grad


def test_a_batch_of_one_can_be_learnt_from() -> None:
    losses = _detector(SMALL_RESNET).losses(_images(1), [OBJECTS])
    assert all(bool(term.isfinite()) for term in losses.values())


def test_a_folded_backbone_gives_the_same_candidates() -> None:
    detector = _detector(EMBEDDED_MODEL).eval()
    with torch.no_grad():
        torch.testing.assert_close(for_inference(detector)(_images()), detector(_images()), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_the_detector_exports_for_any_batch() -> None:
    detector = _detector().eval()
    exported = torch.export.export(detector, (_images(2),), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for count in (1, 3):
        torch.testing.assert_close(exported(_images(count)), detector(_images(count)))


# --- learning


def _scene(rng: np.random.Generator, side: int = 32) -> tuple[Tensor, Truth]:
    """Up to three rectangles and circles that do not touch, on noise."""
    image = rng.integers(0, 100, (3, side, side)).astype(np.float32)
    boxes: list[list[int]] = []
    labels: list[int] = []
    for _ in range(int(rng.integers(0, 4))):
        width, height = (int(each) for each in rng.integers(8, 18, 2))
        x, y = int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))
        if any(x < b[2] and b[0] < x + width and y < b[3] and b[1] < y + height for b in boxes):
            continue
        label = int(rng.integers(0, 2))
        across, down = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
        inside = across**2 + down**2 <= 1 if label else np.ones((height, width), bool)
        colour = rng.integers(150, 256, 3) * np.array((1.0, 0.4, 1.0) if label else (0.4, 1.0, 1.0))
        image[:, y : y + height, x : x + width][:, inside] = colour[:, None]
        boxes.append([x, y, x + width, y + height])
        labels.append(label)
    truth = Truth.of_boxes(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64)
    )
    return torch.from_numpy(image), truth


def _average_precision(found: Sequence[tuple[float, bool]], count: int) -> float:
    """The area under the precision that is left at each recall."""
    hits = np.cumsum([hit for _, hit in sorted(found, key=lambda each: -each[0])])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.diff(hits, prepend=0) @ precision / count)


def _ap50(detector: DenseDetector, scenes: Sequence[tuple[Tensor, Truth]]) -> float:
    """Mean over the classes; each object is found by the best detection that overlaps it by half."""
    found: dict[int, list[tuple[float, bool]]] = {label: [] for label in range(len(CLASSES))}
    with torch.no_grad():
        for image, truth in scenes:
            left = set(range(len(truth)))
            chosen = select(detector(image[None])[0], threshold=0.02)
            for box, score, label in zip(chosen.boxes, chosen.scores.tolist(), chosen.labels.tolist(), strict=True):
                mine = [k for k in left if int(truth.labels[k]) == label and float(iou(box, truth.boxes[k])) >= 0.5]
                found[label].append((score, bool(mine)))
                left -= set(mine[:1])
    counts = torch.cat([truth.labels for _, truth in scenes]).bincount(minlength=len(CLASSES)).tolist()
    return float(np.mean([_average_precision(found[label], counts[label]) for label in found]))


def test_it_learns_to_find_shapes() -> None:
    rng = np.random.default_rng(0)
    scenes, unseen = [_scene(rng) for _ in range(96)], [_scene(rng) for _ in range(40)]
    detector = _detector(SMALL_RESNET, 32)
    optimizer = torch.optim.Adam(detector.parameters())
    before = _ap50(detector.eval(), unseen)
    detector.train()
    steps = 80
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1.0, (step + 1) / 10, 2 * (1 - step / steps))
        batch = [scenes[i] for i in rng.integers(0, len(scenes), 8)]
        losses = detector.losses(torch.stack([image for image, _ in batch]), [truth for _, truth in batch])
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    after = _ap50(detector.eval(), unseen)
    assert before < 0.2 and after > 0.85, (before, after)
