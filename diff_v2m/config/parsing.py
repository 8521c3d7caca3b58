"""JSON → frozen dataclasses, driven by their type hints.

The hints are the schema: `int`, `float` (an int will do), `bool`, `str`, `Path`, `Literal`, `X | None`,
`tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, nested dataclasses, `Annotated[number, Range(...)]`, and fields whose
type depends on a sibling (`chosen_by`). A field without default is a required key.
"""

import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from diff_v2m.common.errors import InputError


@dataclass(frozen=True)
class Range:
    """Closed interval that a number must lie in."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high == math.inf else f"between {self.low:g} and {self.high:g}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
NonNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1)]


def chosen_by(key: str, choices: dict[str, Any]) -> dict[str, Any]:
    """Field metadata: the type of this field is `choices[value of the sibling `key`]`, which stands before it."""
    return {"key": key, "choices": choices}


@dataclass(frozen=True)
class Where:
    """A place in a file, for error messages."""

    source: str
    path: str = ""

    def child(self, key: str | int) -> "Where":
        if isinstance(key, int):
            return Where(self.source, f"{self.path}[{key}]")
        return Where(self.source, f"{self.path}.{key}" if self.path else key)

    def error(self, problem: str) -> InputError:
        return InputError(f"{self.source}: {self.path}: {problem}" if self.path else f"{self.source}: {problem}")


def parse(hint: Any, value: Any, where: Where) -> Any:
    """`value` as an instance of `hint`; InputError naming the place if it is none."""
    if is_dataclass(hint):
        return _parse_dataclass(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        number = parse(arguments[0], value, where)
        if not arguments[1].low <= number <= arguments[1].high:
            raise where.error(f"expected a number {arguments[1]}, got {_shown(value)}")
        return number
    if origin is Literal:
        # `in` alone would let true pass for 1.
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise where.error(f"expected one of {', '.join(map(str, arguments))}, got {_shown(value)}")
        return value
    if origin in (typing.Union, types.UnionType):  # only `X | None` is used
        return None if value is None else parse(arguments[0], value, where)
    if origin is tuple:
        return _parse_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise where.error(f"expected an object, got {_shown(value)}")
        return {key: parse(arguments[1], item, where.child(key)) for key, item in value.items()}
    return _parse_scalar(hint, value, where)


def _parse_scalar(hint: Any, value: Any, where: Where) -> Any:
    if hint is bool and isinstance(value, bool) or hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
        raise where.error(f"expected a finite number, got {value}")
    expected = {bool: "true or false", str: "a string", Path: "a path", int: "a whole number", float: "a number"}[hint]
    raise where.error(f"expected {expected}, got {_shown(value)}")


def _parse_tuple(arguments: tuple, value: Any, where: Where) -> tuple:
    if not isinstance(value, list | tuple):
        raise where.error(f"expected a list, got {_shown(value)}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise where.error(f"expected a list of {len(arguments)}, got {len(value)} values")
    items = zip(arguments, value, strict=True)
    return tuple(parse(hint, item, where.child(index)) for index, (hint, item) in enumerate(items))


def _parse_dataclass(cls: type, value: Any, where: Where) -> Any:
    if not isinstance(value, dict):
        raise where.error(f"expected an object with {', '.join(_names(_json_fields(cls)))}, got {_shown(value)}")
    known = _json_fields(cls)
    for key in value:
        if key not in _names(known):
            raise where.child(key).error("unknown key " + _suggestion(key, _names(known)))
    given: dict[str, Any] = {}
    for entry in known:
        if entry.name in value:
            if "choices" in entry.metadata:
                hint = entry.metadata["choices"][given[entry.metadata["key"]]]
            else:
                hint = _hints(cls)[entry.name]
            given[entry.name] = parse(hint, value[entry.name], where.child(entry.name))
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise where.child(entry.name).error("missing key")
    return cls(**given)


def _json_fields(cls: type) -> tuple[Field, ...]:
    return tuple(entry for entry in fields(cls) if "not_in_json" not in entry.metadata)


def _names(known: Iterable[Field]) -> list[str]:
    return [entry.name for entry in known]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _suggestion(key: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1)
    return f"(did you mean {close[0]}?)" if close else f"(known here: {', '.join(names)})"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; InputError with line and column where it is none.

    A key that appears twice in one object is refused: JSON readers keep the last one silently.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{path}: key {key!r} appears twice in one object; remove one of them")
            found[key] = value
        return found

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file (expected UTF-8 text)") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}; expected a JSON file") from error
