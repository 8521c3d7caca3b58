"""`AudioVideoDataset`: an item is one crop of a clip: audio or latents, features and rhythm target."""

import logging
import math
from collections import Counter

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diff_v2m.common.errors import InputError
from diff_v2m.config import RHYTHM_DIMS, DatasetConfig, DatasetEntry, ModelConfig, ShardedEntry
from diff_v2m.data.audio_folder import SoundtrackFolder, by_outcome
from diff_v2m.data.crops import (
    Clip,
    ClipContent,
    Crop,
    Item,
    crop_audio,
    crop_features,
    crop_grid,
    crop_samples,
    draw_crop,
)
from diff_v2m.data.custom_metadata import metadata_function, with_custom_metadata
from diff_v2m.data.sources import source_of
from diff_v2m.data.tar_shards import ShardSet
from diff_v2m.features.rhythm import rhythm_target, to_mono
from diff_v2m.features.video_features import VideoFeatures

log = logging.getLogger(__name__)

CLIP_SETS = {"audio_video_dir": SoundtrackFolder, "audio_video_shards": ShardSet}  # by dataset_type


def open_set(
    entry: DatasetEntry | ShardedEntry, config: DatasetConfig, model_config: ModelConfig
) -> SoundtrackFolder | ShardSet:
    """One entry of `config`. InputError if the set as a whole is unusable."""
    return CLIP_SETS[config.dataset_type](entry, config, model_config)


class AudioVideoDataset(Dataset):
    """The clips of all sets of a dataset JSON. An item is one window of one clip.

    Features are found by the clip's stem. If a clip is longer than the window and random_crop is on, the window starts
    at a random whole second, and audio, features and rhythm target all start there (corrected: as released, only the
    audio is cropped). With phase_flip, half of the windows have inverted polarity, as released. A clip with precomputed
    latents gives one of its crops, with the rhythm target stored beside it. Otherwise the rhythm target is computed
    from the cropped audio, once per clip and start.

    Clips with silent or unreadable audio are skipped at the start, counted in the log and listed in `excluded`. If
    audio fails only when it is decoded, the item is silence marked as broken. It is logged once, and collate skips it.
    Any other defect of a file raises InputError in the constructor, with clip and file.
    """

    def __init__(
        self,
        config: DatasetConfig,
        model_config: ModelConfig,
        *,
        random_crop: bool | None = None,
        phase_flip: bool | None = None,
    ) -> None:
        """random_crop, phase_flip: None takes the dataset JSON's."""
        self.config, self.model_config, self.source = config, model_config, source_of(model_config)
        self.random_crop = config.random_crop if random_crop is None else random_crop
        self.phase_flip = self.source.has_polarity and (config.phase_flip if phase_flip is None else phase_flip)
        self.rows_per_second = model_config.model.conditioning.rows_per_second
        self.uses_grid = model_config.model.diffusion.uses_grid
        self.excluded: dict[str, str] = {}  # label → reason
        self._broken: set[int] = set()
        self._rhythm: dict[tuple[int, int], Tensor] = {}  # (clip, start) → rhythm target
        _check_rhythm_type(config, model_config)
        sets = [open_set(entry, config, model_config) for entry in config.datasets]
        self._metadata = {clip_set.entry.id: clip_set.custom_metadata for clip_set in sets if clip_set.custom_metadata}
        for path in self._metadata.values():
            metadata_function(path)
        _check_color(sets)
        self.encoder = _encoder_of(sets)  # its identity; None: the sets do not say its weights
        self.clips: list[Clip] = [clip for clip_set in sets for clip in self._scan(clip_set)]
        if not self.clips:
            reason = next(iter(self.excluded.values()), "no clips found")
            raise InputError(f"nothing to train on in {', '.join(e.id for e in config.datasets)}: {reason}")
        _check_encoders(self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Item:
        clip = self.clips[index]
        content = clip.open()  # all features, and the audio's reader or the latents
        if content.encodings is not None:
            item = self._from_latents(clip, content)
        else:
            item = self._from_audio(index, clip, content)
        module = self._metadata.get(clip.set_id)
        if module is None or item.broken:
            return item
        return with_custom_metadata(item, clip, self.model_config.sample_rate, module)

    def _from_audio(self, index: int, clip: Clip, content: ClipContent) -> Item:
        crop = draw_crop(clip, self.model_config, random_crop=self.random_crop, phase_flip=self.phase_flip)
        features = crop_features(clip, crop, content.features, self.model_config)
        item = self._item(clip, crop, features, content)
        try:
            audio = crop_audio(clip, crop, content, self.model_config)
            item.audio = self.source.crop(clip, crop, content, audio, self.model_config)
        except InputError as error:
            if index not in self._broken:
                log.warning("%s is skipped: %s", clip.label, error)
                self._broken.add(index)
            return self._silent_item(clip, content)
        key = index, crop.start  # inverted polarity does not change the rhythm
        if key not in self._rhythm:
            samples = crop_samples(clip, crop, self.model_config)
            self._rhythm[key] = self._rhythm_target(features, audio[:, :samples])
        item.rhythm = self._rhythm[key]
        return item

    def _from_latents(self, clip: Clip, content: ClipContent) -> Item:
        encodings = content.encodings
        number = encodings.draw(random_crop=self.random_crop, phase_flip=self.phase_flip)
        crop = encodings.crops[number]
        features = crop_features(clip, crop, content.features, self.model_config)
        item = self._item(clip, crop, features, content)
        item.latents, item.autoencoder = encodings.latents(number), clip.encoded_by.autoencoder
        if self.config.rhythm_type == "beat":  # computed from the video, so it is not stored
            item.rhythm = self._rhythm_target(features, None)
        else:
            item.rhythm = encodings.rhythm(self.config.rhythm_type, number)
        return item

    def _silent_item(self, clip: Clip, content: ClipContent) -> Item:
        """The item of a clip whose audio cannot be decoded."""
        crop = Crop(0, inverted=False)
        item = self._item(clip, crop, crop_features(clip, crop, content.features, self.model_config), content)
        item.audio = self.source.empty(self.model_config)
        item.rhythm = torch.zeros(len(item.features) * item.rows_per_second, RHYTHM_DIMS[self.config.rhythm_type])
        item.broken = True
        return item

    def _item(self, clip: Clip, crop: Crop, features: VideoFeatures, content: ClipContent) -> Item:
        return Item(
            name=clip.stem,
            features=features,
            class_label=clip.class_label,
            seconds_start=crop.start,
            seconds_total=math.ceil(clip.audio_seconds),
            rows_per_second=self.rows_per_second,
            grid=crop_grid(clip, crop, content, self.model_config) if self.uses_grid else None,
        )

    def _rhythm_target(self, features: VideoFeatures, audio: Tensor | None) -> Tensor:
        """(S · rows_per_second, dim) f32, S as the features. audio (channels, n): of the crop, without padding."""
        rows = features.rows(self.rows_per_second)
        return rhythm_target(
            self.config.rhythm_type,
            None if audio is None else to_mono(audio),
            self.model_config.sample_rate,
            scene_cut=rows.scene_cut,
            pseudo_beats=rows.pseudo_beats,
            rows_per_second=self.rows_per_second,
        )

    def _scan(self, clip_set: SoundtrackFolder | ShardSet) -> list[Clip]:
        """The usable clips of one set; skipped ones are counted. InputError if any has a defect."""
        set_id, (clips, skipped, errors) = clip_set.entry.id, by_outcome(clip_set.scan())
        if errors:
            others = f" (and {len(errors) - 1} more clips with errors)" if len(errors) > 1 else ""
            raise InputError(f"{next(iter(errors.values()))}{others}")
        excluded = {f"{set_id}: clip {stem}": what.reason for stem, what in skipped.items()}
        if excluded:
            some = "; ".join(list(excluded.values())[:5]) + ("; …" if len(excluded) > 5 else "")
            log.warning("%s: %d of %d clips are skipped: %s", set_id, len(excluded), len(clips) + len(excluded), some)
        self.excluded |= excluded
        return clips


def _check_rhythm_type(config: DatasetConfig, model_config: ModelConfig) -> None:
    expected = model_config.model.conditioning["semantic"].config.rhythm_type
    if config.rhythm_type != expected:
        raise InputError(
            f"rhythm_type: the dataset JSON says {config.rhythm_type}, the model JSON predicts {expected}; "
            "give both the same"
        )


def _check_color(sets: list[SoundtrackFolder | ShardSet]) -> None:
    without = [clip_set.entry.id for clip_set in sets if not clip_set.with_color]
    if without and len(without) < len(sets):
        raise InputError(f"{without[0]}: no colour, but other data sets of the file have it: give all or none")


def _encoder_of(sets: list[SoundtrackFolder | ShardSet]) -> str | None:
    """The encoder that made the semantics, by its identity with weights. Sets of older versions do not say theirs.

    InputError if two sets were made by different weights of an encoder.
    """
    made = {clip_set.encoder: clip_set.entry.id for clip_set in sets if clip_set.encoder and "@" in clip_set.encoder}
    if len(made) > 1:
        (one, first), (other, second), *_ = made.items()
        raise InputError(f"{first} and {second}: semantics made by {one} and {other}; extract them with one encoder")
    return next(iter(made), None)


def _check_encoders(clips: list[Clip]) -> None:
    """InputError unless all clips have latents of one autoencoder, or all have audio."""
    makers = Counter(clip.encoded_by.autoencoder if clip.encoded_by else None for clip in clips)
    if len(makers) == 1:
        return
    (usual, _), *_ = makers.most_common()
    odd = next(clip for clip in clips if (clip.encoded_by and clip.encoded_by.autoencoder) != usual)
    if usual is None or odd.encoded_by is None:
        raise InputError(
            f"{odd.label}: has {'audio' if odd.encoded_by is None else 'latents'}, others have "
            f"{'latents' if odd.encoded_by is None else 'audio'}: give all or none latents"
        )
    raise InputError(
        f"{odd.label}: {odd.source}: latents of autoencoder {odd.encoded_by.autoencoder[:12]}, most "
        f"others are of {usual[:12]}; encode it again with --overwrite"
    )
