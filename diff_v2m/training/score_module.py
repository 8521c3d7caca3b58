"""Training of the score autoencoder on crops of scores: likelihood of the notes, and a little KL divergence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import in_stage
from diff_v2m.config import Config, DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.score.frames import MIDI_SUFFIXES, to_frames
from diff_v2m.score.midi import read_midi
from diff_v2m.score.score import Score
from diff_v2m.training.pretransform_module import PretransformModule, files_of


class ScoreAutoencoderModule(PretransformModule):
    """`autoencoder` is the `ScoreVAE`; a batch is frames (B, LAYOUT.rows, N)."""

    @property
    def weights(self) -> Config:
        return self.config.training.score_loss_weights

    @staticmethod
    def crops(data: DatasetConfig, config: ModelConfig) -> ScoreCrops:
        return ScoreCrops(data, config)

    def losses(self, source: Tensor) -> dict[str, Tensor]:
        return self.autoencoder.losses(source)


class ScoreCrops(Dataset):
    """Crops of one window from every MIDI file of a data set.

    Item i is frames (LAYOUT.rows, N) of score i, from a random place (`random_crop`) or from the middle. Raises
    InputError if a file cannot be read or none is long enough.
    """

    def __init__(self, data: DatasetConfig, config: ModelConfig):
        self.frames, self.rate, self.random = config.latent_length(), round(config.latent_rate), data.random_crop
        scores = [score for entry in data.folders for score in _read_set(entry)]
        self.scores = [score for score in scores if score.duration >= config.window_seconds - 1e-6]
        if not self.scores:
            folders = ", ".join(str(entry.path) for entry in data.folders)
            raise InputError(
                f"no .mid of at least {config.window_seconds:g} s in {folders}: give folders with longer music"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Tensor:
        score = self.scores[index]
        room = score.duration - self.frames / self.rate
        start = max(0.0, float(torch.rand(())) * room if self.random else room / 2)
        crop = score.slice(start, start + self.frames / self.rate)
        return torch.from_numpy(to_frames(crop, self.rate, self.frames))


def _read_set(entry: DatasetEntry) -> list[Score]:
    paths = files_of(entry, MIDI_SUFFIXES)
    return [read_midi(path) for path in in_stage(paths, f"reading {entry.id}", "file", len(paths))]
