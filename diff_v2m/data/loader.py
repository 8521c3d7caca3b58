"""Data set → batches: the same ones under the same seed, whatever the number of workers, interrupted or not."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import mixed_seed
from diff_v2m.config import DatasetConfig, ModelConfig
from diff_v2m.data.batch import Batch
from diff_v2m.data.collate import collate
from diff_v2m.data.dataset import AudioVideoDataset


def build_dataloader(
    config: DatasetConfig,
    model_config: ModelConfig,
    *,
    batch_size: int,
    num_workers: int = 0,
    training: bool = True,
    seed: int = 42,
) -> DataLoader:
    """Batches of an AudioVideoDataset.

    training: shuffled, cropped, flipped and the last batch dropped as the dataset JSON says; else in order, every
    clip's beginning as it is, all of them (corrected: as released, validation was cropped and flipped at random too).
    Workers live on between epochs and keep their rhythm targets. Raises InputError as the dataset does, in one line
    even from a worker.
    """
    dataset = AudioVideoDataset(
        config,
        model_config,
        random_crop=config.random_crop and training,
        phase_flip=config.phase_flip and training,
    )
    return seeded_loader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        training=training,
        drop_last=config.drop_last and training,
        collate_fn=collate,
        seed=seed,
    )


def seeded_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    training: bool,
    drop_last: bool,
    seed: int,
    num_workers: int = 0,
    collate_fn: Callable | None = None,
    padding_batch: Callable = Batch.padding_batch,
) -> DataLoader:
    """Batches whose order, if `training`, and whose random crops follow from (seed, epoch) alone.

    The processes of a distributed run share the clips: the batches of N processes make one of N · batch_size clips.
    Each process has the same number of batches: where clips run out, `padding_batch` repeats the last batch with no
    weight.
    """
    if drop_last and len(dataset) < batch_size:
        raise InputError(f"{len(dataset)} clips do not fill one batch of {batch_size}: lower batch_size or drop_last")
    return _Loader(
        padding_batch,
        _SeededItems(dataset, seed),
        batch_size=batch_size,
        sampler=_EpochOrder(len(dataset), seed) if training else _Share(len(dataset)),
        num_workers=num_workers,
        collate_fn=collate_fn,
        drop_last=drop_last,
        generator=torch.Generator().manual_seed(seed),  # so that making an iterator leaves the global one alone
        persistent_workers=num_workers > 0,
        pin_memory=torch.accelerator.is_available(),  # a GPU then fetches batches by itself
    )


class _Share(Sampler[int]):
    """Every clip in order, each of them in one process. The next pass leaves out the first `skip` of this process."""

    def __init__(self, count: int):
        self.count, self.skip = count, 0

    def __len__(self) -> int:
        """Of the process that has most."""
        return math.ceil(self.count / self._rank_and_world_size()[1])

    def __iter__(self) -> Iterator[int]:
        return iter(self._share(range(self.count)))

    def _share(self, numbers: Sequence[int]) -> Sequence[int]:
        rank, processes = self._rank_and_world_size()
        skip, self.skip = self.skip, 0
        return numbers[rank::processes][skip : len(self)]

    def _rank_and_world_size(self) -> tuple[int, int]:
        """Which process this is, of how many; known only once a distributed run has begun."""
        if not distributed.is_initialized():
            return 0, 1
        rank, processes = distributed.get_rank(), distributed.get_world_size()
        if self.count < processes:
            raise InputError(f"{self.count} clips are not one for each of {processes} processes: use fewer")
        return rank, processes


class _EpochOrder(_Share):
    """A new shuffle every epoch. Number `epoch · count + clip` says which clip, and in which epoch.

    What does not go round evenly is left out of the epoch: every process needs as many batches as the others.
    """

    def __init__(self, count: int, seed: int):
        super().__init__(count)
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return self.count // self._rank_and_world_size()[1]

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this; without it every pass is the next epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.count
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch)))
        self.epoch += 1
        return iter(self._share((first + order).tolist()))


class _SeededItems(Dataset):
    """Items by the numbers of `_EpochOrder`, with torch's global generator seeded for each."""

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int):
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would reset the GPUs' generators too, which the fork does not cover
            torch.default_generator.manual_seed(mixed_seed(self.seed, number))
            return self.dataset[number % len(self.dataset)]


class _Loader(DataLoader):
    """As many batches in every process; can be left in the middle of an epoch and taken up there.

    An InputError in a worker arrives wrapped in the worker's traceback; the user gets its one line.
    """

    given = 0  # batches of this epoch so far
    before = 0  # of those of the next pass, given before an interruption

    def __init__(self, padding_batch: Callable, *arguments: Any, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        self.padding_batch = padding_batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration leaves out the batches that this epoch has had."""
        self.before = state["given"] % len(self)

    def __iter__(self) -> Iterator[Batch]:
        self.given, self.before = self.before, 0
        self.sampler.skip = self.given * self.batch_size
        try:
            for batch in super().__iter__():
                self.given += 1
                yield batch
            for _ in range(len(self) - self.given):
                yield self.padding_batch(batch)
        except InputError as error:
            line = str(error).strip().splitlines()[-1]
            raise InputError(line.removeprefix(f"{InputError.__module__}.{InputError.__qualname__}: ")) from None
