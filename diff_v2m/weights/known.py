"""Weights that have a name: where they are published, how large they are, their SHA-256 and their licence.

None stands for what is not known. Sizes and hashes are those that public repositories name for these files.
"""

from dataclasses import dataclass
from pathlib import Path

from diff_v2m.common.files import ROOT


@dataclass(frozen=True)
class File:
    name: str  # in the repository
    local: str  # in the folder
    size: int | None = None  # bytes
    sha256: str | None = None


@dataclass(frozen=True)
class Known:
    what: str
    repo: str
    files: tuple[File, ...]  # the weights first
    folder: Path  # where files that were put there by hand are looked for, before the cache
    licence: str
    revision: str = "main"  # a commit where it is known
    needs: tuple[str, ...] = ()  # names of what it does not work without


KNOWN = {
    "released": Known(
        what="the checkpoint of the Diff-V2M paper, with its model JSON",
        repo="TaylorJi/Diff-V2M",
        files=(File("model_odf.ckpt", "model.ckpt"), File("model_config_odf.json", "model_config.json")),
        folder=ROOT / "saved_model",
        licence="as its authors state at huggingface.co/TaylorJi/Diff-V2M; its autoencoder comes from Stable Audio "
        "Open: Stability AI Community License",
        needs=("clip",),
    ),
    "clip": Known(
        what="CLIP ViT-B/32, the image encoder of the released model",
        repo="openai/clip-vit-base-patch32",
        revision="b33cedfd0df4e43b8238760678fcc89e1a0d38b3",  # main has no safetensors
        files=(
            File(
                "model.safetensors",
                "model.safetensors",
                605_157_884,
                "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d",
            ),
            File(
                "config.json",
                "config.json",
                4_186,
                "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770",
            ),
            File(
                "preprocessor_config.json",
                "preprocessor_config.json",
                316,
                "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd",
            ),
        ),
        folder=ROOT / "saved_model" / "clip-vit-base-patch32",
        licence="MIT",
    ),
    "stable-audio-open": Known(
        what="Stable Audio Open 1.0, whose autoencoder training starts from",
        repo="stabilityai/stable-audio-open-1.0",
        files=(
            File(
                "model.safetensors",
                "model.safetensors",
                4_853_889_016,
                "7b20458a071231aaf32613b6fbc7945f28f34dbba4f295bb49bad56f5f66b57e",
            ),
        ),
        folder=ROOT / "saved_model" / "stable_audio",
        licence="Stability AI Community License, which has to be accepted on its page first",
    ),
}
