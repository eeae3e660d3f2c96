"""Everything that can be found has a page that says how sure it is and what to do, and the index names them all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "findings"
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src" / "snellen").rglob("*.py")}
HEADINGS = ["## What was seen", "## How sure that is", "## What to do"]
# Codes that are put together: what stands before the part that varies, and its values.
FAMILIES = {"shortcut-": ("mode", "format", "size", "resolution", "shape", "brightness")}
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+|imbalance|overfitting|outliers|miscalibrated")


@dataclass(frozen=True)
class Given:
    """An expression for a code, where it stands: its module and the functions around it, the innermost first."""

    expression: ast.expr
    module: ast.Module
    around: tuple[ast.FunctionDef, ...]


class Unclear(Exception):
    """A code that cannot be told from the source."""


def carriers(trees: Mapping[Path, ast.Module]) -> dict[str, int]:
    """Classes with a field ``code``, and its place among the fields: ``Finding``, and what findings are made from."""
    found = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                fields = [ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)]
                if "code" in fields:
                    found[node.name] = fields.index("code")
    return found


def given(trees: Mapping[Path, ast.Module]) -> Iterator[Given]:
    classes = carriers(trees)
    for tree in trees.values():
        for call, around in calls(tree):
            name = called_name(call)
            if name in classes:
                for expression in argument(call, "code", classes[name]):
                    yield Given(expression, tree, around)


def called_name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


@cache
def calls(tree: ast.Module) -> list[tuple[ast.Call, tuple[ast.FunctionDef, ...]]]:
    """Every call, with the functions around it, the innermost first."""
    found: list[tuple[ast.Call, tuple[ast.FunctionDef, ...]]] = []
    left: list[tuple[ast.AST, tuple[ast.FunctionDef, ...]]] = [(tree, ())]
    while left:
        node, around = left.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                found.append((child, around))
            left.append((child, (child, *around) if isinstance(child, ast.FunctionDef) else around))
    return found


def argument(call: ast.Call, name: str, place: int) -> Iterator[ast.expr]:
    yield from (keyword.value for keyword in call.keywords if keyword.arg == name)
    if place < len(call.args):
        yield call.args[place]


def codes(where: Given) -> set[str]:
    """What an expression can be. Raises Unclear."""
    match where.expression:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return codes(Given(body, where.module, where.around)) | codes(Given(orelse, where.module, where.around))
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), _]) if start in FAMILIES:
            return {start + end for end in FAMILIES[start]}
        case ast.Attribute(attr="code"):
            return set()  # of an object that carries it: collected where that is made
        case ast.Name(id=name):
            return by_name(name, where)
    raise Unclear(ast.unparse(where.expression))


def by_name(name: str, where: Given) -> set[str]:
    """What a name stands for: an argument of the function around, else whatever is bound to it."""
    for function in where.around:
        parameters = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        if name in parameters:
            trees = SOURCES.values() if where.module in SOURCES.values() else (where.module,)
            passed = [
                Given(expression, tree, around)
                for tree in trees
                for call, around in calls(tree)
                if called_name(call) == function.name
                for expression in argument(call, name, parameters.index(name))
            ]
            if not passed:
                raise Unclear(f"{name}, which nobody seems to give to {function.name}")
            return {code for each in passed for code in codes(each)}
    bound = {text for node in ast.walk(where.module) for text in texts_bound_to(name, node)}
    if not bound:
        raise Unclear(f"{name}, which nothing with a text is bound to")
    return bound


def texts_bound_to(name: str, node: ast.AST) -> Iterator[str]:
    """Texts with the form of a code in what is assigned to ``name``, or looped over by it."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.For | ast.comprehension | ast.AnnAssign | ast.NamedExpr):
        targets = [node.target]
    if any(isinstance(each, ast.Name) and each.id == name for target in targets for each in ast.walk(target)):
        source = node.iter if isinstance(node, ast.For | ast.comprehension) else node
        for each in ast.walk(source):
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and CODE.fullmatch(each.value):
                yield each.value


def all_codes(trees: Mapping[Path, ast.Module]) -> set[str]:
    found: set[str] = set()
    for where in given(trees):
        try:
            found |= codes(where)
        except Unclear as unclear:
            pytest.fail(f"line {where.expression.lineno}: give the code as a literal, it is {unclear}")
    return found


def page_faults(code: str, text: str) -> list[str]:
    """What a page lacks of its form."""
    lines = text.splitlines()
    faults = [] if lines[:1] == [f"# {code}"] else [f"does not begin with '# {code}'"]
    if [line for line in lines if line.startswith("## ")] != HEADINGS:
        faults.append(f"its headings are not {', '.join(HEADINGS)}")
    parts = re.split(r"^#.*$", text, flags=re.MULTILINE)[1:]
    if any(not part.strip() for part in parts):
        faults.append("one of its parts is empty")
    return faults if 10 <= len(lines) <= 25 else [*faults, f"has {len(lines)} lines, not 10 to 25"]


CODES = sorted(all_codes(SOURCES))


def test_the_checks_of_the_audit_are_among_the_codes() -> None:
    assert {"leak-across-splits", "exact-duplicates", "near-duplicates", "shortcut-shape", "too-few-images"} <= set(
        CODES
    )


@pytest.mark.parametrize("code", CODES)
def test_every_finding_has_a_page_of_the_agreed_form(code: str) -> None:
    page = PAGES / f"{code}.md"
    assert page.is_file(), f"docs/findings/{code}.md is missing"
    assert page_faults(code, page.read_text(encoding="utf-8")) == []


def test_every_page_is_of_something_that_can_be_found() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"README"} <= set(CODES)


def test_the_index_names_every_page_with_its_sentence() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "index_findings.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[([a-z0-9-]+)\]\(\1\.md\) \| (.+) \|$", index, re.MULTILINE)
    assert {name for name, _ in linked} == {page.stem for page in PAGES.glob("*.md")} - {"README"}
    assert all(sentence.endswith(".") for _, sentence in linked)


PLANTED = [
    ('Finding(code="a-b")', {"a-b"}),
    ('Finding(code="a-b" if x else "c-d")', {"a-b", "c-d"}),
    ('Finding(code=f"shortcut-{x}")', {f"shortcut-{end}" for end in FAMILIES["shortcut-"]}),
    ('def f(x, code):\n    Finding(code=code)\nf(1, "a-b")\nf(2, code="c-d")', {"a-b", "c-d"}),
    ('def f():\n    code = "a-b"\n    Finding(code=code)', {"a-b"}),
    ('for code, words in (("a-b", "Some words."), ("c-d", "Others.")):\n    Finding(code=code)', {"a-b", "c-d"}),
    ('class Doubt:\n    words: str\n    code: str\ng(Doubt("x", "a-b"))\nFinding(code=doubt.code)', {"a-b"}),
]


@pytest.mark.parametrize(("source", "found"), PLANTED, ids=range(len(PLANTED)))
def test_codes_are_found_however_they_are_given(source: str, found: set[str]) -> None:
    tree = ast.parse(f"class Finding:\n    code: str\n{source}")
    assert all_codes({Path("planted.py"): tree}) == found


def test_a_code_that_cannot_be_told_is_an_error() -> None:
    tree = ast.parse('class Finding:\n    code: str\nFinding(code=f"{x}-{y}")')
    with pytest.raises(pytest.fail.Exception, match=r"line 3: give the code as a literal"):
        all_codes({Path("planted.py"): tree})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("# imbalance", "# balance"), "does not begin with"),
        (("## How sure that is", "## How sure"), "its headings"),
        (("## What to do\n", "## What to do\n" + "\n" * 20), "lines"),
    ],
)
def test_a_page_of_another_form_is_noticed(change: tuple[str, str], fault: str) -> None:
    text = (PAGES / "imbalance.md").read_text(encoding="utf-8")
    assert page_faults("imbalance", text) == []
    assert any(fault in each for each in page_faults("imbalance", text.replace(*change)))
