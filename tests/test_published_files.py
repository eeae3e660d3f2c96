"""What the files of published detectors say is read; other files, misfits and contradictions are told in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shapes import SHAPES
from snellen.core.config import Config
from snellen.core.errors import ConfigError, WeightsError
from snellen.nn.catalog import backbone_facts
from snellen.nn.detection import published_models, table
from snellen.nn.detection.architectures import create_detector, load_detector
from snellen.nn.detection.table import ARCHITECTURES
from snellen.nn.hub import download
from snellen.nn.published import check_input, check_model, read_published
from snellen.tasks.base import TASKS, create_task
from tiny_published import KINDS, MEAN, SIDE, STD, a_detector, copied, plan_of, publish, with_tensors

torch.set_num_threads(1)

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
THREE_KINDS = pytest.mark.parametrize("kind", KINDS[:3])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A published detector of each kind that knows the shapes. Tests read them; who changes one copies it first."""
    return {kind: publish(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


# --- what the files say


def test_the_files_are_read_without_torch() -> None:
    said = "import sys, snellen.nn.published; assert not {'torch', 'timm', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)


@EVERY_KIND
def test_what_the_files_say_is_read(kind: str, models: dict[str, str]) -> None:
    known, facts = read_published(models[kind]), backbone_facts(models[kind])
    assert ARCHITECTURES[known.architecture].library == "transformers"
    assert known.classes == SHAPES and known.input_size == (SIDE, SIDE) and (known.mean, known.std) == (MEAN, STD)
    assert facts is not None and (facts.input_size, facts.fixed_size, facts.mean) == (SIDE, True, MEAN)
    assert known.settings["model_type"] == kind and "id2label" not in json.dumps(known.settings)


@THREE_KINDS
def test_without_a_preprocessor_the_usual_of_the_kind_is_taken(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    """RT-DETR and D-FINE learn from plain values 0..1, RF-DETR from standardised ones."""
    model = copied(models[kind], tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    known = read_published(model)
    assert known.mean == ((0.485, 0.456, 0.406) if kind == "rf_detr" else (0.0, 0.0, 0.0))
    assert known.std == ((0.229, 0.224, 0.225) if kind == "rf_detr" else (1.0, 1.0, 1.0))
    assert known.input_size == ((32, 32) if kind == "rf_detr" else (640, 640))


def test_the_licence_is_that_of_the_model_card(models: dict[str, str], tmp_path: Path) -> None:
    model = copied(models["d_fine"], tmp_path / "with-card")
    assert read_published(model).license == "not known: the files state none"
    (tmp_path / "with-card" / "README.md").write_text("---\nlibrary_name: x\nlicense: apache-2.0\n---\nlicense: none\n")
    known = read_published(model)
    assert known.license == "apache-2.0" and known.source == "the folder with-card"


def test_a_name_is_fetched_from_the_hub_with_its_revision(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        shutil.copytree(models["rt_detr"].removeprefix("hf:"), tmp_path / "0123abc", dirs_exist_ok=True)
        return str(tmp_path / "0123abc")

    monkeypatch.setattr("snellen.nn.hub.getproxies", lambda: {"https": "a proxy"})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    download.cache_clear()
    known = read_published("hf:owner/tiny")
    assert known.source == "owner/tiny of huggingface.co, revision 0123abc"
    assert not any("safetensors" in pattern for pattern in asked[0])
    provenance = load_detector(a_detector("hf:owner/tiny", load=False), plan_of("hf:owner/tiny"), SHAPES)
    assert provenance.source == f"{known.source}, which knows 3 of the 3 classes"
    assert "*.safetensors" in asked[-1] and len(asked) == 2
    download.cache_clear()


# --- inputs that fit


@given(
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(8, 900), st.integers(8, 900)),
    queries=st.integers(1, 400),
    windows=st.integers(1, 4),
)
def test_following_the_advice_leads_to_an_input_that_fits(
    kind: str, size: tuple[int, int], queries: int, windows: int
) -> None:
    body = {"patch_size": 14, "num_windows": windows}
    settings = {"model_type": kind, "num_queries": queries, "feat_strides": [8, 16, 32], "backbone_config": body}
    for _ in range(3):
        try:
            check_input(settings, size)
        except ConfigError as error:
            width, _, height = str(error).split(": use ")[1].removesuffix(" or more").partition(" x ")
            size = int(width), int(height)
    check_input(settings, size)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "told"),
    (
        ("./nowhere", "no folder at './nowhere': give one with config.json"),
        ("a/b/c", "no folder at 'a/b/c'"),
        ("", "no folder at ''"),
    ),
)
def test_a_folder_that_is_not_there_is_said(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_published(f"hf:{name}")


@pytest.mark.parametrize(
    ("content", "told"),
    (
        (None, "no config.json in .*: give a folder that transformers' save_pretrained wrote"),
        ("{", "cannot read .*config.json"),
        ("[]", "holds no settings by name"),
        ('{"model_type": "detr"}', "is of the kind 'detr': use a detector of rt_detr"),
        ("{}", "is of the kind 'None'"),
        (
            '{"model_type": "rf_detr", "architectures": ["RfDetrForInstanceSegmentation"]}',
            "is of the kind 'RfDetrForInstanceSegmentation'",
        ),
        ('{"model_type": "rt_detr", "feat_strides": "wide"}', "cannot make sense of the settings"),
    ),
)
def test_files_of_something_else_are_refused(content: str | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=told) as caught:
        read_published(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **settings: Any) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr("snellen.nn.hub.getproxies", lambda: {"https": "a proxy"})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        WeightsError, match=r"no folder 'owner/tiny' is here.*\(no route to host\): give a folder"
    ) as it:
        read_published("hf:owner/tiny")
    assert "\n" not in str(it.value)


def _fewer(tensors: dict[str, Tensor]) -> None:
    tensors.pop(next(name for name in tensors if name.endswith("weight")))


def _shorter(tensors: dict[str, Tensor]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    tensors[name] = tensors[name][:-1].clone()


@pytest.mark.parametrize(
    ("change", "told"),
    (
        (_fewer, "1 tensors missing, 0 unknown, 0 of another shape"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "0 tensors missing, 1 unknown, 0 of another shape"),
        (_shorter, "1 of another shape"),
    ),
)
def test_weights_fit_wholly_or_not_at_all(change: Any, told: str, models: dict[str, str], tmp_path: Path) -> None:
    model = with_tensors(models["rf_detr"], tmp_path / "other", change)
    with pytest.raises(WeightsError, match=rf"do not fit its config\.json: .*{told}"):
        a_detector(model)


def test_answers_that_a_file_holds_twice_are_no_misfit(models: dict[str, str], tmp_path: Path) -> None:
    def twice(tensors: dict[str, Tensor]) -> None:
        tensors["class_embed.0.bias"] = tensors["model.decoder.class_embed.0.bias"].clone()

    a_detector(with_tensors(models["rt_detr"], tmp_path / "twice", twice))


def test_nothing_but_safetensors_is_read(models: dict[str, str], tmp_path: Path) -> None:
    model = copied(models["rt_detr"], tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no other weights are read"):
        check_model(Config.of(data="x", model=model), "detection", tuple(ARCHITECTURES))
    (tmp_path / "pickled" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="cannot read weights from"):
        a_detector(model)


def test_settings_that_make_no_network_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    model = copied(models["rt_detr"], tmp_path / "odd", lambda settings: settings.update(decoder_attention_heads=3))
    with pytest.raises(ConfigError, match=r"transformers makes no 'rt_detr' of this config\.json") as caught:
        create_detector(plan_of(model), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    (
        ({"architecture": "fcos"}, "'fcos' does not fit model = .*, which is a 'd-fine': leave the architecture out"),
        ({"norm": "group"}, "norm = 'group' does not fit a detector published whole"),
        ({"activation": "relu"}, "activation = 'relu' does not fit"),
        ({"weights": "file.pth"}, "brings its own weights"),
    ),
)
def test_settings_that_contradict_it_are_refused(settings: dict[str, Any], told: str, models: dict[str, str]) -> None:
    config = Config.of(data="x", model=models["d_fine"], **settings)
    with pytest.raises(ConfigError, match=told):
        check_model(config, "detection", tuple(ARCHITECTURES))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "detection"])
def test_other_tasks_refuse_it(name: str, models: dict[str, str]) -> None:
    task = create_task(name, ())
    with pytest.raises(ConfigError, match=f"the task '{name}' cannot use: give a backbone, such as 'resnet18'"):
        check_model(Config.of(data="x", model=models["d_fine"]), task.name, task.architectures)


def test_a_detector_with_a_backbone_of_its_own_needs_one() -> None:
    told = "'rf-detr' has a backbone of its own: give model = 'hf:...'"
    with pytest.raises(ConfigError, match=told):
        check_model(Config.of(data="x", architecture="rf-detr"), "detection", tuple(ARCHITECTURES))
    with pytest.raises(ConfigError, match=told):
        table.check("rf-detr")


def test_a_missing_library_is_told_with_its_extra(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda library: None)
    with pytest.raises(ConfigError, match=r"'d-fine' needs transformers: pip install 'snellen\[hf\]'"):
        check_model(Config.of(data="x", model=models["d_fine"]), "detection", tuple(ARCHITECTURES))


def test_a_library_that_does_not_know_it_yet_is_told(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(models["rf_detr"])
    monkeypatch.setitem(published_models.STEMS, "rf_detr", "NotYetDetr")
    with pytest.raises(ConfigError, match="does not know 'rf_detr' yet: pip install -U transformers"):
        create_detector(plan, 2)
