"""Dataset JSON → batches, the same ones under the same seed."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from diff_v2m.batch import Batch
from diff_v2m.config import DatasetConfig, ModelConfig
from diff_v2m.dataset.batches import collate
from diff_v2m.dataset.clips import AudioVideoDataset
from diff_v2m.errors import InputError


def build_dataloader(
    config: DatasetConfig,
    model_config: ModelConfig,
    *,
    batch_size: int,
    num_workers: int = 0,
    training: bool = True,
    seed: int = 42,
) -> DataLoader:
    """Batches of an AudioVideoDataset (at `.dataset`).

    training: shuffled, cropped and the last batch dropped as the dataset JSON says; else in order, every clip's
    beginning, all of them (corrected: as released, validation was cropped at random too).
    The order, and with workers the crops, follow from `seed` and the number of workers (torch seeds each worker from
    the generator); without workers, crops follow torch's global generator. Workers live on between epochs and keep
    their rhythm targets. Raises InputError as the dataset does, in one line even from a worker.
    """
    dataset = AudioVideoDataset(config, model_config, random_crop=config.random_crop and training)
    drop_last = config.drop_last and training
    if drop_last and len(dataset) < batch_size:
        raise InputError(f"{len(dataset)} clips do not fill one batch of {batch_size}: lower batch_size or drop_last")
    return _Loader(
        dataset,
        batch_size=batch_size,
        shuffle=training,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=drop_last,
        generator=torch.Generator().manual_seed(seed),
        persistent_workers=num_workers > 0,
    )


class _Loader(DataLoader):
    """An InputError in a worker arrives wrapped in the worker's traceback; the user gets its one line."""

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except InputError as error:
            line = str(error).strip().splitlines()[-1]
            raise InputError(line.removeprefix(f"{InputError.__module__}.{InputError.__qualname__}: ")) from None
