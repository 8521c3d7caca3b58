"""One table of changes and a base → the whole JSON of every twin. Nothing here imports torch."""

import copy
import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_dataset_config, parse_model_config
from diff_v2m.config.parsing import Where, parse, read_json

TABLE = Path(__file__).resolve().parents[2] / "configs" / "ablations.json"
STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")  # of a key path: a key, or the [id] of an entry of a list


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What is different from the base: key path → value, as `model.conditioning.configs[rhythm].config.dim`."""

    title: str
    model: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)


def read_twins(path: Path = TABLE) -> dict[str, dict[str, Twin]]:
    """Group → name → twin, in the file's order. Raises InputError for anything that is none, or a name used twice."""
    groups = parse(dict[str, dict[str, Twin]], read_json(path), Where(str(path)))
    names = [name for twins in groups.values() for name in twins]
    for name in names:
        if not re.fullmatch(r"\w+", name):
            raise InputError(f"{path}: {name!r}: expected a name of letters, digits and _, since it names a folder")
        if names.count(name) > 1:
            raise InputError(f"{path}: {name}: appears twice; names belong to all groups together")
    return groups


def find_twin(name: str, path: Path = TABLE) -> Twin:
    """Raises InputError if there is none of this name."""
    twins = {known: twin for group in read_twins(path).values() for known, twin in group.items()}
    if name not in twins:
        raise InputError(f"{path}: no twin is called {name} (there are: {', '.join(twins)})")
    return twins[name]


def changed(raw: Mapping[str, Any], changes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A copy of a JSON object with other values at these key paths.

    Objects on the way are made where there are none; that every key exists is for the schema to check. `[id]` chooses
    from a list, and must be there: InputError, naming `source` and the path.
    """
    result = copy.deepcopy(dict(raw))
    for path, value in changes.items():
        where, place = Where(source, path), result
        *way, last = STEP.findall(path) or [""]
        for step in way:
            place = _entered(place, step, where)
        if not isinstance(place, dict) or not last or last.startswith("["):
            raise where.error("expected a path that ends in the key of an object")
        place[last] = copy.deepcopy(value)
    return result


def _entered(place: Any, step: str, where: Where) -> Any:
    if step.startswith("["):
        found = [entry for entry in place if entry.get("id") == step[1:-1]] if isinstance(place, list) else []
        if len(found) != 1:
            raise where.error(f"no list there has an entry of the id {step[1:-1]!r}")
        return found[0]
    if not isinstance(place, dict):
        raise where.error(f"{step!r} is asked of something that is no object")
    return place.setdefault(step, {})


def twin_names(model: Path, table: Path = TABLE) -> list[str]:
    """All twins of this base, without those that are the base itself; the first of the table always is there."""
    base, found = read_json(model), []
    for twins in read_twins(table).values():
        for name, twin in twins.items():
            if not found or changed(base, twin.model, f"{table}: {name}") != base:
                found.append(name)
    return found


def expand(name: str, model: Path, datasets: Mapping[str, Path], output: Path, table: Path = TABLE) -> None:
    """Write `output`/model.json and, for each of `datasets` (name → JSON), `output`/<name>.json, all of them checked.

    Raises InputError for a change that the schema does not know, naming its key path, and where `output` holds another
    twin: runs of one twin are to differ in their seeds alone.
    """
    twin = find_twin(name, table)
    source = f"{table}: {name}, of {model}"
    raw = changed(read_json(model), twin.model, source)
    parse_model_config(raw, source)
    files = {"model.json": raw}
    for title, path in datasets.items():
        source = f"{table}: {name}, of {path}"
        # with paths as they are found now: the copy lies in another folder
        data = parse_dataset_config(changed(read_json(path), twin.dataset, source), source, path.resolve().parent)
        files[f"{title}.json"] = dataclasses.asdict(data)
    for file, content in files.items():
        _write_once(output / file, json.dumps(content, indent=2, default=str) + "\n")


def _write_once(path: Path, text: str) -> None:
    from diff_v2m.common.files import atomic

    if path.is_file():
        if path.read_text() != text:
            raise InputError(f"{path}: is of an earlier, different table or base; remove its folder, or use another")
        return
    with atomic(path) as part:
        part.write_text(text)
