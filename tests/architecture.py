"""The rules of the house, each a function from a package's folder to the breaches it finds. Reads, never imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "snellen"

# From the caller to the called: a room imports only from layers to its right; rooms of one layer are strangers.
LAYERS = (
    ("cli",),
    ("lab",),
    ("api",),
    ("report", "serve"),
    ("doctor",),
    ("train", "audit", "export"),
    ("explain",),
    ("evaluate", "predict", "ensemble", "compare"),
    ("tasks",),
    ("data", "nn", "metrics", "draw"),
    ("core",),
)
FRONT_DOOR = {"": "cli", "__main__": "cli"}  # the package itself, and `python -m`
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}

SHAPELESS_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

Rule = Callable[[Path], list[str]]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def module_name(package: Path, path: Path) -> str:
    """``snellen/data/split.py`` is ``snellen.data.split``; a folder's ``__init__.py`` goes by the folder's name."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported_names(package: Path, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, also those inside functions; relative ones are made absolute.

    ``from snellen.data import split`` is told as ``snellen.data.split``, whether that is a module or a function.
    """
    here = module_name(package, path).split(".")
    parents = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            start = [*base, *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)


@cache
def module_names(package: Path) -> frozenset[str]:
    found = {module_name(package, source) for source in sources(package)}
    return frozenset(found | {f"{PACKAGE}.{room}" for room in LEVEL})


def own_imports(package: Path, path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import from the package itself: the longest part of the name that is a module."""
    modules = module_names(package)
    for line, name in imported_names(package, path):
        if name.split(".")[0] == PACKAGE:
            while name not in modules and "." in name:
                name = name.rpartition(".")[0]
            yield line, name


def room_of(module: str) -> str:
    room = module.removeprefix(PACKAGE).lstrip(".").split(".")[0]
    return FRONT_DOOR.get(room, room)


def imports_go_right(package: Path) -> list[str]:
    breaches = []
    for path in sources(package):
        room = room_of(module_name(package, path))
        if room not in LEVEL:
            breaches.append(f"{path}: the room '{room}' has no place in LAYERS")
            continue
        for line, module in own_imports(package, path):
            other = room_of(module)
            if other != room and LEVEL.get(other, -1) <= LEVEL[room]:
                breaches.append(f"{path}:{line}: {room} imports {module}")
    return breaches


def task_slices_are_strangers(package: Path) -> list[str]:
    """Nothing in tasks/ imports another task. What several share lies in a folder there that TASKS does not name."""
    if not (package / "tasks" / "base.py").exists():
        return []
    named = {target.split(".")[2] for target in (task_table(package) or {}).values()}
    folders = {folder.name for folder in (package / "tasks").glob("*/")}

    def slice_of(module: str) -> str | None:
        parts = module.split(".")
        return parts[2] if parts[1:2] == ["tasks"] and parts[2:3] and parts[2] in folders else None

    return [
        f"{path}:{line}: the slice {here} imports {module}"
        for path in sources(package)
        for line, module in own_imports(package, path)
        if (here := slice_of(module_name(package, path))) and (there := slice_of(module)) in named and here != there
    ]


def names_say_something(package: Path) -> list[str]:
    return [
        f"{path}: what is in it has a better name"
        for path in sources(package)
        for part in module_name(package, path).split(".")[1:]
        if SHAPELESS_NAMES & set(part.split("_"))
    ]


def no_import_cycles(package: Path) -> list[str]:
    """An import inside a function counts: it hides a cycle, it does not undo it."""
    graph = {
        module_name(package, path): {module for _, module in own_imports(package, path)} for path in sources(package)
    }
    graph = {module: used - {module} for module, used in graph.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def budgets_are_kept(package: Path) -> list[str]:
    breaches = []
    for path in sources(package):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            breaches.append(f"{path}: {lines} lines; a file has at most {MAX_FILE_LINES}")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    breaches.append(
                        f"{path}:{node.lineno}: {node.name} has {lines} lines; at most {MAX_FUNCTION_LINES}"
                    )
    return breaches


def task_table(package: Path) -> dict[str, str] | None:
    """TASKS of tasks/base.py, read as the literal it has to be; None where there is none."""
    for node in parsed(package / "tasks" / "base.py").body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "TASKS" for target in targets):
            try:
                return dict(ast.literal_eval(node.value))  # type: ignore[attr-defined]
            except (ValueError, TypeError):
                return None
    return None


def code_lines(path: Path) -> Iterator[str]:
    """The code of a file, a statement a line; comments and docstrings are left out, for they couple nothing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    yield from ast.unparse(tree).splitlines()


def snake_case(code: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", code).lower()


def loop_names_no_task(package: Path) -> list[str]:
    base = package / "tasks" / "base.py"
    if not base.exists():
        return []
    tasks = task_table(package)
    if not tasks:
        return [f"{base}: no literal table TASKS"]
    classes = "|".join(re.escape(target.partition(":")[2]) for target in tasks.values())
    names = "|".join(map(re.escape, tasks))
    named = re.compile(rf"\b({classes})\b|(?<![a-z])({names})(?![a-z])")
    return [
        f"{path}: names the task '{match.group()}': {line.strip()}"
        for path in sources(package / "train")
        for line in code_lines(path)
        if (match := named.search(line) or named.search(snake_case(line)))
    ]


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a file with the full dotted name of what it calls: ``np.load(...)`` is ``numpy.load``."""
    known: dict[str, str] = {}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield node, known.get(first, first) + dot + rest


def keyword(call: ast.Call, name: str) -> object:
    """The literal given to a call by this name, or None; a value that is only known at run time counts as None."""
    for given in call.keywords:
        if given.arg == name and isinstance(given.value, ast.Constant):
            return given.value.value
    return None


def no_pickle(package: Path) -> list[str]:
    breaches = []
    for path in sources(package):
        for line, name in imported_names(package, path):
            if name.split(".")[0] in PICKLERS:
                breaches.append(f"{path}:{line}: imports {name}")
        for call, name in calls(path):
            if name == "torch.save" or name.endswith(".read_pickle"):
                breaches.append(f"{path}:{call.lineno}: {name} is a pickle")
            if (
                name in ("torch.load", "torch.hub.load_state_dict_from_url")
                and keyword(call, "weights_only") is not True
            ):
                breaches.append(f"{path}:{call.lineno}: {name} without weights_only=True")
            passed = any(given.arg == "allow_pickle" for given in call.keywords)
            if name in ("numpy.load", "numpy.save") and passed and keyword(call, "allow_pickle") is not False:
                breaches.append(f"{path}:{call.lineno}: {name} with allow_pickle")
    return breaches


def no_code_from_strings(package: Path) -> list[str]:
    forbidden = {"eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"}
    return [
        f"{path}:{call.lineno}: calls {name}"
        for path in sources(package)
        for call, name in calls(path)
        if name in forbidden
    ]


def every_room_says_what_it_is_for(package: Path) -> list[str]:
    """In one line; a blank line and more may follow."""
    return [
        f"{path}: needs a docstring whose first line says what is in here"
        for path in sources(package)
        if path.name == "__init__.py" and path.parent != package
        if not re.match(r"\S.*\.(\n\n|$)", ast.get_docstring(parsed(path)) or "")
    ]


RULES: tuple[Rule, ...] = (
    imports_go_right,
    task_slices_are_strangers,
    names_say_something,
    no_import_cycles,
    budgets_are_kept,
    loop_names_no_task,
    no_pickle,
    no_code_from_strings,
    every_room_says_what_it_is_for,
)
