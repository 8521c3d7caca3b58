"""Loading a training clip, and its size on disk: `python -m benchmarks.loader`.

The published dataset class decodes the whole file, computes onset strength with librosa and reads two npy files, for
every item of every epoch. Contenders run in interleaved rounds, in one process without workers, on the same clips: the
data set's, with the audio converted to 44.1 kHz stereo. Latents are random numbers of the released size. The unit is
CPU time of this process, which other processes hardly change.

    python -m experiments.synthetic render --output runs/loader --count 8
    python -m benchmarks.loader runs/loader/dataset.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import RESULTS, in_turn, median_and_quartiles, parse_with_command, write_section
from diff_v2m.common import cli
from diff_v2m.common.files import ROOT

if TYPE_CHECKING:
    import numpy as np

    from diff_v2m.config import DatasetConfig, ModelConfig

BASELINE = "published dataset class"


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.loader", description=__doc__.partition("\n")[0])
    parser.add_argument("dataset_config", type=Path, help="dataset JSON of folders; 8 clips of 30 s will do")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / "data.md", help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    import torch

    from diff_v2m.config import load_dataset_config

    torch.set_num_threads(1)
    data = load_dataset_config(args.dataset_config)
    with tempfile.TemporaryDirectory() as folder:
        milliseconds = compare(data, Path(folder), args.rounds)
        sizes = megabytes(data, Path(folder))
    seconds = encoding_seconds(released_config(data))
    text = report(milliseconds) + "\n" + report_costs(sizes, seconds)
    write_section(args.output, "Loading a clip", args.command, text)
    sys.stdout.write(text)


def compare(data: DatasetConfig, folder: Path, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds per clip by contender, each (rounds,)."""
    import numpy as np

    config = released_config(data)
    sound = convert(data, config, folder)
    latents = encode(sound, config, folder)
    loaders = contenders(sound, latents, config, folder)
    found = in_turn({name: partial(milliseconds_a_clip, make) for name, make in loaders.items()}, rounds)
    return {name: np.array(values) for name, values in found.items()}


def milliseconds_a_clip(make: Callable) -> float:
    """CPU time of a pass over a loader, without building it."""
    loader = make()
    start = time.process_time()
    clips = sum(len(batch) for batch in loader)
    return 1000 * (time.process_time() - start) / clips


def contenders(sound: DatasetConfig, latents: DatasetConfig, config: ModelConfig, folder: Path) -> dict[str, Callable]:
    """Name → a function that builds a loader of all clips."""
    from benchmarks.published_dataset import PublishedDataset, published_batch
    from diff_v2m.data.loader import build_dataloader, seeded_loader

    count = sum(1 for _ in (folder / "wav").glob("*.wav"))

    def ours(data: DatasetConfig):
        return build_dataloader(data, config, batch_size=count)

    def published():
        return seeded_loader(
            PublishedDataset(sound.datasets[0], config),
            batch_size=count,
            training=True,
            drop_last=False,
            seed=0,
            collate_fn=published_batch,
        )

    kept, packed = ours(sound), {data: pack(data, config, folder) for data in (sound, latents)}
    return {
        BASELINE: published,
        "sound, first epoch": lambda: ours(sound),
        "sound, rhythm targets in memory": lambda: kept,
        "sound, in tar shards, first epoch": lambda: ours(packed[sound]),
        "latents": lambda: ours(latents),
        "latents, in tar shards": lambda: ours(packed[latents]),
    }


def released_config(data: DatasetConfig) -> ModelConfig:
    """The released size, with the semantic encoder of the data."""
    from diff_v2m.config import parse_model_config
    from diff_v2m.data.feature_store import FeatureFolder

    raw = json.loads((ROOT / "configs/model/diff_v2m_corrected.json").read_text())
    for entry in raw["model"]["conditioning"]["configs"]:
        if entry["id"] == "semantic":
            entry["config"]["encoder"] = FeatureFolder(data.folders[0]).encoder
    return parse_model_config(raw, "benchmark")


def convert(data: DatasetConfig, config: ModelConfig, folder: Path) -> DatasetConfig:
    """The first set with its sound as wavs of the model's rate and channels, as preprocessing writes them."""
    from diff_v2m import media

    entry = data.folders[0]
    for path in sorted(entry.path.glob("*.wav")):
        audio = media.read_audio(path, config.sample_rate, config.audio_channels)
        media.write_wav(folder / "wav" / path.name, audio, config.sample_rate)
    entry = entry.model_copy(update={"path": folder / "wav", "latents": None})
    return data.model_copy(update={"datasets": (entry,), "random_crop": True, "rhythm_type": "odf"})


def encode(data: DatasetConfig, config: ModelConfig, folder: Path) -> DatasetConfig:
    """The same set with two encodings of each clip, of random numbers."""
    import torch

    from diff_v2m.data.crops import Crop
    from diff_v2m.data.dataset import AudioVideoDataset
    from diff_v2m.data.latent_store import EncodingSettings, Provenance, save_encodings

    made = EncodingSettings.of("0" * 64, config)
    for clip in AudioVideoDataset(data, config).clips:
        rhythms = {kind: torch.randn(2, clip.seconds, dim) for kind, dim in (("odf", 1), ("mel", 16), ("tempo", 16))}
        latents = torch.randn(2, config.latent_channels, config.latent_length()).half()
        provenance = Provenance(made, clip.audio.stat().st_size, clip.audio_seconds, clip.seconds)
        save_encodings(
            folder / "latents" / f"{clip.stem}.safetensors",
            provenance,
            (Crop(0, False), Crop(0, True)),
            latents,
            rhythms,
        )
    entry = data.datasets[0].model_copy(update={"latents": folder / "latents"})
    return data.model_copy(update={"datasets": (entry,)})


def pack(data: DatasetConfig, config: ModelConfig, folder: Path) -> DatasetConfig:
    """The same set in one tar file."""
    from diff_v2m.config import ShardDatasetConfig, ShardedEntry
    from diff_v2m.data.dataset import open_set
    from diff_v2m.preprocess.shards import ShardWriter

    (entry,) = data.datasets
    target = folder / ("sound_shards" if entry.latents is None else "latent_shards")
    ShardWriter(open_set(entry, data, config), target, clips_per_shard=1000).write(cli.Part())
    settings = data.model_dump(exclude={"dataset_type", "datasets"})
    return ShardDatasetConfig(datasets=(ShardedEntry(id=entry.id, shards=str(target)),), **settings)


def megabytes(data: DatasetConfig, folder: Path) -> dict[str, float]:
    """MB per clip on disk."""
    entry = data.folders[0]
    places = {
        "sound: wav, 24 bit": folder / "wav",
        "semantics": entry.video_feat,
        "colour": entry.video_color,
        "latents and rhythm, two encodings": folder / "latents",
        "tar shards with sound": folder / "sound_shards",
        "tar shards with latents": folder / "latent_shards",
    }
    clips = sum(1 for _ in (folder / "wav").iterdir())
    return {name: sum(file.stat().st_size for file in place.iterdir()) / clips / 1e6 for name, place in places.items()}


def encoding_seconds(config: ModelConfig, part: int = 10) -> float:
    """CPU seconds for the latents of one window, by random weights: those of 1 / `part` of it, times `part`."""
    import torch

    from diff_v2m.model.autoencoder import OobleckVAE

    vae = OobleckVAE(config.pretransform.config)
    audio = torch.randn(1, config.audio_channels, config.sample_size // part)
    start = time.process_time()
    with torch.no_grad():
        vae.encode(audio)
    return part * (time.process_time() - start)


def report_costs(sizes: dict[str, float], seconds: float) -> str:
    """Markdown: the table of sizes and a line on encoding."""
    lines = [
        "| on disk | MB per clip |",
        "|---|---|",
        *(f"| {name} | {size:.2f} |" for name, size in sizes.items()),
        "",
    ]
    return "\n".join(
        [
            *lines,
            f"One encoding by an autoencoder of the released size takes {seconds:.0f} s on one core (random weights).",
            "",
        ]
    )


def report(milliseconds: dict[str, np.ndarray]) -> str:
    """Markdown: the table of times."""
    import numpy as np

    about = "A clip of 30 s, 44.1 kHz stereo, in one process without workers."
    lines = [about, "", "| | CPU time per clip, ms (median) | speed-up, median (quartiles) |", "|---|---|---|"]
    for name, values in milliseconds.items():
        speed_up = median_and_quartiles(milliseconds[BASELINE] / values, digits=1)
        lines.append(f"| {name} | {np.median(values):.2f} | {speed_up} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
