"""The picture beside an output: what `plots.draw` shows of its music, and the line under its title."""

from __future__ import annotations

from pathlib import Path

from diff_v2m import plots
from diff_v2m.cues.sheet import SPANS
from diff_v2m.generation.composition import Composition
from diff_v2m.generation.inputs import Output
from diff_v2m.generation.jobs import Source
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.media.loudness import LoudnessReport
from diff_v2m.media.metering import Waveform
from diff_v2m.mix.mixing import Mix


def draw_output(
    path: Path,
    output: Output,
    source: Source,
    composition: Composition,
    sampling: SamplingSettings,
    audio: Waveform,
    sample_rate: int,
    levels: LoudnessReport,
    mix: Mix | None,
) -> None:
    """Write the png. sampling: resolved for the model. audio, levels: the music as it is in the wav."""
    plots.draw(
        path,
        title=output.name,
        subtitle=_subtitle(output, levels, composition, sampling) + (f" · {mix.caption()}" if mix else ""),
        audio=audio,
        sample_rate=sample_rate,
        scene_cut=source.features.scene_cut,
        predicted_rhythm=composition.rhythm,
        thumbnails=source.thumbnails,
        spans=composition.spans,
        joins=composition.joins,
        hits=[(hit.wanted, hit.landed) for hit in composition.hits],
        cues=[(cue.kind, cue.time, cue.stop) for kind in SPANS for cue in composition.sheet[kind]],
        grid=composition.score.grid if composition.score else None,
        mix=mix,
    )


def _subtitle(output: Output, levels: LoudnessReport, composition: Composition, sampling: SamplingSettings) -> str:
    parts = [f"seed {sampling.seed}", f"{sampling.steps} {sampling.sampler} steps"]
    parts += [f"variation {output.variation}"] if output.variation > 1 else []
    parts += [f"guidance {sampling.guidance_scale:g}"]
    parts += [composition.takes.caption()] if composition.takes else []
    parts += [f"composed again: {', '.join(map(str, composition.spans))}"] if composition.spans else []
    parts += ["silence" if levels.lufs_after is None else f"{levels.lufs_after:.1f} LUFS".replace("-", "−")]
    return " · ".join(parts + composition.music.caption())
