"""Data set → batches. A seed gives the same batches with any number of workers, interrupted or not."""

import math
from collections.abc import Callable, Iterator
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

    training: shuffled, cropped and inverted as the dataset JSON says, with its drop_last. Otherwise all clips in order,
    from their beginning (corrected: as released, validation clips are cropped and inverted at random too). Workers live
    on between epochs and keep their rhythm targets. Raises InputError as the dataset does, from workers too.
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
    """Batches whose order (if `training`) and random crops follow from (seed, epoch) alone.

    The processes of a distributed run share the clips: the batches of N processes make one of N · batch_size clips.
    Each process has the same number of batches: where clips run out, `padding_batch` repeats the last batch with zero
    weight.
    """
    if drop_last and len(dataset) < batch_size:
        raise InputError(f"{len(dataset)} clips do not fill one batch of {batch_size}: lower batch_size or drop_last")
    return ResumableLoader(
        padding_batch,
        SeededItems(dataset, seed),
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), seed, shuffle=training),
        num_workers=num_workers,
        collate_fn=collate_fn,
        drop_last=drop_last,
        generator=torch.Generator().manual_seed(seed),  # an iterator must not draw from the global generator
        persistent_workers=num_workers > 0,
        pin_memory=torch.accelerator.is_available(),
    )


class EpochSampler(Sampler[int]):
    """The clips of this process: in a new order every epoch if `shuffle`, else in their own order.

    It yields `epoch · count + clip`, so that random crops differ between epochs. With `shuffle`, clips that do not
    divide evenly among the processes are dropped from the epoch.
    """

    def __init__(self, count: int, seed: int, *, shuffle: bool):
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self.epoch = 0
        self.skip = 0  # clips of this process that the next pass skips

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this. Without it every pass is the next epoch."""
        self.epoch = epoch if self.shuffle else 0

    def __len__(self) -> int:
        """Clips of one process; without `shuffle`, of the process with the most."""
        share = self.count / self.rank_and_processes()[1]
        return math.floor(share) if self.shuffle else math.ceil(share)

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self.count)
        if self.shuffle:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
            order = self.epoch * self.count + torch.randperm(self.count, generator=generator)
            self.epoch += 1
        (rank, processes), skip, self.skip = self.rank_and_processes(), self.skip, 0
        return iter(order[rank::processes][skip : len(self)].tolist())

    def rank_and_processes(self) -> tuple[int, int]:
        """Known only after torch.distributed is initialised, so not in the constructor."""
        if not distributed.is_initialized():
            return 0, 1
        rank, processes = distributed.get_rank(), distributed.get_world_size()
        if self.count < processes:
            raise InputError(f"{self.count} clips are fewer than {processes} processes: use fewer processes")
        return rank, processes


class SeededItems(Dataset):
    """The items that `EpochSampler` numbers, each with torch's global generator seeded for it."""

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int):
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reset the GPUs' generators, which the fork does not restore
            torch.default_generator.manual_seed(mixed_seed(self.seed, number))
            return self.dataset[number % len(self.dataset)]


class ResumableLoader(DataLoader):
    """A loader with the same number of batches in every process, which can resume within an epoch.

    An InputError of a worker arrives with the worker's traceback; it is raised again as its own line.
    """

    given = 0  # batches of this epoch so far
    before = 0  # batches that the next pass skips

    def __init__(self, padding_batch: Callable, *arguments: Any, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        self.padding_batch = padding_batch

    def __len__(self) -> int:
        """Batches of one process. Raises InputError if `drop_last` leaves none."""
        if not (batches := super().__len__()):
            _, processes = self.sampler.rank_and_processes()
            raise InputError(
                f"{len(self.dataset)} clips of {processes} processes, {len(self.sampler)} each, do not "
                f"fill one batch of {self.batch_size}: lower batch_size or drop_last, or use fewer processes"
            )
        return batches

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches of this epoch that were given before."""
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
