"""Rooms of the package: which may import which; no circle among files; no file too long or too short."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("train", "infer", "inference", "experiments", "benchmarks")

MAY_IMPORT = {  # room → the rooms that it may import; data.batch: that module alone
    "common": "",
    "config": "common",
    "media": "common",
    "weights": "common",
    "features": "common config media weights",
    "data": "common config media features score",
    "model": "common config data.batch score",
    "score": "common config media",
    "metrics": "common media features",
    "cues": "common media features score",
    "plots": "common media features metrics mix score",
    "mix": "common media",
    "checkpoints": "common config model weights",
    "generation": "common config media weights features score cues data model metrics plots mix checkpoints",
    "studio": "common media weights features cues generation plots mix",
    "diff_v2m": "common generation",  # diff_v2m/__init__.py
    "__main__": "common weights cues generation studio",  # diff_v2m/__main__.py
    "training": "common config media weights features score data model metrics plots checkpoints generation",
    "preprocess": "common config media features score data model checkpoints generation",
    "train": "common config training",
    "infer": "common config weights cues generation mix",
    "inference": "common config media features metrics plots",
    "experiments": "common config media features score cues data model metrics plots checkpoints generation training "
    "preprocess inference",
    "benchmarks": "common config media features score data model metrics plots mix checkpoints generation training "
    "preprocess infer",
}
LONGEST, SHORTEST = 400, 30
SHORT = {f"diff_v2m.common.{name}" for name in ("errors", "seeding", "versions")}  # each used by many rooms


@cache
def modules() -> dict[str, Path]:
    """Dotted name → file of every module of the product."""
    folders = ["diff_v2m", *(name for name in PROGRAMS if (ROOT / name).is_dir())]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    files += [ROOT / f"{name}.py" for name in PROGRAMS if (ROOT / f"{name}.py").exists()]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the product that this one imports anywhere: in functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: line {node.lineno}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules().keys()
            found |= {node.module} if names - modules().keys() else set()
    return frozenset(found & modules().keys() - {module})


def room_of(module: str) -> str:
    first, *rest = module.split(".")
    return rest[0] if first == "diff_v2m" and rest else first


def allowed(source: str, target: str) -> bool:
    permitted = MAY_IMPORT[room_of(source)].split()
    return room_of(target) in {room_of(source), *permitted} or target.removeprefix("diff_v2m.") in permitted


def test_every_room_is_in_the_table():
    assert {room_of(module) for module in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    sources = [module for module in modules() if room_of(module) == room]
    assert not [
        f"{source} → {target}" for source in sources for target in imports(source) if not allowed(source, target)
    ]


def test_rooms_form_no_circle():
    graph = {room: {name.partition(".")[0] for name in permitted.split()} for room, permitted in MAY_IMPORT.items()}
    TopologicalSorter(graph).prepare()


def test_files_form_no_circle():
    try:
        TopologicalSorter({module: imports(module) for module in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_files_are_neither_too_long_nor_too_short():
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in modules().items()}
    interfaces = {module for module, path in modules().items() if path.name in ("__init__.py", "__main__.py")}
    assert not {module: count for module, count in lines.items() if count > LONGEST}
    assert not {module: lines[module] for module in lines.keys() - interfaces - SHORT if lines[module] < SHORTEST}
