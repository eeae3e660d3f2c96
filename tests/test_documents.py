"""The commands that the documents show exist, with the options that they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
COMMAND = re.compile(r"^(?: {4}|\$ |)(make|snellen) ([a-z-]+)(.*)$")


def shown_commands() -> list[tuple[str, str, str]]:
    """(program, verb, the rest of the line) of each line in a code block that calls make or snellen."""
    found: set[tuple[str, str, str]] = set()
    for document in DOCUMENTS:
        fenced = False
        for line in document.read_text(encoding="utf-8").splitlines():
            fenced ^= line.startswith("```")
            if (fenced or line.startswith("    ")) and (match := COMMAND.match(line)):
                found.add((match[1], match[2], match[3]))
    return sorted(found)


COMMANDS = shown_commands()
VERBS = sorted({verb for program, verb, _ in COMMANDS if program == "snellen"})


def test_readme_shows_how_to_start() -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in shown
    assert "train" in VERBS


@pytest.mark.parametrize("target", sorted({verb for program, verb, _ in COMMANDS if program == "make"}))
def test_shown_make_target_exists(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_shown_command_and_its_options_exist(verb: str) -> None:
    command = [sys.executable, "-m", "snellen", verb, "--help"]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    known = set(re.findall(r"--[a-z][a-z-]*", done.stdout))
    rest = " ".join(rest.split("#")[0] for program, used, rest in COMMANDS if (program, used) == ("snellen", verb))
    assert set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest)) <= known
