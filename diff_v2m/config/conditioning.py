"""The conditioners of a model JSON: `model.conditioning`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from diff_v2m.config.base import Config, Count, ListOf, Probability, invalid

MAX_SECONDS = 30  # longest window: per-second features it holds, and the clamp of seconds_start and seconds_total
CLASSES = 3  # kinds of video the class embedding knows; every released config says 2, music videos and background music

RhythmType = Literal["odf", "mel", "tempo", "beat"]
EncoderName = Literal["clip-vit-base-patch32", "hog", "efficientnet-lite0-57934424-1"]  # names of features/
RHYTHM_DIMS = {"odf": 1, "beat": 1, "mel": 16, "tempo": 16}  # values a second

GRID_DIM = 13  # numbers of a row of the beat grid, see grid_rows in score/score.py
SHOT_DIM = 12  # numbers that describe a row's shot, see features/shots.py

MaxLength = Annotated[int, Field(ge=1, le=MAX_SECONDS)]  # accepted, unused: windows have MAX_SECONDS seconds


class ExtractorConfig(Config):
    """The rhythm predictor's transformer; the published code hard-codes these numbers."""

    dim: Count = 512
    depth: Count = 12
    num_heads: Count = 8
    dropout: Probability = 0.0  # of the values of its input, in training; 0: as released
    visual_rhythm: bool = (
        True  # input includes shot cuts and pseudo beats, as released; false: semantics and class only
    )
    motion_level: bool = False  # input includes how much the picture moves; needs more than one row a second
    beat_grid: bool = False  # input includes the planned beats; needs 'grid' among the generator's aligned_cond_ids

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.dim % self.num_heads:
            raise invalid(f"does not divide dim = {self.dim}: {self.num_heads}", "num_heads")
        return self


class SemanticConfig(Config):
    dim: Literal[512] = 512  # width of the semantics of every encoder
    max_length: MaxLength = MAX_SECONDS
    rhythm_type: RhythmType = "odf"
    hidden_dim: Count = 512
    extractor: ExtractorConfig = ExtractorConfig()
    encoder: EncoderName = "clip-vit-base-patch32"  # frames → per-second features
    encoder_identity: str | None = None  # name and hash of the encoder of the training features; train.py writes it


class RhythmConfig(Config):
    dim: Count = 1
    max_length: MaxLength = MAX_SECONDS
    hidden_dim: Count = 512


class ColorConfig(Config):
    dim: Literal[3072] = 3072  # width of the colour histograms
    max_length: MaxLength = MAX_SECONDS
    hidden_dim: Count = 1024
    hellinger: bool = False  # corrected: square root of the histogram × √dim, so that inputs have unit scale


class IntConfig(Config):
    min_val: int = 0
    max_val: int

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.max_val <= self.min_val:
            raise invalid(f"expected a number above min_val = {self.min_val}, got {self.max_val}", "max_val")
        return self


class NumberConfig(Config):
    min_val: float = 0.0
    max_val: float

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.max_val <= self.min_val:
            raise invalid(f"expected a number above min_val = {self.min_val:g}, got {self.max_val:g}", "max_val")
        return self


CONDITIONER_TYPES = {  # ids with a fixed meaning → the type they must have
    "semantic": "semantic",
    "rhythm": "rhythm",
    "color": "color",
    "class": "int",
    "seconds_start": "number",
    "seconds_total": "number",
}


class Conditioner(Config):
    """One entry of `conditioning.configs`; the subclasses say which config goes with which type."""

    id: str
    type: str
    config: Any

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        expected = CONDITIONER_TYPES.get(self.id, self.type)
        if self.type != expected:
            raise invalid(f"expected {expected} for the id {self.id!r}, got {self.type}", "type")
        return self


class SemanticConditioner(Conditioner):
    type: Literal["semantic"]
    config: SemanticConfig


class RhythmConditioner(Conditioner):
    type: Literal["rhythm"]
    config: RhythmConfig


class ColorConditioner(Conditioner):
    type: Literal["color"]
    config: ColorConfig


class IntConditioner(Conditioner):
    type: Literal["int"]
    config: IntConfig


class NumberConditioner(Conditioner):
    type: Literal["number"]
    config: NumberConfig


class TextConditioner(Conditioner):
    """The released file lists a text prompt that no id list refers to: accepted, never built."""

    type: Literal["t5"]
    config: dict[str, Any]


AnyConditioner = Annotated[
    SemanticConditioner | RhythmConditioner | ColorConditioner | IntConditioner | NumberConditioner | TextConditioner,
    Field(discriminator="type"),
]


class Conditioning(Config):
    """Conditioners by id: `conditioning["semantic"].config.dim`, `"color" in conditioning`."""

    configs: ListOf[AnyConditioner]
    cond_dim: Count
    mask_padding: bool = False  # corrected: padded seconds do not enter statistics and attention
    restandardize_rhythm: bool = False  # corrected: predicted rhythm is z-scored as the true one is
    rhythm_gradient: bool = False  # corrected: the diffusion loss reaches the rhythm predictor
    rows_per_second: Annotated[int, Field(ge=1, le=16)] = 1  # of cuts, motion and rhythm; 1, as released
    unused_projections: bool = True  # as released: `proj_out` layers that nothing calls, so that keys match

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        for index, entry in enumerate(self.configs):
            if entry.id in self.ids[:index]:
                raise invalid(f"{entry.id!r} appears twice", "configs", index, "id")
        return self

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        for index, entry in enumerate(self.configs):
            if entry.type != "semantic":
                continue
            if self.rows_per_second > 1 and entry.config.rhythm_type not in ("odf", "beat"):
                message = f"expected odf or beat with rows_per_second = {self.rows_per_second}"
                raise invalid(f"{message}, got {entry.config.rhythm_type}", "configs", index, "config", "rhythm_type")
            extractor = entry.config.extractor
            if self.rows_per_second == 1 and (extractor.motion_level or extractor.beat_grid):
                key = "motion_level" if extractor.motion_level else "beat_grid"
                raise invalid("needs rows_per_second above 1", "configs", index, "config", "extractor", key)
        return self

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.configs]

    def __contains__(self, id: str) -> bool:
        return id in self.ids

    def __getitem__(self, id: str) -> Conditioner:
        for entry in self.configs:
            if entry.id == id:
                return entry
        raise KeyError(id)
