"""Files of the Hugging Face hub, through huggingface_hub: its cache, its resuming, HF_ENDPOINT, HF_HOME, HF_TOKEN and
HF_HUB_OFFLINE.

What is in the cache is used without asking the hub: a name keeps its weights until `weights get` asks for newer ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from diff_v2m.weights.names import Name, parse_name

log = logging.getLogger(__name__)

TIMEOUT = 20.0  # seconds until the hub counts as out of reach
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(name: Name, *, update: bool = False) -> list[Path]:
    """The files of a name on this machine, the weights first, and those that it needs. Raises InputError.

    A download is announced: files, size, licence. Each file is checked against its SHA-256, if that is known. update:
    ask the hub, even if the files are here.
    """
    needs = [parse_name(need) for need in name.known.needs] if name.known else []
    absent = [each for each in (name, *needs) if update or find(each) is None]
    for need in needs:
        _get(need, absent)
    return _get(name, absent)


def _get(name: Name, absent: list[Name]) -> list[Path]:
    """absent: what is downloaded in this call, this name or others."""
    paths = _download(name, absent) if name in absent else find(name) or []
    for path in paths:
        check(name, path)
    return paths


def find(name: Name) -> list[Path] | None:
    """The files of a name on this machine: put there by hand, or in the cache. None: not here."""
    if name.known is not None:
        here = [name.known.folder / file.local for file in name.known.files]
        if here[0].is_file():
            return [path for path in here if path.is_file()]
    return _in_cache(name)


def expected_sha256(name: Name, path: Path) -> str | None:
    """The published SHA-256 of a file: of the table, else that by which the cache names large files."""
    if name.known is not None:
        for file in name.known.files:
            if path.name in (file.name, file.local) and file.sha256 is not None:
                return file.sha256
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return blob if _SHA256.fullmatch(blob) else None


def check(name: Name, path: Path) -> None:
    """InputError if a file is not the published one. Such a file is removed from the cache."""
    expected = expected_sha256(name, path)
    if expected is None or (found := content_hash(path)) == expected:
        return
    if not path.parent.resolve().is_relative_to(cache_folder().resolve()):  # put there by hand
        raise InputError(
            f"{path}: is not the {path.name} of {name.page}: SHA-256 {found}, expected {expected}; download it again"
        )
    path.resolve().unlink(missing_ok=True)
    path.unlink()
    raise InputError(
        f"{name.text}: {path.name} is damaged or another file (SHA-256 {found}, expected {expected}) and has been "
        "removed; run it again, or choose another mirror with HF_ENDPOINT"
    )


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def size_text(count: float) -> str:
    """Bytes as a text of three digits or less."""
    factor, unit = next(((f, u) for f, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= f), (1, "B"))
    return f"{count / factor:.3g} {unit}"


def _in_cache(name: Name) -> list[Path] | None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    if name.known is not None:
        found = [try_to_load_from_cache(name.repo, file.name, revision=name.revision) for file in name.known.files]
        return [Path(path) for path in found] if all(isinstance(path, str) for path in found) else None
    try:
        folder = Path(snapshot_download(name.repo, revision=name.revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    try:
        return [folder / file for file in name.choose(there)]
    except InputError:  # other files of that repository
        return None


def _download(name: Name, absent: list[Name]) -> list[Path]:
    from huggingface_hub import HfApi, try_to_load_from_cache

    with in_one_line(name, absent):
        hub = HfApi()
        about = hub.model_info(name.repo, revision=name.revision, files_metadata=True, timeout=TIMEOUT)
        sizes = {file.rfilename: file.size or 0 for file in about.siblings or []}
        files = name.choose(sizes)
        missing = [f for f in files if not isinstance(try_to_load_from_cache(name.repo, f, revision=about.sha), str)]
        if missing:
            total = sum(sizes[file] for file in missing)
            card = about.card_data.license if about.card_data else None
            licence = name.known.licence if name.known else card or "not stated"
            cache = cache_folder()
            log.info(
                "%s: downloading %s of %s at %s (%s, licence: %s) into %s",
                name.text,
                " and ".join(missing),
                f"{hub.endpoint}/{name.repo}",
                (about.sha or name.revision)[:12],
                size_text(total),
                licence,
                cache,
            )
            _check_space(name, total, cache)
        start = time.monotonic()
        paths = [Path(hub.hf_hub_download(name.repo, file, revision=name.revision)) for file in files]
        if missing:
            log.info("%s: downloaded in %.0f s", name.text, time.monotonic() - start)
        return paths


def _check_space(name: Name, size: int, folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    if (free := shutil.disk_usage(there).free) < size:
        raise InputError(
            f"{name.text}: needs {size_text(size)} in {folder}, where {size_text(free)} are free; make room, or set "
            "HF_HOME to another folder"
        )


@contextlib.contextmanager
def in_one_line(name: Name, absent: list[Name], done: str = "downloaded") -> Iterator[None]:
    """What huggingface_hub raises, as an InputError that says what to do. absent: what would be fetched by hand."""
    import httpx2
    from huggingface_hub import errors

    log_in = "`hf auth login`, or HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name.text}: its publisher wants its licence accepted first: open {name.page}, accept it, then log in "
            f"({log_in})"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name.text}: {name.repo} has no revision {name.revision}; see {name.page}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name.text}: no repository {name.repo} on the hub, or it is private: check its name at {name.page}, or "
            f"log in ({log_in})"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise InputError(f"{name.text}: a file of {name.repo} has gone meanwhile; run it again") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = f"log in ({log_in})" if status in (401, 403) else "try again later, or set HF_ENDPOINT to a mirror"
        raise InputError(f"{name.text}: the hub answers with status {status}; {advice}") from error
    except (ConnectionError, errors.LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise InputError(_without_network(absent, error)) from error
    except OSError as error:
        reason = (error.strerror or str(error)).strip().partition("\n")[0]
        raise InputError(f"{name.text}: cannot be {done} ({reason}); run it again") from error


def _without_network(absent: list[Name], error: Exception) -> str:
    """One line: which files to fetch by other means, and where they belong."""
    from huggingface_hub import constants

    reason = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else str(error).strip().partition("\n")[0]
    places = []
    for name in absent:
        if name.known is None:
            wanted = name.file or "the weights and their model_config.json"
            places.append(f"download {wanted} of {name.page}, and give the path")
        else:
            files = ", ".join(f"{file.name} as {name.known.folder / file.local}" for file in name.known.files)
            places.append(f"put there, from {name.page}: {files}")
    return f"{absent[0].text}: not on this machine, and the hub cannot be reached ({reason}); {'; '.join(places)}"
