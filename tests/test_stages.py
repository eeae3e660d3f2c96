"""Stages follow the order of execution in every kind of net; frozen ones do not move; their outputs are one pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.backbone import create_backbone
from snellen.nn.freeze import freeze_stages, train_mode
from snellen.nn.network import Network
from snellen.nn.stages import num_stages, parameter_stages, stage_features, stage_width

torch.set_num_threads(1)

# name, side of the input, number of stages, and the part that the second one begins with
NETS = [
    ("tf_efficientnet_lite0", 32, 9, "blocks.0"),
    ("small-resnet", 16, 4, "blocks.0"),
    ("mlp:16,8,4", 8, 3, "layers.3"),
    ("cnn:8,16,32", 16, 3, "layers.4"),
    ("resnet10t", 32, 5, "layer1"),
    ("alexnet", 64, 6, "features.3"),
    ("densenet121", 32, 8, "features.denseblock1"),
    ("mobilenetv2_035", 32, 9, "blocks.0"),
    ("regnetx_002", 32, 5, "s1"),
    ("lcnet_035", 32, 8, "blocks.0"),
    ("convnext_atto", 32, 5, "stages.0"),
    ("vit_tiny_patch16_224", 32, 13, "blocks.0"),
    ("swin_tiny_patch4_window7_224", 56, 5, "layers.0"),
]
PREPROCESSING = Preprocessing(input_size=(32, 32), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


def backbone_of(name: str, side: int) -> nn.Module:
    torch.manual_seed(3)
    return create_backbone(name, input_size=side).eval()


def small() -> nn.Module:
    return backbone_of("tf_efficientnet_lite0", 32)


def pixels(side: int, n: int = 2) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


class Listed(nn.Module):
    """Layers in a bare list, as transformers' encoders hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])


def test_a_module_that_is_but_a_list_of_layers_is_opened() -> None:
    backbone = nn.ModuleDict({"embeddings": nn.Linear(4, 4), "encoder": Listed(), "norm": nn.LayerNorm(4)})
    stages = parameter_stages(backbone)
    assert num_stages(backbone) == 7
    assert stages["embeddings.weight"] == 0 and stages["encoder.layer.0.weight"] == 1
    assert stages["encoder.layer.5.weight"] == stages["norm.weight"] == 6


def executed_stages(backbone: nn.Module, x: Tensor) -> list[int]:
    """The stage of each module that holds parameters itself, in the order in which they ran."""
    stages, order = parameter_stages(backbone), []
    for name, module in backbone.named_modules():
        own = [f"{name}.{each}" for each, _ in module.named_parameters(recurse=False)]
        if name and own:
            module.register_forward_hook(lambda *_, stage=stages[own[0]]: order.append(stage))  # type: ignore[misc]
    with torch.inference_mode():
        backbone(x)
    return order


@pytest.mark.parametrize(("name", "side", "count", "second"), NETS, ids=[net[0] for net in NETS])
def test_stages_cover_every_parameter_in_the_order_of_execution(name: str, side: int, count: int, second: str) -> None:
    backbone = backbone_of(name, side)
    stages = parameter_stages(backbone)
    assert stages.keys() == dict(backbone.named_parameters()).keys()
    assert num_stages(backbone) == count
    assert next(name for name, stage in stages.items() if stage == 1).startswith(second)
    assert sorted(set(stages.values())) == list(range(count))
    x = pixels(side)
    with torch.inference_mode():
        features = stage_features(backbone, x)
        assert torch.equal(features[count - 1], backbone(x))
    assert all(each.shape[0] == 2 and each.dim() == 2 for each in features.values())
    order = executed_stages(backbone, x)
    assert order == sorted(order) and set(order) == set(range(count))


def test_a_wrapped_net_is_opened_and_one_layer_is_one_stage() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
            self.token = nn.Parameter(torch.zeros(1, 2))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inside(x) + self.token
            return out

    assert parameter_stages(Wrapper()) == {
        "token": 0,
        "inside.1.weight": 0,
        "inside.1.bias": 0,
        "inside.3.weight": 1,
        "inside.3.bias": 1,
    }
    assert num_stages(nn.Sequential(nn.Flatten(), nn.Linear(12, 4))) == 1
    assert num_stages(nn.Flatten()) == 1 and parameter_stages(nn.Flatten()) == {}


def test_stage_features_are_the_mean_over_positions() -> None:
    backbone, x = small(), pixels(32)
    with torch.inference_mode():
        found = stage_features(backbone, x, [3])[3]
        outputs = x
        for part in (backbone.conv_stem, backbone.bn1):
            outputs = part(outputs)  # type: ignore[operator]
        outputs = nn.functional.relu6(outputs)
        for block in list(backbone.blocks)[:3]:  # type: ignore[arg-type]
            outputs = block(outputs)
    torch.testing.assert_close(found, outputs.mean((2, 3)))


def test_tokens_and_images_with_channels_last_are_averaged_over_places() -> None:
    vit, swin = backbone_of("vit_tiny_patch16_224", 32), backbone_of("swin_tiny_patch4_window7_224", 56)
    with torch.inference_mode():
        assert stage_features(vit, pixels(32), [4])[4].shape == (2, 192)
        assert [each.shape[1] for each in stage_features(swin, pixels(56)).values()] == [96, 96, 192, 384, 768]


def test_a_pass_ends_where_nothing_more_is_asked_for() -> None:
    backbone, ran = small(), []
    backbone.conv_head.register_forward_hook(lambda *_: ran.append(1))  # type: ignore[union-attr]
    with torch.inference_mode():
        stage_features(backbone, pixels(32), [2, 5])
        assert not ran
        stage_features(backbone, pixels(32))
    assert ran
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_frozen_stages_and_their_statistics_stay_while_the_others_learn() -> None:
    network = Network(PREPROCESSING, small(), 3)
    freeze_stages(network.backbone, 4)
    before = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
    stages = parameter_stages(network.backbone)
    train_mode(network)
    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=0.5)
    network(torch.randint(0, 255, (8, 3, 32, 32), dtype=torch.uint8)).square().sum().backward()
    optimizer.step()
    moved = {name for name, tensor in network.backbone.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(stages[name] >= 4 for name in moved & stages.keys())
    assert not any(name.startswith(("bn1.", "blocks.0.", "blocks.1.", "blocks.2.")) for name in moved)
    assert any(name.startswith("blocks.3.") and "running_mean" in name for name in moved)


def test_a_head_on_an_earlier_stage_is_one_network_that_can_be_exported() -> None:
    network = Network(PREPROCESSING, small(), 3, feature_stage=4).eval()
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    assert network.num_features == network.head.in_features == 80
    with torch.no_grad():
        outputs = network(images)
        exported = torch.export.export(network, (images,)).module()
        assert torch.equal(exported(images), outputs)


def test_asking_for_a_width_leaves_the_backbone_as_it_was() -> None:
    backbone = small().train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert stage_width(backbone, 2, (48, 32)) == 24
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
