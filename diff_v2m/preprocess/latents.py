"""`python -m diff_v2m.preprocess latents`: soundtracks → latents and rhythm targets, encoded once.

One file per clip in the folder that the dataset JSON names as `latents`; data/latent_store.py has the format. Files
that are up to date are kept, so a stopped run resumes. Several processes may share the work (`--part`).
"""

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diff_v2m.common import cli
from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import in_stage
from diff_v2m.common.seeding import text_seed
from diff_v2m.config import CAST_DTYPES
from diff_v2m.generation.inputs import Failure

if TYPE_CHECKING:  # takes seconds to import; --help does without
    from torch import Tensor

    from diff_v2m.config import DatasetConfig, DatasetEntry, ModelConfig
    from diff_v2m.data.audio_folder import FolderClip
    from diff_v2m.data.crops import Clip, Crop
    from diff_v2m.data.latent_store import Provenance
    from diff_v2m.model.pretransform import Pretransform

log = logging.getLogger(__name__)


SUMMARY = "encode the soundtracks of a data set once, for training"
DESCRIPTION = "Encode the soundtracks of a data set once, with their rhythm targets, for training to read."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset-config",
        required=True,
        type=Path,
        metavar="JSON",
        help="data set; each of its entries names a `latents` folder",
    )
    parser.add_argument("--model-config", required=True, type=Path, metavar="JSON", help="model to be trained")
    parser.add_argument(
        "--pretransform-ckpt-path",
        required=True,
        type=Path,
        metavar="FILE",
        help="weights of the autoencoder, as for train.py",
    )
    parser.add_argument(
        "--encodings",
        type=cli.whole_number(1),
        default=2,
        metavar="N",
        help="encodings per clip at most (default 2), each of a different crop or with inverted polarity; one if the "
        "dataset JSON asks for neither",
    )
    parser.add_argument(
        "--dtype", choices=("fp16", "bf16"), default="fp16", help="precision of the latents on disk (default fp16)"
    )
    cli.add_part(parser, of="clip")
    parser.add_argument("--overwrite", action="store_true", help="replace latents that another autoencoder made")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")


def run(options: argparse.Namespace) -> list[Failure]:
    """Encode every set. Returns the failures. Raises InputError if nothing can be done."""
    import torch

    from diff_v2m.checkpoints.loading import load_vae_weights
    from diff_v2m.config import load_dataset_config, load_model_config, whole_model
    from diff_v2m.model.pretransform import build_pretransform

    device = pick_device(options.device)
    config = whole_model(load_model_config(options.model_config), options.model_config)
    data = load_dataset_config(options.dataset_config)
    for entry in data.folders:
        if entry.path is None or entry.latents is None:
            raise InputError(
                f"{options.dataset_config}: {entry.id}: expected `path` (wav or mid files) and `latents` (output)"
            )
    vae = build_pretransform(config.pretransform)
    load_vae_weights(vae, options.pretransform_ckpt_path)
    vae.to(device)
    encoder = CropEncoder(vae, config, getattr(torch, CAST_DTYPES[options.dtype]))
    return [failure for entry in data.folders for failure in _encode_set(entry, data, encoder, options)]


def _encode_set(
    entry: "DatasetEntry", data: "DatasetConfig", encoder: "CropEncoder", options: argparse.Namespace
) -> list[Failure]:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from diff_v2m.data.audio_folder import SoundtrackFolder, by_outcome, without_latents
    from diff_v2m.data.crops import planned_crops

    source = SoundtrackFolder(without_latents(entry), data, encoder.config)
    plan = partial(
        planned_crops,
        config=encoder.config,
        count=options.encodings,
        random_crop=data.random_crop,
        phase_flip=data.phase_flip and source.source.has_polarity,
    )
    clips, skipped, errors = by_outcome(source.scan(options.part.of(source.candidates)))
    failures = [Failure(entry.id, what.reason) for what in skipped.values() if not what.silent]
    failures += [Failure(stem, str(error)) for stem, error in errors.items()]
    silent = sum(what.silent for what in skipped.values())
    planned = [(clip, plan(clip)) for clip in clips]
    todo = [(clip, crops) for clip, crops in planned if not _is_done(clip, crops, entry.latents, encoder, options)]
    made = 0
    with logging_redirect_tqdm():
        for clip, crops in in_stage(todo, f"encoding {entry.id}", "clip", len(todo)):
            try:
                latents, rhythms = encoder.encode(clip, crops)
            except InputError as error:
                failures.append(Failure(clip.label, str(error)))
                continue
            encoder.save(_target(clip, entry.latents), clip, crops, latents, rhythms)
            made += 1
    log.info(
        "%s: %d clips encoded in this run, %d there already, %d silent and skipped, %d not done",
        entry.latents,
        made,
        len(clips) - len(todo),
        silent,
        len(failures),
    )
    return failures


def _target(clip: "Clip", folder: Path) -> Path:
    return folder / f"{clip.stem}.safetensors"


def _is_done(
    clip: "FolderClip", crops: "tuple[Crop, ...]", folder: Path, encoder: "CropEncoder", options: argparse.Namespace
) -> bool:
    """Raises InputError if another autoencoder made it and --overwrite is not given."""
    from diff_v2m.data.latent_store import Encodings, Provenance

    path = _target(clip, folder)
    if not path.exists():
        return False
    try:
        provenance = Provenance.read(path)
        same = Encodings.open(path).crops == crops
    except InputError:  # damaged, or of an older version
        return False
    expected = encoder.provenance(clip)
    if provenance.made != expected.made and not options.overwrite:
        raise InputError(
            f"{path}: made by autoencoder {provenance.made.autoencoder[:12]}, now {expected.made.autoencoder[:12]}, or "
            "for other windows; name another folder, or replace them with --overwrite"
        )
    return provenance == expected and same


class CropEncoder:
    """Encodes crops as training does: the same window of audio through the same autoencoder, in float32."""

    def __init__(self, vae: "Pretransform", config: "ModelConfig", dtype):
        from diff_v2m.data.latent_store import EncodingSettings

        self.vae, self.config, self.dtype = vae, config, dtype
        self.device = next(vae.parameters()).device
        self.made = EncodingSettings.of(vae.fingerprint(), config)

    def encode(self, clip: "FolderClip", crops: "tuple[Crop, ...]") -> "tuple[Tensor, dict[str, Tensor]]":
        """Latents (K, 64, N) in the dtype for the disk, and rhythm targets (K, S, r) by kind.

        The noise is seeded with the clip's name and the crop. Raises InputError if the audio cannot be read.
        """
        import torch

        from diff_v2m.data.crops import crop_audio, crop_samples
        from diff_v2m.data.latent_store import RHYTHMS
        from diff_v2m.features.rhythm import rhythm_target, to_mono

        content, rate = clip.open(), self.config.sample_rate
        latents, targets = [], {kind: [] for kind in RHYTHMS}
        for crop in crops:
            audio = crop_audio(clip, crop, content, self.config)
            window = clip.folder.source.crop(clip, crop, content, audio, self.config)
            noise = torch.Generator(self.device).manual_seed(text_seed(clip.stem, crop.start, crop.inverted))
            with torch.no_grad():
                latents.append(self.vae.encode(window[None].to(self.device), noise)[0].to(self.dtype).cpu())
            mono = to_mono(audio[:, : crop_samples(clip, crop, self.config)])
            for kind, values in targets.items():
                values.append(rhythm_target(kind, mono, rate, rows_per_second=self.made.rows_per_second))
        if not all(torch.isfinite(piece).all() for piece in latents):
            raise InputError(f"its latents do not fit into {self.dtype}; try --dtype bf16")
        return torch.stack(latents), {kind: torch.stack(values) for kind, values in targets.items()}

    def save(self, path: Path, clip: "FolderClip", crops: "tuple[Crop, ...]", latents: "Tensor", rhythms: dict) -> None:
        from diff_v2m.data.latent_store import save_encodings

        save_encodings(path, self.provenance(clip), crops, latents, rhythms)

    def provenance(self, clip: "FolderClip") -> "Provenance":
        from diff_v2m.data.latent_store import Provenance

        return Provenance(self.made, clip.audio.stat().st_size, clip.audio_seconds, clip.seconds)
