"""configs/ablations.json + a base → the complete JSON of every variant. Imports no torch."""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.config import Config, parse_dataset_config, parse_model_config, read_json, validated

TABLE = ROOT / "configs" / "ablations.json"
STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")  # of a key path: a key, or the [id] of an entry of a list


class Variant(Config):
    """Changes to the base: key path → value, as in `model.conditioning.configs[rhythm].config.dim`."""

    title: str
    model: dict[str, Any] = {}
    dataset: dict[str, Any] = {}


def read_variants(path: Path = TABLE) -> dict[str, dict[str, Variant]]:
    """Group → name → variant, in the file's order. Raises InputError for invalid entries and repeated names."""
    groups = validated(TypeAdapter(dict[str, dict[str, Variant]]), read_json(path), str(path))
    names = [name for variants in groups.values() for name in variants]
    for name in names:
        if not re.fullmatch(r"\w+", name):
            raise InputError(f"{path}: {name!r}: expected a name of letters, digits and _, since it names a folder")
        if names.count(name) > 1:
            raise InputError(f"{path}: {name}: appears twice; expected names that are unique across groups")
    return groups


def find_variant(name: str, path: Path = TABLE) -> Variant:
    """Raises InputError if no variant has this name."""
    variants = {known: variant for group in read_variants(path).values() for known, variant in group.items()}
    if name not in variants:
        raise InputError(f"{path}: no variant is called {name} (there are: {', '.join(variants)})")
    return variants[name]


def changed(raw: Mapping[str, Any], changes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A copy of a JSON object with other values at these key paths.

    Missing objects on the way are created; the schema checks the keys later. `[id]` selects an entry of a list. Raises
    InputError, with `source` and the path, if there is no such entry.
    """
    result = copy.deepcopy(dict(raw))
    for path, value in changes.items():
        where, place = f"{source}: {path}", result
        *way, last = STEP.findall(path) or [""]
        for step in way:
            place = _entered(place, step, where)
        if not isinstance(place, dict) or not last or last.startswith("["):
            raise InputError(f"{where}: expected a path that ends in the key of an object")
        place[last] = copy.deepcopy(value)
    return result


def _entered(place: Any, step: str, where: str) -> Any:
    if step.startswith("["):
        found = [entry for entry in place if entry.get("id") == step[1:-1]] if isinstance(place, list) else []
        if len(found) != 1:
            raise InputError(f"{where}: no list there has an entry of the id {step[1:-1]!r}")
        return found[0]
    if not isinstance(place, dict):
        raise InputError(f"{where}: {step!r} is looked up in a value that is not an object")
    return place.setdefault(step, {})


def variant_names(model: Path, table: Path = TABLE) -> list[str]:
    """All variants that differ from this base, and the first of the table, which is the base itself."""
    base, found = read_json(model), []
    for variants in read_variants(table).values():
        for name, variant in variants.items():
            if not found or changed(base, variant.model, f"{table}: {name}") != base:
                found.append(name)
    return found


def expand(name: str, model: Path, datasets: Mapping[str, Path], output: Path, table: Path = TABLE) -> None:
    """Write `output`/model.json and, for each of `datasets` (name → JSON), `output`/<name>.json, all validated.

    Raises InputError, with the key path, for a change that the schema does not know, and if `output` holds another
    variant, because runs of one variant may differ in their seeds only.
    """
    variant = find_variant(name, table)
    source = f"{table}: {name}, of {model}"
    raw = changed(read_json(model), variant.model, source)
    parse_model_config(raw, source)
    files = {"model.json": raw}
    for title, path in datasets.items():
        source = f"{table}: {name}, of {path}"
        # with absolute paths, since the copy is in another folder
        data = parse_dataset_config(changed(read_json(path), variant.dataset, source), source, path.resolve().parent)
        files[f"{title}.json"] = data.model_dump(mode="json")
    for file, content in files.items():
        _write_once(output / file, json.dumps(content, indent=2) + "\n")


def _write_once(path: Path, text: str) -> None:
    from diff_v2m.common.files import atomic

    if path.is_file():
        if path.read_text() != text:
            raise InputError(
                f"{path}: belongs to an earlier, different table or base; remove its folder or give another"
            )
        return
    with atomic(path) as part:
        part.write_text(text)
