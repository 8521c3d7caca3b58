"""Training clips: a soundtrack, the features of its picture and the rhythm target, all cut to the same seconds."""

import logging
import math
from collections import Counter

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diff_v2m.common.errors import InputError
from diff_v2m.config import RHYTHM_DIMS, DatasetConfig, DatasetEntry, ModelConfig, ShardedEntry
from diff_v2m.data.audio_folder import SoundtrackFolder, open_soundtracks, sorted_out
from diff_v2m.data.collate import Item
from diff_v2m.data.crops import Clip, ClipContent, crop_features, crop_samples, crop_sound, draw_crop
from diff_v2m.data.custom_metadata import metadata_function, with_custom_metadata
from diff_v2m.data.latent_store import Crop
from diff_v2m.data.tar_shards import ShardSet, open_shards
from diff_v2m.features.rhythm import rhythm_target, to_mono
from diff_v2m.features.video_features import VideoFeatures

log = logging.getLogger(__name__)

OPEN = {"audio_video_dir": open_soundtracks, "audio_video_shards": open_shards}


def open_set(
    entry: DatasetEntry | ShardedEntry, config: DatasetConfig, model_config: ModelConfig
) -> SoundtrackFolder | ShardSet:
    """One entry of `config`, of whatever `dataset_type`. InputError where the set as a whole is unusable."""
    return OPEN[config.dataset_type](entry, config, model_config)


class AudioVideoDataset(Dataset):
    """The clips of all sets of a dataset JSON; an item is one window of one clip.

    Features, colour and info of a clip are found by its stem. Where a clip is longer than the window and random_crop is
    on, the window starts at a random whole second, and sound, features and rhythm target all start there (corrected: as
    released, only the audio was cropped); with phase_flip, half of the windows sound upside down, as released. A clip
    that was encoded beforehand gives one of its encodings, with the rhythm target that was kept with it: no sound is
    opened. Else the rhythm target is that of the cropped audio, computed once per clip and start and kept.

    Silent and unreadable soundtracks are left out at the start: counted in the log, listed in `excluded`. One that
    turns out broken only when it is decoded becomes silence marked as broken, which collate leaves out (logged once).
    Everything else that is wrong with a file raises InputError in the constructor, naming clip and file.
    """

    def __init__(
        self,
        config: DatasetConfig,
        model_config: ModelConfig,
        *,
        random_crop: bool | None = None,
        phase_flip: bool | None = None,
    ) -> None:
        """random_crop, phase_flip: default, what the dataset JSON says."""
        self.config, self.model_config = config, model_config
        self.random_crop = config.random_crop if random_crop is None else random_crop
        self.phase_flip = config.phase_flip if phase_flip is None else phase_flip
        self.excluded: dict[str, str] = {}  # label → reason
        self._broken: set[int] = set()
        self._rhythm: dict[tuple[int, int], Tensor] = {}
        _check_rhythm_type(config, model_config)
        sets = [open_set(entry, config, model_config) for entry in config.datasets]
        self._metadata = {clip_set.entry.id: clip_set.custom_metadata for clip_set in sets if clip_set.custom_metadata}
        for path in self._metadata.values():
            metadata_function(path)
        _check_color(sets)
        self.clips: list[Clip] = [clip for clip_set in sets for clip in self._scan(clip_set)]
        if not self.clips:
            reason = next(iter(self.excluded.values()), "no clips found")
            raise InputError(f"nothing to train on in {', '.join(e.id for e in config.datasets)}: {reason}")
        _check_encoders(self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Item:
        clip = self.clips[index]
        content = clip.open()
        if clip.encoded_by is not None:
            item = self._from_latents(clip, content)
        else:
            try:
                item = self._from_sound(index, clip, content)
            except InputError as error:
                if index not in self._broken:
                    log.warning("%s is left out: %s", clip.label, error)
                    self._broken.add(index)
                return self._without_sound(clip, content)
        module = self._metadata.get(clip.set_id)
        return item if module is None else with_custom_metadata(item, clip, self.model_config.sample_rate, module)

    def _from_latents(self, clip: Clip, content: ClipContent) -> Item:
        encodings = content.encodings
        number = encodings.draw(random_crop=self.random_crop, phase_flip=self.phase_flip)
        crop = encodings.crops[number]
        features = crop_features(clip, crop, content.features, self.model_config)
        item = self._item(clip, crop, features)
        item.latents, item.autoencoder = encodings.latents(number), clip.encoded_by.autoencoder
        if self.config.rhythm_type == "beat":
            item.rhythm = self._rhythm_of(features, None)
        else:
            item.rhythm = encodings.rhythm(self.config.rhythm_type, number)
        return item

    def _from_sound(self, index: int, clip: Clip, content: ClipContent) -> Item:
        """InputError if its sound cannot be decoded."""
        crop = draw_crop(clip, self.model_config, random_crop=self.random_crop, phase_flip=self.phase_flip)
        features = crop_features(clip, crop, content.features, self.model_config)
        item = self._item(clip, crop, features)
        item.audio = crop_sound(clip, crop, content, self.model_config)
        key = index, crop.start  # upside down it has the same rhythm
        if key not in self._rhythm:
            sound = item.audio[:, : crop_samples(clip, crop, self.model_config)]
            self._rhythm[key] = self._rhythm_of(features, sound)
        item.rhythm = self._rhythm[key]
        return item

    def _without_sound(self, clip: Clip, content: ClipContent) -> Item:
        """What a clip is when its sound cannot be decoded."""
        crop = Crop(0, flip=False)
        item = self._item(clip, crop, crop_features(clip, crop, content.features, self.model_config))
        item.audio = torch.zeros(self.model_config.audio_channels, self.model_config.sample_size)
        item.rhythm = torch.zeros(len(item.features.semantic), RHYTHM_DIMS[self.config.rhythm_type])
        item.broken = True
        return item

    def _item(self, clip: Clip, crop: Crop, features: VideoFeatures) -> Item:
        return Item(
            name=clip.stem,
            features=features,
            class_label=clip.class_label,
            seconds_start=crop.start,
            seconds_total=math.ceil(clip.audio_seconds),
        )

    def _rhythm_of(self, features: VideoFeatures, sound: Tensor | None) -> Tensor:
        """(S, r) f32, S as the features. sound (channels, n): what is heard of the window, where it is needed."""
        return rhythm_target(
            self.config.rhythm_type,
            None if sound is None else to_mono(sound),
            self.model_config.sample_rate,
            scene_cut=features.scene_cut,
            pseudo_beats=features.pseudo_beats,
        )

    def _scan(self, clip_set: SoundtrackFolder | ShardSet) -> list[Clip]:
        """The usable clips of one set; the others are counted, or are an error."""
        set_id, (clips, left_out, errors) = clip_set.entry.id, sorted_out(clip_set.scan())
        if errors:
            others = f" (and {len(errors) - 1} more clips with errors)" if len(errors) > 1 else ""
            raise InputError(f"{next(iter(errors.values()))}{others}")
        excluded = {f"{set_id}: clip {stem}": left.reason for stem, left in left_out.items()}
        if excluded:
            some = "; ".join(list(excluded.values())[:5]) + ("; …" if len(excluded) > 5 else "")
            log.warning("%s: %d of %d clips are left out: %s", set_id, len(excluded), len(clips) + len(excluded), some)
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


def _check_encoders(clips: list[Clip]) -> None:
    """All clips come as latents of one autoencoder, or all as sound."""
    makers = Counter(clip.encoded_by and clip.encoded_by.autoencoder for clip in clips)
    if len(makers) == 1:
        return
    (usual, _), *_ = makers.most_common()
    odd = next(clip for clip in clips if (clip.encoded_by and clip.encoded_by.autoencoder) != usual)
    if usual is None or odd.encoded_by is None:
        raise InputError(
            f"{odd.label}: some clips come as latents and some as sound, this one as "
            f"{'sound' if odd.encoded_by is None else 'latents'}: give all or none latents"
        )
    raise InputError(
        f"{odd.label}: {odd.source}: latents of autoencoder {odd.encoded_by.autoencoder[:12]}, most "
        f"others are of {usual[:12]}; encode it again with --overwrite"
    )
