"""What the command line prints: for people, for scripts, under odd names, and how little it loads for it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import FAST, called, tree, write
from conftest import FinishedRun
from shapes import save_folders
from snellen.cli import run
from snellen.core.config import Config
from snellen.core.console import Console, printable


def test_json_is_the_only_thing_on_standard_output(finished_run: FinishedRun) -> None:
    assert finished_run.exit_code == 0, finished_run.stderr
    told = json.loads(finished_run.stdout)
    assert (told["run"], told["status"]) == (str(finished_run.folder), "done")
    assert told["splits"]["test"]["accuracy"]["n"] > 0
    assert told["verdict"] in finished_run.stderr


def test_json_of_the_other_verbs(finished_run: FinishedRun, tmp_path: Path) -> None:
    code, out, err = called(["audit", str(finished_run.data), "--json", "--out", str(tmp_path / "audit")])
    assert (code, json.loads(out)["folder"]) == (0, str(tmp_path / "audit"))
    assert "30 images of 3 classes" in err
    code, out, err = called(["evaluate", str(finished_run.folder), str(finished_run.data), "--json"])
    assert (code, json.loads(out)["splits"]["shapes"]["accuracy"]["n"]) == (0, 30)
    code, out, err = called(["predict", str(finished_run.folder), str(finished_run.data / "square"), "--json"])
    assert (code, len(json.loads(out)["predictions"])) == (0, 10)
    assert err.count("\n") == 10


def test_output_for_a_file_has_no_control_characters_and_a_line_an_epoch(finished_run: FinishedRun) -> None:
    lines = finished_run.stderr.split("\n")
    assert all(printable(line) == line for line in lines)
    assert len([line for line in lines if re.search(r"\b\d+/2\b", line)]) == 2  # epochs


def test_choices_are_told_by_the_names_of_their_options(finished_run: FinishedRun) -> None:
    named = set(re.findall(r"^  --([a-z-]+) .*  \S", finished_run.stderr, re.MULTILINE))
    assert {"model", "batch-size", "lr", "input-size", "augment"} <= named
    assert named <= {name.replace("_", "-") for name in Config.model_fields}
    assert not named & {"epochs", "device", "threads", "workers"}, "these were not chosen, but given"


def test_broken_image_is_named_and_the_others_are_predicted(finished_run: FinishedRun, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(finished_run.data / "circle", mixed)
    (mixed / "005.png").write_bytes((mixed / "005.png").read_bytes()[:60])
    (mixed / "folder.png").mkdir()
    code, out, err = called(["predict", str(finished_run.folder), str(mixed)])
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [Path(line.split("  ")[0]).name for line in lines] == [f"{i:03}.png" for i in range(10)]
    assert ["not read: " in line for line in lines] == [i == 5 for i in range(10)]


def test_images_that_can_all_not_be_read_are_an_error_beside_the_answers(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / name, "junk")
    code, out, err = called(["predict", str(finished_run.folder), str(tmp_path), "--json"])
    assert (code, len(json.loads(out)["predictions"])) == (2, 2)
    assert err.splitlines()[-1].startswith("error: none of the 2 images")


ODD = 'it\'s "my" 📷\nphotos é'


def test_odd_names_of_folders_classes_and_files_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = save_folders(tmp_path / ODD, per_class=8, side=8)
    (data / "circle").rename(data / "a 🐈\n\x1b[31mcat")
    (data / "square" / "000.png").rename(data / "square" / "-- 'x'\n🐕.png")
    settings = ["--out", ODD + " run", "--cache", ODD + " cache", *FAST.split()]
    code, out, err = called(["train", ODD, *settings])
    assert (code, err) == (0, "")
    assert "\x1b" not in out and 'it\'s "my" 📷' in out
    code, out, err = called(["predict", ODD + " run", f"{ODD}/square/-- 'x'\n🐕.png"])
    assert (code, err, out.count("\n")) == (0, "", 1)
    code, out, err = called(["evaluate", ODD + " run", "--json"])
    assert (code, set(json.loads(out)["splits"])) == (0, {"val", "test"})


def test_names_cannot_command_the_terminal() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    Console(stream).say("red \x1b[31m\u202e back\r\n \udcff 🐈")
    stream.seek(0)
    assert stream.read() == "red \\x1b[31m\\u202e back\\r\\n \\udcff ?\n"
    assert printable("é 🐈 👩‍🔬 نص") == "é 🐈 👩‍🔬 نص"


def test_bar_on_a_terminal_shows_any_name_and_vanishes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    console = Console(Terminal())
    with console.progress("Evaluating [/] \x07{name}", 3) as advance:
        advance(3, 3)
    console.say("done")
    assert isinstance(console.stream, Terminal)
    shown = console.stream.getvalue()
    assert "Evaluating [/] \\x07{name}" in shown and "\x07" not in shown
    assert shown.endswith("done\n")


def test_closed_output_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console = Console()
    console.say("nobody listens")
    with console.progress("Waiting", 3) as advance:
        advance(1, 3)


# ---- in processes of their own


def in_a_process(
    command: list[str], home: Path, folder: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    fresh = {"HOME": str(home), "TMPDIR": str(home), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "snellen", *command],
        cwd=folder,
        env={**kept, **fresh, **environment},
        capture_output=True,
        check=False,
    )


def test_train_writes_its_folder_and_the_cache_only_even_in_a_poor_locale(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    data = save_folders(folder / "photos", per_class=8, side=16)
    shutil.copytree(data / "circle", data / "🐈")
    before = tree(folder)
    pretrained = "--model tf_efficientnet_lite0 --input-size 32 --epochs 0"
    command = ["train", "photos", *pretrained.split(), "--threads", "1", "--out", "run", "--json"]
    done = in_a_process(command, home, folder, LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert (told["status"], told["shipped"]) == ("done", "linear probe")
    assert b"\x1b" not in done.stderr + done.stdout
    assert {path.split("/")[0] for path in tree(folder) - before} == {"run"}
    written = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert written and all(path.startswith(".cache/snellen/") for path in written), written


@pytest.mark.parametrize(
    ("arguments", "kept_out"),
    [
        (["--version"], {"pydantic", "rich", "numpy", "PIL", "torch"}),
        (["--help"], {"pydantic", "numpy", "PIL", "torch", "markdown_it"}),
        (["train", "--help"], {"numpy", "PIL", "torch", "markdown_it"}),
        (["train", "nowhere"], {"torch", "scipy", "sklearn", "matplotlib"}),
    ],
)
def test_quick_answers_load_little(arguments: list[str], kept_out: set[str]) -> None:
    script = f"import sys; from snellen.cli import run; run({arguments}); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    loaded = set(done.stdout.splitlines())
    assert "snellen.cli" in loaded and not loaded & kept_out


def test_interrupted_command_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("snellen.api.auditing.audit", interrupted)
    assert called(["audit", "photos"]) == (130, "", "error: interrupted\n")


def test_reader_that_goes_away_ends_the_command_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert run(["--version"]) == 141
    assert sys.stdout is None  # or Python would complain when it flushes


def test_help_names_the_choices_and_the_defaults() -> None:
    code, out, _ = called(["train", "--help"])
    flat = re.sub(r"[\s│]+", " ", out)
    assert code == 0
    assert "One of auto, squash, center crop, letterbox." in flat
    assert "as 70/15/15. Default: 70/15/15." in flat


def test_help_of_predict_names_all_that_answers() -> None:
    _, out, _ = called(["predict", "--help"])
    assert "The folder that 'snellen train', 'ensemble' or 'export' wrote." in re.sub(r"[\s│]+", " ", out)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(["a is missing"], "verified: a is missing"), (["a", "b"], "verified: 2 differences, the first: a")],
)
def test_differences_of_an_artifact_are_counted_where_there_are_several(
    wrong: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snellen.api.exporting.verify", lambda *_, **__: wrong)
    code, _, err = called(["verify", "artifact"])
    assert code == 1 and words in err


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert called(["--version"]) == (0, version("snellen") + "\n", "")
