"""The command line: what is wrong is said in one line, and results are where scripts look for them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_line import FAST, called, tree, write
from conftest import FinishedRun
from shapes import save_folders
from snellen.core.config import Config
from snellen.core.console import printable
from snellen.core.errors import ConfigError


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good data and all kinds of bad data, which no test changes."""
    root = tmp_path_factory.mktemp("bench")
    save_folders(root / "shapes", per_class=10, side=8)
    (root / "empty").mkdir()
    shutil.copytree(root / "shapes" / "circle", root / "one" / "circle")
    (root / "void" / "circle").mkdir(parents=True)
    rows = {
        "headless": "shapes/circle/000.png,c\nshapes/square/000.png,s\n",
        "twice": "image,label\nshapes/circle/000.png,c\nshapes/circle/000.png,c\nshapes/square/000.png,s\n",
        "torn": "image,label\nshapes/circle/000.png,c\nshapes/circle/000.png,s\nshapes/square/000.png,s\n",
        "lost": "image,label\nnot/here.png,c\nnor/there.png,s\nshapes/square/000.png,s\n",
        "ragged": "image,label\nshapes/circle/000.png\n",
        "unnamed": "a,b\n1,2\n",
        "blank": "",
    }
    for name, text in rows.items():
        write(root / f"{name}.csv", text)
    tomls = {
        "unknown": 'data = "shapes"\nepoch = 3\n',
        "nested": 'data = "shapes"\n[train]\nepochs = 3\n',
        "value": 'data = "shapes"\nepochs = "three"\n',
        "infinite": 'data = "shapes"\ntime_limit = inf\n',
        "broken": "epochs = \n",
        "no-data": "epochs = 3\n",
        "nul": 'data = "shapes\\u0000"\n',
        "fine": 'data = "shapes"\nepochs = 1\n',
    }
    for name, text in tomls.items():
        write(root / f"{name}.toml", text)
    write(root / "text.txt", "not an image")
    write(root / "junk.safetensors", "junk")
    write(root / "junk.pth", "junk")
    return root


@pytest.fixture
def at_bench(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In the bench's folder, which must be as before when the test is over."""
    monkeypatch.chdir(bench)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = tree(bench)
    yield bench
    assert tree(bench) == before, "a command that failed left something behind"


BAD_ARGUMENTS = [
    ("", "DATA|what to train on"),
    ("nope", "nope does not exist"),
    ("shaps", "shaps does not exist; did you mean 'shapes'"),
    ("''", "empty"),
    ("shapes extra", "'extra' is one argument too many.*--help"),
    ("shapes --epoch 3", "--epoch.*--epochs"),
    ("shapes --epochs", "--epochs requires an argument"),
    ("shapes --epochs three", "epochs = 'three'.*whole number"),
    ("shapes --epochs -1", "epochs = '-1'.*at least 0"),
    ("shapes --epochs 1.5", "epochs = '1.5'.*whole number"),
    ("shapes --lr -1", "lr = '-1'.*above 0"),
    ("shapes --lr nan", "lr = 'nan'"),
    ("shapes --split 70/10", "split = '70/10'.*70/15/15"),
    ("shapes --split 70/10/10", "split = '70/10/10'.*add up to 100"),
    ("shapes --split nan/nan/nan", "split = 'nan/nan/nan'"),
    ("shapes --split 0/50/50", "split.*training and validation"),
    ("shapes --device gpu", "device = 'gpu'.*auto, cpu, cuda"),
    ("shapes --time-limit soon", "time_limit = 'soon'.*90s, 5m or 1.5h"),
    ("shapes --time-limit 0", "time_limit = '0'.*above 0"),
    ("shapes --groups (", r"groups = '\('.*regular expression"),
    ("shapes --groups abc", "groups = 'abc'.*parentheses"),
    ("shapes --seed -1", "seed = '-1'.*at least 0"),
    ("shapes --folds 1", "folds = '1'.*at least 2"),
    ("shapes --fold 2", "fold = 2 needs folds.*--folds 5"),
    ("shapes --folds 3 --fold 4", "fold = 4 is not one of 3"),
    ("shapes --fit stretch", "fit = 'stretch'.*'squash'"),
    ("shapes --task detecton", "task = 'detecton'.*'detection'"),
    ("shapes --task detection", "boxes are needed, and this data has none; give COCO"),
    ("shapes --pretrained yes", "'yes' is one argument too many"),
    ("shapes --config nope.toml", "no configuration file at nope.toml"),
    ("shapes --config empty", "empty: Is a directory"),
    ("--config unknown.toml", "unknown.toml: unknown setting 'epoch'; did you mean 'epochs'"),
    ("--config nested.toml", "nested.toml: unknown setting 'train'"),
    ("--config value.toml", "value.toml: epochs = 'three'"),
    ("--config infinite.toml", "infinite.toml: time_limit = inf"),
    ("--config broken.toml", "broken.toml is not valid TOML.*line 1"),
    ("--config no-data.toml", "'data' is needed"),
    ("--config nul.toml", "nul.toml: data = .*not allowed"),
    ("--config shapes/circle/000.png", "000.png is not a TOML file"),
    ("--config fine.toml --lr -1", "^error: lr = '-1'"),
    ("--resume nope", "nope does not exist"),
    ("--resume empty", "empty is not a run folder"),
    ("shapes --resume empty", "--resume alone"),
    ("sample:digit", "unknown sample 'digit'; did you mean 'digits'"),
]

BAD_DATA = [
    ("empty", "empty is empty"),
    ("one", "only one class with images, 'circle'"),
    ("void", "void holds no images"),
    ("shapes/circle", "not in class folders"),
    ("text.txt", "text.txt is in no format"),
    ("shapes/circle/000.png", "in no format"),
    ("headless.csv", "headless.csv has no header"),
    ("twice.csv", "line 2 and line 3"),
    ("torn.csv", "two labels, 'c' in line 2 and 's' in line 3"),
    ("lost.csv", "2 of 3 images are not there; the first, 'not/here.png'.*--images"),
    ("lost.csv --images nope", "nope, does not exist; give it with --images"),
    ("ragged.csv", "ragged.csv, line 2: 1 cells under 2"),
    ("unnamed.csv", "unnamed.csv has no column 'image'"),
    ("blank.csv", "blank.csv is empty"),
    ("shapes --images shapes", "--images goes with a table"),
    ("shapes --out text.txt", "text.txt exists.*another --out"),
    ("shapes --out one", "one exists.*another --out"),
    ("shapes --out text.txt/run", "text.txt is a file; choose another --out"),
    (f"shapes --out {'x' * 300}", "refused: File name too long"),
]

BAD_LATE = [
    ("shapes --weights nope.pth", "no weights file at nope.pth"),
    ("shapes --weights junk.safetensors", "cannot read weights from .*junk.safetensors"),
    ("shapes --weights junk.pth", "cannot read weights from .*junk.pth"),
    ("shapes --no-pretrained --epochs 0", "epochs = 0 leaves 'small-resnet' untrained"),
    ("shapes --model resnet1888 --no-pretrained", "model = 'resnet1888' is not known; did you mean 'resnet1"),
]


def fails(command: list[str], words: str) -> None:
    """With exit code 2 and one line on standard error that has the ``words``, a regular expression."""
    code, _, err = called(command)
    assert code == 2
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
    assert "Traceback" not in err
    assert re.search(words, err), err


@pytest.mark.parametrize(("arguments", "words"), BAD_ARGUMENTS + BAD_DATA + BAD_LATE)
def test_train_says_in_one_line_what_is_wrong_and_leaves_nothing(arguments: str, words: str, at_bench: Path) -> None:
    fails(["train", *shlex.split(arguments)], words)


@pytest.mark.parametrize(("arguments", "words"), BAD_DATA)
def test_audit_says_in_one_line_what_is_wrong_and_leaves_nothing(arguments: str, words: str, at_bench: Path) -> None:
    fails(["audit", *shlex.split(arguments)], words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", r"unknown command|"),
        ("tran shapes", 'unknown command "tran". Did you mean "train"'),
        ("--json", "unknown command"),
        ("audit", "DATA is missing.*snellen audit --help"),
        ("audit shapes --epochs 3", "unknown option: --epochs"),
        ("audit shapes --device gpu", "device = 'gpu'"),
        ("evaluate", "RUN is missing"),
        ("evaluate nope", "nope does not exist"),
        ("evaluate shapes", "shapes is not a run folder"),
        ("predict nope", "IMAGES is missing"),
        ("predict nope text.txt", "nope does not exist"),
        ("predict shapes text.txt --seed x", "--seed"),
        ("compare", "RUNS is missing"),
        ("compare shapes nope", "shapes is not a run folder"),
        ("compare nope --with nope", "nope does not exist"),
        ("compare nope nope --seed -1", "seed = -1"),
    ],
)
def test_every_verb_says_what_is_wrong_with_its_arguments(arguments: str, words: str, at_bench: Path) -> None:
    if not arguments:  # no verb at all is not an error: it shows the help
        code, out, err = called([])
        assert (code, err) == (0, "") and "Commands" in out
        return
    fails(shlex.split(arguments), words)


def test_device_that_is_not_there_is_an_error_that_names_those_that_are(at_bench: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    fails(["train", "shapes", "--device", "cuda"], "device = 'cuda' is not available.*cpu")


# ---- runs that cannot be used


def damage(run: Path, how: str) -> None:
    checkpoint = run / "checkpoints" / "best.safetensors"
    content = bytearray(checkpoint.read_bytes())
    if how == "cut":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[-100] ^= 255
        checkpoint.write_bytes(content)
    elif how == "newer":
        described = json.loads((run / "environment.json").read_text())
        write(run / "environment.json", json.dumps({**described, "run_version": 99}))
    elif how == "no model":
        checkpoint.unlink()
    else:
        write(run / how, "{}")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "best.safetensors is damaged"),
        ("flipped", "best.safetensors is damaged: its checksum"),
        ("newer", "format version 99, newer than.*update Snellen"),
        ("no model", "has no model"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_run_that_cannot_be_used_is_named(
    verb: str, how: str, words: str, finished_run: FinishedRun, tmp_path: Path
) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    damage(tmp_path / "run", how)
    images = [str(finished_run.data)] if verb == "predict" else []
    fails([verb, str(tmp_path / "run"), *images], words)


def test_damaged_manifest_is_named(finished_run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    damage(tmp_path / "run", "data.json")
    fails(["evaluate", str(tmp_path / "run")], "data.json is damaged")


def test_done_run_is_not_resumed(finished_run: FinishedRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")}
    fails(["train", "--resume", str(finished_run.folder)], "is done.*another --out")
    assert {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nope.png", "nope.png does not exist"),
        ("empty", "empty holds no images"),
        ("text.txt", "text.txt, line 1: not an image does not exist"),
        ("shapes --device gpu", "device = 'gpu'"),
        ("shapes --device cuda:x", "device = 'cuda:x'"),
        ("shapes --out one", "one exists"),
        ("shapes --out text.txt/x", "text.txt is a file"),
    ],
)
def test_predict_says_what_is_wrong(arguments: str, words: str, finished_run: FinishedRun, at_bench: Path) -> None:
    fails(["predict", str(finished_run.folder), *shlex.split(arguments)], words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nope", "nope does not exist"),
        ("one", "only one class"),
        ("--device gpu", "device = 'gpu'"),
        ("--seed -1", "seed = -1"),
        ("--images shapes", "name that data as well"),
        ("--out one", "one exists"),
    ],
)
def test_evaluate_says_what_is_wrong(arguments: str, words: str, finished_run: FinishedRun, at_bench: Path) -> None:
    fails(["evaluate", str(finished_run.folder), *shlex.split(arguments)], words)


def test_closed_folder_is_named_before_the_images_are_read(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *asked: False)  # who is root may write anywhere
    monkeypatch.chdir(tmp_path)
    fails(["train", str(bench / "shapes")], f"no permission to write in {tmp_path}")
    fails(["audit", str(bench / "shapes"), "--out", "a/b"], f"no permission to write in {tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("full", ["data.json", "example-0-0.webp", "plan.json"])
def test_full_disk_at_the_start_leaves_no_folder(
    full: str, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from snellen.core import files

    sound = files.replace_atomically

    def replace_atomically(path: Path, write: Any) -> None:
        def out_of_space(temporary: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        sound(path, out_of_space if path.name == full else write)

    monkeypatch.setattr(files, "replace_atomically", replace_atomically)
    command = ["train", str(bench / "shapes"), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    fails([*command, *FAST.split()], f"no space left to write .*{full}")
    assert not (tmp_path / "run").exists()


# ---- any command line at all

WORDS = st.text(st.characters(exclude_characters="/\\.~\0"), max_size=8)
VALUES = st.one_of(
    WORDS, st.integers().map(str), st.floats().map(str), st.sampled_from(["auto", "\udcff", "70/15/15", "1e999", "-"])
)
OPTIONS = st.sampled_from(
    [f"--{name.replace('_', '-')}" for name in Config.model_fields] + ["--out", "--config", "--json", "--no-pretrained"]
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A verb with no data that exists, and anything behind it."""
    verb = draw(st.sampled_from(["train", "audit", "evaluate", "predict", "compare"]) | WORDS)
    words = [verb, "nowhere"] if draw(st.booleans()) else [verb]
    for _ in range(draw(st.integers(0, 3))):
        option = draw(OPTIONS | WORDS.map("--{}".format) | WORDS)
        words += [f"{option}={draw(VALUES)}"] if draw(st.booleans()) else [option, draw(VALUES)]
    return words


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(arguments=command_lines().filter(lambda words: not {"-h", "--help", "--version"} & set(words)))
def test_any_bad_command_line_is_one_line_of_error(arguments: list[str], tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        code, out, err = called(arguments)
    assert (code, out) == (2, ""), arguments
    assert err.startswith("error: ") and err.count("\n") == 1 and printable(err[:-1]) == err[:-1], (arguments, err)
    assert list(tmp_path.iterdir()) == [], arguments


TOML = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from([name for name in Config.model_fields if name != "data"]) | st.text(max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(NAMES, TOML, max_size=4), named=st.booleans())
def test_any_configuration_file_is_read_or_refused_in_one_line(
    content: dict[str, Any], named: bool, tmp_path: Path
) -> None:
    file = tmp_path / "any.toml"
    write(file, tomli_w.dumps({**content, **({"data": "nowhere"} if named else {})}))
    try:
        config = Config.from_file(file, {})
    except ConfigError as error:
        assert "\n" not in str(error) and ("any.toml" in str(error) or not named), content
    else:
        assert named and set(content) <= set(Config.model_fields)
        assert Config.of(**tomllib.loads(config.to_toml())) == config


@given(
    st.fixed_dictionaries(
        {"data": st.just("photos")},
        optional={
            "epochs": st.integers(0, 100_000) | st.just("auto"),
            "lr": st.floats(0, 10, exclude_min=True) | st.just("auto"),
            "groups": st.sampled_from(["auto", "none", "(a|b)_", "(é)"]),
            "time_limit": st.floats(0.1, 1e6) | st.sampled_from(["5m", "1.5h", "90s", "90"]),
            "split": st.sampled_from(["70/15/15", "80/20/0", (0.7, 0.15, 0.15), (1 / 3, 1 / 3, 1 / 3)]),
            "pretrained": st.booleans(),
            "cache": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
        },
    )
)
def test_settings_survive_the_file_that_a_run_keeps(asked: dict[str, Any]) -> None:
    config = Config.of(**asked)
    assert Config.of(**tomllib.loads(config.to_toml())) == config
