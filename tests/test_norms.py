"""Norms swapped in for batch norms are the papers', keep gains and biases, and take pretrained weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snellen.core.config import Config
from snellen.core.errors import ConfigError, WeightsError
from snellen.nn.backbone import create_backbone
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET, suggest_norm
from snellen.nn.norms import NORMS, num_groups, replace_norms
from snellen.nn.pretrained import fit_weights, load_embedded

torch.set_num_threads(1)

REPLACING = ("layer", "group", "instance", "none")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _trained_batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-3)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)  # type: ignore[arg-type]
    return norm


def _affine(normalised: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return normalised * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def test_every_norm_of_the_settings_is_here() -> None:
    choices = set(Config.model_fields["norm"].annotation.__args__)  # type: ignore[union-attr]
    assert choices - {"auto"} == set(NORMS) == {"batch", *REPLACING}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["layer", "group", "instance"])
def test_norm_is_that_of_torch_with_the_gains_and_biases_of_the_batch_norm(kind: str, training: bool) -> None:
    norm, x = _trained_batch_norm(64), 3 + 2 * torch.randn(3, 64, 5, 7)
    references: dict[str, nn.Module] = {
        "layer": nn.LayerNorm((64, 5, 7), eps=1e-3, elementwise_affine=False),
        "group": nn.GroupNorm(32, 64, eps=1e-3, affine=False),
        "instance": nn.InstanceNorm2d(64, eps=1e-3),
    }
    network = nn.Sequential(norm)
    assert replace_norms(network, kind) == 1
    torch.testing.assert_close(network.train(training)(x), _affine(references[kind](x), norm), rtol=1e-4, atol=1e-5)
    assert sorted(name for name, _ in network.named_parameters()) == ["0.bias", "0.weight"]


def test_batch_norms_stay_when_they_are_asked_for() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    layers = list(network)
    assert replace_norms(network, "batch") == 1
    assert list(network) == layers


@given(st.integers(1, 2048))
def test_groups_divide_the_channels_and_are_as_many_as_can_be(channels: int) -> None:
    groups = num_groups(channels)
    assert channels % groups == 0 and 1 <= groups <= 32
    assert not any(channels % more == 0 for more in range(groups + 1, 33))


@pytest.mark.parametrize("kind", ["layer", "group", "instance"])
def test_one_image_is_a_batch(kind: str) -> None:
    """What batch norm cannot do: an image's result does not depend on its neighbours, in training either."""
    network = create_backbone(SMALL_RESNET, input_size=16, norm=kind).train()
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", REPLACING)
def test_dropout_and_activation_inside_a_norm_of_timm_are_kept(kind: str) -> None:
    from timm.layers.norm_act import BatchNormAct2d

    norm = BatchNormAct2d(8, act_layer=nn.SiLU, drop_layer=nn.Dropout, inplace=False)
    inside = norm.drop, norm.act
    network = nn.Sequential(nn.Conv2d(3, 8, 1), norm).eval()
    assert replace_norms(network, kind) == 1
    assert (network[1].drop, network[1].act) == inside
    images = torch.randn(2, 3, 4, 4)
    assert float(network(images).min().detach()) == pytest.approx(-0.278, abs=0.05)  # SiLU's least is -0.278


# --- weights


@pytest.mark.parametrize("kind", ["layer", "group", "instance"])
def test_pretrained_weights_load_into_a_network_with_other_norms(kind: str) -> None:
    published, swapped = (create_backbone(EMBEDDED_MODEL, input_size=64, norm=norm) for norm in ("auto", kind))
    load_embedded(published)
    load_embedded(swapped)
    theirs, ours = published.state_dict(), swapped.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    left_out = {name.rpartition(".")[2] for name in theirs.keys() - ours.keys()}
    assert left_out == {"running_mean", "running_var", "num_batches_tracked"}


def test_weights_of_a_swapped_network_load_into_its_like() -> None:
    trained, fresh = (create_backbone(SMALL_RESNET, input_size=16, norm="group", activation="prelu") for _ in range(2))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.normal_()
    fit_weights(fresh, trained.state_dict(), "trained.pth")
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize("odd", ["stem.1.running_median", "stem.2.running_mean", "blocks.0.conv1.running_mean"])
def test_what_no_batch_norm_had_is_still_unknown(odd: str) -> None:
    state = create_backbone(SMALL_RESNET, input_size=16).state_dict()
    swapped = create_backbone(SMALL_RESNET, input_size=16, norm="group")
    fit_weights(swapped, state, "weights.pth")
    with pytest.raises(WeightsError, match=rf"0 tensors missing, 1 unknown.*{odd}"):
        fit_weights(swapped, {**state, odd: torch.zeros(1)}, "weights.pth")


def test_running_statistics_are_unknown_to_a_network_that_never_had_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    with pytest.raises(WeightsError, match=r"1 unknown.*1\.running_mean"):
        fit_weights(network, {**network.state_dict(), "1.running_mean": torch.zeros(4)}, "weights.pth")


def test_weights_are_refused_by_a_network_without_the_norms_they_were_trained_with() -> None:
    network = create_backbone(EMBEDDED_MODEL, input_size=64, norm="none")
    with pytest.raises(WeightsError, match="norm = 'none' takes out norms"):
        load_embedded(network)


# --- what is asked for in vain


@pytest.mark.parametrize("kind", ["group", "batch"])
def test_a_network_without_batch_norms_says_so(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"norm = '{kind}' has nothing to act on: 'test_vit' has no batch norms"):
        create_backbone("test_vit", input_size=96, norm=kind)


@pytest.mark.parametrize(
    ("batch_size", "norm"), [(1, "group"), (8, "group"), (15, "group"), (16, "batch"), (64, "batch")]
)
def test_small_batches_are_advised_group_norm(batch_size: int, norm: str) -> None:
    assert suggest_norm(batch_size) == norm
