"""Files: written atomically, identified by a hash of their content, and numpy arrays read from several threads.

Imports no torch.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.locks import one_at_a_time
from diff_v2m.common.progress import stage

REMEMBERED = 256 << 20  # bytes from which a hash is remembered: hashing takes half a second
ROOT = Path(__file__).resolve().parents[2]  # the project: configs/, saved_model/, examples/, defaults.ini
BUNDLED = ROOT / "saved_model" / "film_music"  # the model that is used where none is named, a student
TEACHER = ROOT / "saved_model" / "film_music_teacher"  # its teacher, for any number of steps


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it replaces `path`; on an error it is deleted."""
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.urandom(4).hex()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); check the folder and disk") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, indented, atomically. Raises InputError when the file cannot be written."""
    with atomic(path) as part:
        write_text(part, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write UTF-8, not atomically: into a temporary file or folder.

    A byte of a file name that is not UTF-8 becomes \\udcxx, which JSON reads back.
    """
    path.write_text(content, encoding="utf-8", errors="backslashreplace")


def user_cache(name: str) -> Path | None:
    """Folder `diff_v2m/<name>` of the user's cache ($XDG_CACHE_HOME or ~/.cache on Linux); None for an account without
    a home.
    """
    from platformdirs import user_cache_path

    try:
        return user_cache_path("diff_v2m") / name
    except RuntimeError:
        return None


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hex; read once unless the file changes. Raises InputError if it cannot be read."""
    path = Path(path)
    try:
        stat = path.stat()
        return _hash(path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name and its permissions") from None


@cache
def _hash(path: Path, size: int, modified: int, changed: int) -> str:
    if size < REMEMBERED:
        return _read_hash(path, size)
    file = {"path": str(path), "size": size, "modified": modified, "changed": changed}
    folder = user_cache("hashes")
    if folder is None:
        return _read_hash(path, size)
    memory = folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    if known := _remembered(memory, file):
        return known
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(one_at_a_time(folder))  # tasks that start together: one of them reads the file
        if known := _remembered(memory, file):
            return known
        digest = _read_hash(path, size)
        with contextlib.suppress(InputError):
            write_json(memory, {"file": file, "sha256": digest})
    return digest


def _remembered(memory: Path, file: dict[str, Any]) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no memory of it, or a damaged one
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["file"] == file and len(known["sha256"]) == 64:
            return known["sha256"]
    return None


def _read_hash(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream, stage(f"hashing {path.name}", size, "B", unit_scale=True) as bar:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


# numpy parses a header with `ast.literal_eval`, and in some releases of Python 3.11 two threads that parse at the same
# time may both fail with "AST constructor recursion depth mismatch" (python/cpython gh-106905).
_parsing = Lock()


def parse_npy(content: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file. Raises ValueError or EOFError if they are not one."""
    with _parsing:
        return np.load(BytesIO(content), allow_pickle=False)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file. Raises OSError, ValueError, EOFError or BadZipFile if it cannot be read as one."""
    with _parsing, np.load(path, allow_pickle=False) as stored:
        return dict(stored)
