"""The base of all config models: strict and frozen, with errors that name file, key path and expected value."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from diff_v2m.common.errors import InputError

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
# Strict pydantic refuses a list for a tuple and a string for a path, which is all that JSON has.
ListOf = Annotated[tuple[T, ...], Strict(False)]
PairOf = Annotated[tuple[T, T], Strict(False)]
FilePath = Annotated[Path, BeforeValidator(lambda given: Path(given) if given and isinstance(given, str) else given)]

EXPECTED = {  # pydantic's error types → what was expected
    "bool_type": "true or false",
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
    "greater_than": "a number above {gt:g}",
    "less_than": "a number below {lt:g}",
    "is_instance_of": "a path",
    "literal_error": "one of {expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of {max_length}",
    "dict_type": "an object",
    "model_attributes_type": "an object",
}


class Config(BaseModel):
    """Attributes are named as the JSON keys and nested as the JSON nests. Fields with `exclude` are no JSON keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        """Refuse what is no object, and unknown keys with the most similar known one."""
        known = [name for name, field in cls.model_fields.items() if not field.exclude]
        if not isinstance(given, dict | cls):
            raise invalid(f"expected an object with {', '.join(known)}, got {_shown(given)}")
        for key in given if isinstance(given, dict) else ():
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
                raise invalid(f"unknown key ({hint})", key)
        return given


def invalid(message: str, *location: str | int) -> ValidationError:
    """The error for the value at `location`, a key path that starts at the model whose validator raises it."""
    text = message.encode(errors="backslashreplace").decode()  # pydantic refuses lone surrogates, which JSON can hold
    problem = PydanticCustomError("invalid", "{message}", {"message": text})
    return ValidationError.from_exception_data("config", [{"type": problem, "loc": location, "input": None}])


def validated(schema: TypeAdapter[T], given: Any, source: str) -> T:
    """JSON content as `schema` describes it. Raises InputError for the first error, naming `source` and key path."""
    try:
        return schema.validate_python(given)
    except ValidationError as error:
        path, problem = _described(error.errors(include_url=False)[0], given)
        raise InputError(f"{source}: {path}: {problem}" if path else f"{source}: {problem}") from None


def _described(error: ErrorDetails, given: Any) -> tuple[str, str]:
    """Key path and problem."""
    kind, location, value, context = error["type"], error["loc"], error["input"], error.get("ctx", {})
    if kind.startswith("union_tag"):  # pydantic locates the error at the object whose key should choose the schema
        key = context["discriminator"].strip("'")
        key = "type" if key.endswith("()") else key  # a function that reads `type` and knows what its absence means
        similar = difflib.get_close_matches(key, map(str, value), n=1)
        location, value = (*location, key), value.get(key)
    if kind == "union_tag_not_found":
        problem = f"missing key (misspelt as {similar[0]}?)" if similar else "missing key"
    elif kind == "missing":
        problem = "missing key" if isinstance(location[-1], str) else "missing value"
    elif kind == "invalid":
        problem = error["msg"]
    elif kind in EXPECTED:
        problem = f"expected {EXPECTED[kind].format(**context)}, got {_shown(value)}"
    else:
        problem = f"{error['msg']}, got {_shown(value)}"
    return _key_path(location, given), problem


def _key_path(location: tuple[str | int, ...], given: Any) -> str:
    """`datasets[1].id`. pydantic's locations also hold the tag of a chosen union member, which is not a key."""
    path, place = "", given
    for part in location:
        if isinstance(place, dict) and part not in place and part in place.values():
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        try:
            place = place[part]
        except (KeyError, IndexError, TypeError):
            place = None
    return path.removeprefix(".")


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
