"""Networks for pixels: their answers have the size of the image, any size; they learn, and stand on what they say."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.feature_maps import load_pretrained_maps
from snellen.nn.segmentation import smp_models
from snellen.nn.segmentation.architectures import create_segmenter
from snellen.nn.segmentation.segnet import VGGEncoder
from snellen.nn.segmentation.table import ARCHITECTURES, check_fit

OWN = [name for name, entry in ARCHITECTURES.items() if entry.library == "snellen"]
SMP = [name for name, entry in ARCHITECTURES.items() if entry.library == "smp"]
# The smallest of timm of each kind: dilatable, a pyramid that is not, and maps of one resolution.
BACKBONES = ("test_resnet", "test_mambaout", "test_vit")


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


def preprocessing(width: int = 64, height: int = 64) -> Preprocessing:
    return Preprocessing(
        input_size=(width, height), fit="squash", crop_fraction=1.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )


def backbone_for(architecture: str) -> str:
    return "vgg11_bn" if ARCHITECTURES[architecture].needs == "a VGG" else "tf_efficientnet_lite0"


def create(architecture: str, model: str | None = None, size: tuple[int, int] = (64, 64), **options: Any) -> nn.Module:
    return create_segmenter(architecture, preprocessing(*size), model or backbone_for(architecture), 3, **options)


def images(n: int, width: int, height: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8)


# --- our own


@pytest.mark.parametrize("architecture", OWN)
@pytest.mark.parametrize("size", [(64, 32), (75, 61), (33, 100)])
def test_answers_have_the_size_of_the_image_whatever_it_is(architecture: str, size: tuple[int, int]) -> None:
    model = create(architecture).eval()
    with torch.no_grad():
        logits = model(images(2, *size))
    assert logits.shape == (2, 3, size[1], size[0]) and logits.isfinite().all()


@pytest.mark.parametrize("architecture", ["unet", "fcn"])
@pytest.mark.parametrize("model", ["small-resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_our_decoders_stand_on_any_backbone_with_maps(architecture: str, model: str) -> None:
    segmenter = create(architecture, model, (64, 64)).train()
    logits = segmenter(images(2, 64, 64))
    assert logits.shape == (2, 3, 64, 64)
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in segmenter.get_submodule("head").parameters())


@pytest.mark.parametrize("architecture", ["unet", "fcn"])
def test_a_single_image_whose_last_map_is_a_pixel_can_be_learnt_from(architecture: str) -> None:
    """Batch norms refuse a single value a channel; our decoders put none where that may be all there is."""
    model = create(architecture).train()
    backbone = model.get_submodule("backbone").eval()  # its own batch norms are not what is looked at
    maps = backbone(torch.zeros(1, 3, 32, 32))
    assert maps[-1].shape[-2:] == (1, 1)
    model.get_submodule("head")(maps).mean().backward()


@pytest.mark.parametrize("architecture", OWN)
def test_its_parts_hold_all_that_learns(architecture: str) -> None:
    model = create(architecture)
    assert [name for name, _ in model.named_children()][:3] == ["normalize", "backbone", "head"]
    assert all(name.startswith(("backbone.", "head.")) for name, _ in model.named_parameters())


@pytest.mark.parametrize("architecture", [name for name in OWN if name != "segnet"])
def test_it_exports_as_it_is(architecture: str) -> None:
    model = create(architecture, None if "segnet" in architecture else "small-resnet", (32, 16)).eval()
    pixels = images(3, 64, 32)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (pixels[:2],), dynamic_shapes=({0: batch},)).module()
    with torch.inference_mode():
        assert torch.allclose(exported(pixels), model(pixels), atol=1e-5)


@pytest.mark.parametrize("architecture", ["unet", "fcn"])
def test_it_learns_which_half_is_bright(architecture: str) -> None:
    model = create(architecture, "small-resnet", (32, 32)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    truth = torch.zeros(4, 32, 32, dtype=torch.long)
    for i in range(4):  # left, right, above, below
        truth[i].transpose(0, i // 2)[:, 16 * (i % 2) : 16 * (i % 2) + 16] = 1
    pixels = (100 + 80 * truth[:, None].expand(-1, 3, -1, -1)).to(torch.uint8)
    for _ in range(20):
        loss = F.cross_entropy(model(pixels), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model(pixels).argmax(1)
    assert (found == truth).float().mean() > 0.97


def test_an_image_moved_by_whole_steps_moves_the_answer_with_it() -> None:
    """No half-pixel shift hides in the way up: a pattern of period 32 gets an answer of period 32."""
    model = create("unet", "small-resnet").eval()
    tile = images(1, 32, 32)
    with torch.no_grad():
        logits = model(tile.repeat(1, 1, 5, 5))
    inner, next_one = logits[..., 64:96, 32:64], logits[..., 64:96, 64:96]
    assert torch.allclose(inner, next_one, atol=1e-4)


def test_norms_and_activations_are_those_asked_for_in_backbone_and_head() -> None:
    model = create("unet", "small-resnet", norm="group", activation="silu")
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.ReLU) for layer in model.modules())
    assert any(isinstance(layer, nn.SiLU) for layer in model.get_submodule("head").modules())


def test_dropout_stands_before_the_last_layer() -> None:
    pixels = images(2, 64, 64)
    for architecture in ("unet", "fcn"):
        model = create(architecture, dropout=0.5).eval()
        model.get_submodule("head.dropout").train()
        with torch.no_grad():
            assert not torch.equal(model(pixels), model(pixels)), architecture


# --- SegNet


def test_segnet_has_the_layers_of_the_published_vgg() -> None:
    import timm

    with torch.device("meta"):
        published = timm.create_model("vgg16_bn", pretrained=False).state_dict()
        own = VGGEncoder("vgg16_bn").state_dict()
    features = {name: tensor.shape for name, tensor in published.items() if name.startswith("features.")}
    assert {name: tensor.shape for name, tensor in own.items()} == features


def test_segnet_puts_values_back_where_they_came_from() -> None:
    decoder = create("segnet").get_submodule("head")
    x = torch.arange(16.0).reshape(1, 1, 4, 4).flip(3)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    back = decoder._unpooled(pooled, indices, x.shape)  # type: ignore[operator]
    assert torch.equal(back[back > 0], x[back > 0]) and back.count_nonzero() == 4
    repeated = create("segnet-repeat").get_submodule("head")._unpooled(pooled, indices, x.shape)  # type: ignore[operator]
    assert torch.equal(repeated, pooled.repeat_interleave(2, 2).repeat_interleave(2, 3))


# --- those of segmentation-models-pytorch


@pytest.mark.parametrize("model", BACKBONES)
def test_the_table_of_what_fits_is_true(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it says yes, the two work together at a size that is no multiple of 32; where no, the library agrees."""
    pixels = images(1, 90, 60)
    for architecture in SMP:
        try:
            check_fit(architecture, model)
        except ConfigError:
            with pytest.raises(ConfigError, match="does not fit"):
                smp_models.create_smp_segmenter(architecture, preprocessing(90, 60), model, 3)
            continue
        segmenter = create(architecture, model, (90, 60)).eval()
        assert [name for name, _ in segmenter.named_children()] == ["normalize", "backbone", "head"]
        with torch.no_grad():
            logits = segmenter(pixels)
        assert logits.shape == (1, 3, 60, 90) and logits.isfinite().all(), architecture


@pytest.mark.parametrize("architecture", ["fpn", "deeplabv3+"])
def test_the_weights_that_come_with_us_fit_their_encoder(architecture: str) -> None:
    model = create(architecture)
    encoder: Any = model.get_submodule("backbone.model")
    provenance = load_pretrained_maps(encoder, "tf_efficientnet_lite0", file=None, pretrained=True)
    assert "efficientnet-lite0" in provenance.source
    ours = create("unet")
    backbone: Any = ours.get_submodule("backbone")
    load_pretrained_maps(backbone, "tf_efficientnet_lite0", file=None, pretrained=True)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(backbone.eval()(x)[1], encoder.eval()(x)[1], atol=1e-4)


def test_a_decoder_of_the_library_learns() -> None:
    model = create("linknet", "test_resnet").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pixels, truth = images(2, 64, 64), torch.randint(0, 3, (2, 64, 64))
    losses = []
    for _ in range(8):
        losses.append(F.cross_entropy(model(pixels), truth))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r"'fpn' needs segmentation-models-pytorch: pip install 'snellen\[seg\]'"):
        create("fpn")
    assert create("unet") is not None


# --- what does not fit


@pytest.mark.parametrize(
    ("architecture", "model", "words"),
    [
        ("pan", "swin_tiny_patch4_window7_224", r"\(it needs a network whose convolutions.* 'unet' with this model"),
        ("deeplabv3+", "hgnetv2_b0", "model = 'tf_efficientnet_lite0' with this architecture"),
        ("deeplabv3", "fastvit_t8", "does not fit"),
        ("fpn", "vit", "architecture = 'dpt' with this model"),
        ("unet++", "vit_small_patch16_224", "architecture = 'dpt' with this model"),
        ("segformer", "small-resnet", "it stands on networks of timm"),
        ("pspnet", "googlenet", "it stands on networks of timm"),
        ("segnet", "tf_efficientnet_lite0", "model = 'vgg16_bn' with this architecture"),
        ("unnet", "resnet18", "architecture = 'unnet' is not known; did you mean 'unet'"),
    ],
)
def test_a_misfit_names_what_fits_on_either_side(architecture: str, model: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_fit(architecture, model)


def test_what_a_misfit_advises_does_fit() -> None:
    models = ("tf_efficientnet_lite0", "small-resnet", "vit", "swin_tiny_patch4_window7_224", "hgnetv2_b0", "vgg16_bn")
    for architecture in ARCHITECTURES:
        for model in models:
            try:
                check_fit(architecture, model)
            except ConfigError as error:
                words = str(error).split("'")
                check_fit(words[-4], model)
                check_fit(architecture, words[-2])


def test_a_backbone_that_is_in_no_table_is_refused_when_it_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise ValueError("Unsupported model downsampling pattern.")

    monkeypatch.setattr(smp_models, "_library", lambda name: SimpleNamespace(create_model=fails))
    with pytest.raises(ConfigError, match=r"\(Unsupported model downsampling pattern\.\): use architecture = 'unet'"):
        create("fpn", "test_resnet")


def test_warnings_stay_warnings_outside_of_building() -> None:
    create("dpt", "test_mambaout")
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)
