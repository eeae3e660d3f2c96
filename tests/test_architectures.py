"""One contract for every network that has a name: it builds, gives its features, learns a step, and can be exported."""

from __future__ import annotations

import gc
import socket
import urllib.error
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from snellen.core.errors import ConfigError, WeightsError
from snellen.core.preprocessing import Preprocessing
from snellen.nn import hub
from snellen.nn.backbone import create_backbone, load_pretrained
from snellen.nn.catalog import ARCHITECTURES, EMBEDDED_MODEL, SMALL_RESNET, architecture, backbone_facts
from snellen.nn.network import Network

torch.set_num_threads(1)

PLAIN = ("logistic", "mlp:16,8", "cnn:8,16")
# Sides in pixels, of the smallest image that the network takes; 32 where it is not told.
SMALLEST = {"alexnet": 63, "inception": 75, SMALL_RESNET: 8, "logistic": 8, "mlp:16,8": 8, "cnn:8,16": 8}
SAME_LAYERS = {"vgg19": "vgg16", "resnet152": "resnet", "deit": "vit"}  # the second show what the first would
# Nine tenths of a VGG are in the layers between pooling and classifier: narrower ones learn and are exported alike.
NARROWER = {"vgg16": {"mlp_ratio": 1 / 64}}
# Known widths of the last layer before the classifier, from the papers' tables.
WIDTHS = {
    "alexnet": 4096,
    "vgg16": 4096,
    "vgg19": 4096,
    "googlenet": 1024,
    "inception": 2048,
    "resnet": 2048,
    "resnet18": 512,
    "resnet152": 2048,
    "densenet": 1024,
    "mobilenetv2": 1280,
    "efficientnet": 1280,
    "resnest": 2048,
    "vit": 384,
    "deit": 384,
    EMBEDDED_MODEL: 1280,
    SMALL_RESNET: 64,
    "logistic": 192,
    "mlp:16,8": 8,
    "cnn:8,16": 16,
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _network(name: str, side: int) -> Network:
    preprocessing = Preprocessing(
        input_size=(side, side), fit="squash", crop_fraction=1.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    return Network(preprocessing, create_backbone(name, input_size=side), 3)


def test_contract_covers_every_name() -> None:
    assert set(WIDTHS) == {*ARCHITECTURES, EMBEDDED_MODEL, SMALL_RESNET, *PLAIN}


@pytest.mark.parametrize("name", sorted(WIDTHS))
def test_network_gives_features_of_the_width_that_was_published(name: str) -> None:
    """Shapes alone are computed, of the network in its full size."""
    side = SMALLEST.get(name, 32)
    with torch.device("meta"):
        network = _network(name, side).eval()
        images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
        assert network.features(images).shape == (2, WIDTHS[name]) == (2, network.num_features)


@pytest.mark.parametrize(("name", "shown"), SAME_LAYERS.items())
def test_network_that_another_stands_for_has_the_layers_of_that(name: str, shown: str) -> None:
    with torch.device("meta"):
        one, other = ({type(layer) for layer in _network(each, 32).modules()} for each in (name, shown))
    assert one == other


@pytest.mark.parametrize("name", sorted(WIDTHS.keys() - SAME_LAYERS))
def test_network_gives_its_features_learns_a_step_and_is_exported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NARROWER:
        monkeypatch.setattr("timm.create_model", partial(timm.create_model, **NARROWER[name]))
    side = SMALLEST.get(name, 32)
    network = _network(name, side)
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    _is_exported(network, images)
    _learns_a_step(network, images)
    if name == "alexnet":
        del network
        gc.collect()  # an exported program keeps its quarter of a gigabyte in a ring


def _learns_a_step(network: Network, images: Tensor) -> None:
    """The loss is finite and its gradient reaches every parameter; the weights of the first layer and the head move.

    Between them a step may leave weights alone: blocks whose last gain starts at zero do nothing yet.
    """
    network.train()
    loss = F.cross_entropy(network(images), torch.tensor([0, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())
    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    ends = [weights[0], weights[-1]]
    before = [weight.detach().clone() for weight in ends]
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    assert not any(torch.equal(weight, old) for weight, old in zip(ends, before, strict=True))


def _is_exported(network: Network, images: Tensor) -> None:
    network.eval()
    with torch.no_grad():
        exported = torch.export.export(network, (images,)).module()
        torch.testing.assert_close(exported(images), network(images))


# --- names


def test_every_architecture_names_its_paper_and_its_year() -> None:
    for entry in ARCHITECTURES.values():
        assert "arXiv:" in entry.paper and 2012 <= entry.year <= 2020
        assert entry.paper.rpartition("arXiv:")[2].startswith(str(entry.year)[2:])


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("AlexNet", "alexnet"), ("resnett", "resnet"), ("mlp256", "mlp:256,128"), ("smal-resnet", SMALL_RESNET)],
)
def test_an_unknown_name_is_told_the_nearest_of_all(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"model = '{name}' is not known; did you mean '{nearest}'"):
        backbone_facts(name)


def test_an_unknown_tag_of_timm_is_told_the_known_ones() -> None:
    assert backbone_facts("resnet18.tv_in1k") is not None
    with pytest.raises(ConfigError, match=r"model = 'resnet18.tv_in1': .*did you mean 'tv_in1k'"):
        backbone_facts("resnet18.tv_in1")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_plain_name_means_what_the_catalogue_says(name: str) -> None:
    entry = ARCHITECTURES[name]
    facts = backbone_facts(name)
    assert facts is not None and facts.input_size in (224, 299)
    assert architecture(name) is entry
    assert entry.library == "torchvision" or facts == backbone_facts(entry.model)


@pytest.mark.parametrize("name", [name for name, entry in ARCHITECTURES.items() if entry.library == "torchvision"])
def test_facts_of_torchvisions_networks_are_torchvisions(name: str) -> None:
    from torchvision.models import get_model_weights

    facts, published = backbone_facts(name), get_model_weights(ARCHITECTURES[name].model).DEFAULT.transforms()
    assert facts is not None
    assert [facts.input_size] == published.crop_size
    assert facts.crop_fraction == published.crop_size[0] / published.resize_size[0]
    assert (list(facts.mean), list(facts.std)) == (list(published.mean), list(published.std))


def test_layers_between_pooling_and_classifier_are_part_of_the_backbone() -> None:
    """timm's own num_features is of what is pooled, 576 here."""
    assert create_backbone("mobilenetv3_small_050", input_size=32).num_features == 1024


def test_activations_called_as_functions_cannot_be_swapped_and_that_is_said() -> None:
    with pytest.raises(ConfigError, match="activation = 'silu' has nothing to act on: 'googlenet' calls"):
        create_backbone("googlenet", input_size=32, activation="silu")


# --- published weights, from files in place of the servers


def _publish(monkeypatch: pytest.MonkeyPatch, model: str, folder: Path, **settings: Any) -> nn.Module:
    """A network of timm with random weights, which timm then takes for its published ones."""
    create = timm.create_model
    published: nn.Module = create(model, num_classes=1000, **settings)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.normal_()
    save_file(published.state_dict(), folder / "published.safetensors")

    def from_file(name: str, **given: Any) -> Any:
        return create(name, pretrained_cfg_overlay={"file": str(folder / "published.safetensors")}, **given)

    monkeypatch.setattr(timm, "create_model", from_file)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address: [])
    return published


def test_weights_of_timm_load_into_a_network_with_other_norms_and_activations(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published = _publish(monkeypatch, "test_resnet", tmp_path).state_dict()
    swapped = create_backbone("test_resnet", input_size=64, norm="group", activation="prelu")
    assert "timm" in load_pretrained(swapped, "test_resnet", file=None, pretrained=True).source
    slopes = [name for name in swapped.state_dict() if name not in published]
    assert len(slopes) == sum(isinstance(layer, nn.PReLU) for layer in swapped.modules()) > 0
    for name, tensor in swapped.state_dict().items():
        assert name in slopes or torch.equal(tensor, published[name]), name


def test_weights_of_a_transformer_are_fitted_to_another_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = _publish(monkeypatch, "test_vit", tmp_path)
    smaller = create_backbone("test_vit", input_size=96)
    load_pretrained(smaller, "test_vit", file=None, pretrained=True)
    assert smaller.pos_embed.shape[1] == (96 // 16) ** 2 + 1 < published.pos_embed.shape[1]  # type: ignore[index]
    assert torch.equal(smaller.norm.weight, published.norm.weight)  # type: ignore[union-attr, arg-type]


def test_an_unreachable_hub_is_said_in_one_line_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def unknown(*address: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(
        WeightsError, match=r"cannot download the weights of 'test_resnet' \(.+\): use --weights"
    ) as caught:
        load_pretrained(create_backbone("test_resnet", input_size=64), "test_resnet", file=None, pretrained=True)
    assert "\n" not in str(caught.value)
    assert before == constants.HF_HUB_OFFLINE


def test_weights_of_torchvision_load_without_the_side_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import GoogLeNet_Weights, googlenet

    state = googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(GoogLeNet_Weights, "get_state_dict", lambda self, **settings: state)
    network = create_backbone("googlenet", input_size=32)
    provenance = load_pretrained(network, "googlenet", file=None, pretrained=True)
    assert "torchvision's GoogLeNet_Weights.IMAGENET1K_V1 (https://" in provenance.source
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert network.transform_input


def test_an_unreachable_server_of_torchvision_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import AlexNet_Weights

    def fail(self: object, **settings: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", fail)
    with pytest.raises(
        WeightsError, match=r"cannot download the weights of 'alexnet' \(.*not known.*\): use --weights"
    ):
        load_pretrained(nn.Identity(), "alexnet", file=None, pretrained=True)
