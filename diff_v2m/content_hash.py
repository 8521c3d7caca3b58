"""What a file is known by, whatever it is called and wherever it lies. Light: imports no torch."""

import hashlib
from functools import cache
from pathlib import Path

from tqdm import tqdm

from diff_v2m.errors import InputError


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hex; read once a process unless it changes. Raises InputError if it cannot be read."""
    path = Path(path)
    try:
        stat = path.stat()
        return _hash(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name and its permissions") from None


@cache
def _hash(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    bar = tqdm(total=size, desc=f"hashing {path.name}", unit="B", unit_scale=True, delay=2, leave=False)
    with path.open("rb") as stream, bar:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
