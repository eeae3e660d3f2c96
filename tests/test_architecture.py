"""The house keeps its rules, and each rule is shown to find its breach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import architecture as house

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / house.PACKAGE
HEAVY = ("matplotlib", "numpy", "pyarrow", "scipy", "sklearn", "timm", "torch", "torchvision")

Tree = dict[str, str]
TASKS = 'TASKS: dict[str, str] = {"detection": "snellen.tasks.detection.task:BoxFinder"}'

# rule, the files of a small bad package, words of the breach
PLANTED: list[tuple[house.Rule, Tree, str]] = [
    (house.imports_go_right, {"core/plan.py": "from snellen.tasks import base"}, "core imports snellen.tasks"),
    (house.imports_go_right, {"data/split.py": "def f():\n    import snellen.train.loop"}, "data imports snellen"),
    (house.imports_go_right, {"data/split.py": "from snellen.nn.head import Head"}, "data imports snellen.nn"),
    (house.imports_go_right, {"data/split.py": "from ..metrics import recall"}, "data imports snellen.metrics"),
    (house.imports_go_right, {"core/run.py": "from snellen import train"}, "core imports snellen"),
    (house.imports_go_right, {"predict.py": "import snellen.evaluate"}, "predict imports snellen.evaluate"),
    (house.imports_go_right, {"api.py": "from snellen import cli"}, "api imports snellen.cli"),
    (house.imports_go_right, {"attic/box.py": ""}, "no place in LAYERS"),
    (
        house.task_slices_are_strangers,
        {
            "tasks/base.py": TASKS,
            "tasks/keypoints/loss.py": "from snellen.tasks.detection.loss import giou",
            "tasks/detection/loss.py": "",
        },
        "keypoints imports snellen.tasks.detection.loss",
    ),
    (
        house.task_slices_are_strangers,
        {
            "tasks/base.py": TASKS,
            "tasks/objects/target.py": "def f():\n    from snellen.tasks.detection import task",
            "tasks/detection/task.py": "",
        },
        "objects imports snellen.tasks.detection.task",
    ),
    (house.names_say_something, {"data/utils.py": ""}, "better name"),
    (house.names_say_something, {"train/checkpoint_manager.py": ""}, "better name"),
    (house.names_say_something, {"nn/helpers/__init__.py": '"""Helpers."""'}, "better name"),
    (
        house.no_import_cycles,
        {"data/a.py": "from snellen.data.b import f", "data/b.py": "def f():\n    from snellen.data import a"},
        "snellen.data.a -> snellen.data.b -> snellen.data.a",
    ),
    (house.budgets_are_kept, {"core/long.py": "def f():\n" + "    x = 1\n" * 60}, "f has 61 lines"),
    (house.budgets_are_kept, {"core/long.py": "x = 1\n" * 401}, "401 lines"),
    (house.loop_names_no_task, {"tasks/base.py": TASKS, "train/loop.py": 'if name == "detection": ...'}, "detection"),
    (house.loop_names_no_task, {"tasks/base.py": TASKS, "train/loop.py": "DetectionLoss()"}, "detection"),
    (house.loop_names_no_task, {"tasks/base.py": TASKS, "train/loop.py": "isinstance(t, BoxFinder)"}, "BoxFinder"),
    (house.loop_names_no_task, {"tasks/base.py": TASKS, "train/loop.py": "log(detection_loss)"}, "detection"),
    (house.loop_names_no_task, {"tasks/base.py": "TASKS = dict(a=b)"}, "no literal table"),
    (house.no_pickle, {"core/run.py": "import pickle"}, "imports pickle"),
    (house.no_pickle, {"core/run.py": "def f():\n    from joblib import load"}, "imports joblib"),
    (house.no_pickle, {"core/run.py": "import torch\ntorch.load(path)"}, "without weights_only"),
    (house.no_pickle, {"core/run.py": "from torch import load as get\nget(p, weights_only=False)"}, "without weights"),
    (house.no_pickle, {"core/run.py": "import torch\ntorch.save(state, path)"}, "torch.save"),
    (house.no_pickle, {"core/run.py": "import numpy as np\nnp.load(path, allow_pickle=True)"}, "allow_pickle"),
    (house.no_pickle, {"core/run.py": "import numpy as np\nnp.load(path, allow_pickle=trusted)"}, "allow_pickle"),
    (house.no_code_from_strings, {"core/config.py": "eval(text)"}, "calls eval"),
    (house.no_code_from_strings, {"core/config.py": "import builtins\nbuiltins.exec(text)"}, "exec"),
    (house.every_room_says_what_it_is_for, {"nn/__init__.py": ""}, "needs a docstring"),
    (house.every_room_says_what_it_is_for, {"nn/__init__.py": '"""Building\nblocks."""'}, "needs a docstring"),
]

# What must be allowed: a rule that cries wolf gets switched off.
HEALTHY: list[tuple[house.Rule, Tree]] = [
    (house.imports_go_right, {"cli.py": "from snellen import api, core", "__main__.py": "from snellen.cli import run"}),
    (house.imports_go_right, {"train/loop.py": "from snellen.train.step import f\nfrom snellen.core.run import Run"}),
    (house.imports_go_right, {"data/formats/coco.py": "from .. import split\nimport torch", "data/split.py": ""}),
    (house.task_slices_are_strangers, {"tasks/pose/task.py": "from snellen.tasks import base", "tasks/base.py": ""}),
    (
        house.task_slices_are_strangers,
        {
            "tasks/base.py": TASKS,
            "tasks/detection/task.py": "from snellen.tasks.objects import target",
            "tasks/objects/target.py": "",
        },
    ),
    (house.no_import_cycles, {"data/__init__.py": "from snellen.data.a import f", "data/a.py": "import snellen.core"}),
    (house.budgets_are_kept, {"core/long.py": "def f():\n" + "    x = 1\n" * 59 + "x = 1\n" * 340}),
    (house.loop_names_no_task, {"tasks/base.py": TASKS, "train/loop.py": '"""No detection."""\nbox_finder = 1'}),
    (house.no_pickle, {"nn/w.py": "import torch, numpy\ntorch.load(p, weights_only=True)\nnumpy.load(p)"}),
    (house.no_code_from_strings, {"nn/w.py": "import re\nre.compile('x')\nmodel.eval()"}),
    (house.every_room_says_what_it_is_for, {"nn/__init__.py": '"""Building blocks.\n\nMore."""'}),
]


def build(folder: Path, files: Tree) -> Path:
    package = folder / house.PACKAGE
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_house_keeps_the_rule(rule: house.Rule) -> None:
    assert rule(SOURCE) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "scripts", "examples"])
def test_budgets_hold_outside_the_package_too(folder: str) -> None:
    assert house.budgets_are_kept(ROOT / folder) == []


@pytest.mark.parametrize(("rule", "files", "breach"), PLANTED, ids=lambda part: getattr(part, "__name__", ""))
def test_planted_breach_is_found(rule: house.Rule, files: Tree, breach: str, tmp_path: Path) -> None:
    found = rule(build(tmp_path, files))
    assert any(breach in line for line in found), found


@pytest.mark.parametrize(("rule", "files"), HEALTHY, ids=lambda part: getattr(part, "__name__", ""))
def test_what_is_allowed_raises_no_alarm(rule: house.Rule, files: Tree, tmp_path: Path) -> None:
    assert rule(build(tmp_path, files)) == []


def test_every_rule_has_a_planted_breach_and_a_healthy_twin() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(house.RULES)
    assert {rule for rule, _ in HEALTHY} | {house.names_say_something} == set(house.RULES)


def heavy_modules_after(code: str, import_path: Path) -> list[str]:
    """Which of HEAVY are loaded in a fresh interpreter that ran ``code``."""
    script = f"import json, sys\n{code}\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(import_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return loaded


@pytest.mark.parametrize("module", ["snellen", "snellen.cli", "snellen.__main__"])
def test_help_is_not_kept_waiting_by_heavy_imports(module: str) -> None:
    assert heavy_modules_after(f"import {module}", SOURCE.parent) == []


def test_a_heavy_import_at_the_top_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import numpy\n", encoding="utf-8")
    assert heavy_modules_after("import planted", tmp_path) == ["numpy"]
