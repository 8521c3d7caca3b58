"""Names of weights: `released`, `hf:owner/repo`, `hf:owner/repo/file@revision`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from diff_v2m.common.errors import InputError
from diff_v2m.weights.known import KNOWN, Known

PREFIX = "hf:"
FORM = "hf:owner/repo[/file][@revision]"
_HUB_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(/(?P<file>[^@]+[^@/]))?(@(?P<revision>[^@\s]+))?")
USUAL = ("model.safetensors", "model.ckpt")  # names of weights that are chosen before others


@dataclass(frozen=True)
class Name:
    """Files of a repository of the hub."""

    text: str  # as given
    repo: str
    file: str | None  # None: chosen from the files that are there
    revision: str
    known: Known | None  # its entry in the table, unless another revision was asked for

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repo}"

    def choose(self, there: Collection[str]) -> list[str]:
        """Files to fetch of those in the repository: the weights, then their model JSON. Raises InputError."""
        if self.known is not None:
            wanted = [file.name for file in self.known.files]
            self._check(wanted, there)
            return wanted
        if self.file is not None:
            self._check([self.file], there)
            weights = self.file
        else:
            weights = self._choose_weights(there)
        folder = PurePosixPath(weights).parent
        beside = (str(folder / name) for name in config_names(weights))
        return [weights, *[name for name in beside if name in there][:1]]

    def _choose_weights(self, there: Collection[str]) -> str:
        found = sorted(name for name in there if name.endswith((".safetensors", ".ckpt")))
        usual = [name for name in USUAL if name in found]
        if usual or len(found) == 1:
            return (usual or found)[0]
        if found:
            raise InputError(f"{self.text}: holds several weights; name one: {PREFIX}{self.repo}/FILE, {_some(found)}")
        raise InputError(f"{self.text}: holds no .safetensors or .ckpt file; it has {_some(there)}")

    def _check(self, wanted: Collection[str], there: Collection[str]) -> None:
        missing = [name for name in wanted if name not in there]
        if missing:
            raise InputError(
                f"{self.text}: {self.repo} at {self.revision} has no {', '.join(missing)}, perhaps it was renamed; it "
                f"has {_some(there)}; name a file of it ({FORM})"
            )


def parse_name(text: str) -> Name | None:
    """What a name stands for; None if it has not the form of one. Raises InputError for a malformed `hf:` name."""
    word, _, revision = text.partition("@")
    if (known := KNOWN.get(word)) is not None:
        entry = None if revision else known
        file = known.files[0].name
        return Name(text, known.repo, file, revision or known.revision, entry)
    if not text.startswith(PREFIX):
        return None
    match = _HUB_NAME.fullmatch(text)
    if match is None:
        raise InputError(f"{text}: expected {FORM}, for example hf:openai/clip-vit-base-patch32@main")
    return Name(text, match["repo"], match["file"], match["revision"] or "main", None)


def config_names(weights: str) -> list[str]:
    """Names of the model JSON of a weights file, in its folder: model_odf.ckpt → model_config_odf.json."""
    stem = PurePosixPath(weights).stem
    own = [f"model_config{stem.removeprefix('model')}.json"] if stem.startswith("model_") else []
    return [*own, "model_config.json"]


def _some(names: Collection[str]) -> str:
    first = sorted(names)[:10]
    return ", ".join(first) + (", …" if len(names) > len(first) else "") if first else "no files"
