"""``python -m diff_v2m.latents``: encode the soundtracks of a data set once, instead of at every training step."""

from __future__ import annotations

import argparse
import logging
import sys
import zlib
from pathlib import Path

from .errors import InputError

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m diff_v2m.latents", description=__doc__)
    parser.add_argument("--dataset-config", required=True, help="dataset JSON whose entries name a `latents` folder")
    parser.add_argument("--model-config", required=True, help="model JSON (diffusion_cond)")
    parser.add_argument("--pretransform-ckpt-path", required=True, help="weights of the autoencoder")
    settings = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    import numpy as np
    import torch
    from tqdm import tqdm

    from . import media
    from .checkpoints import load_vae_weights
    from .config import load_dataset_config, load_model_config
    from .vae import build_vae

    config = load_model_config(settings.model_config)
    vae = build_vae(config.pretransform.config)
    load_vae_weights(vae, settings.pretransform_ckpt_path)
    for entry in load_dataset_config(settings.dataset_config).datasets:
        if entry.path is None or entry.latents is None:
            raise InputError(f"{settings.dataset_config}: {entry.id}: expected `path` (wavs) and `latents` (output)")
        wavs = sorted(Path(entry.path).glob("*.wav"))
        if not wavs:
            raise InputError(f"{entry.id}: no wav in {entry.path}")
        for wav in tqdm(wavs, desc=f"encoding {entry.id}"):
            audio = media.read_audio(wav, config.sample_rate, config.audio_channels)
            # silence up to a whole window, as training hears a short clip; a longer one is cropped only then
            window = np.pad(audio, ((0, 0), (0, max(0, config.sample_size - audio.shape[1]))))
            generator = torch.Generator().manual_seed(zlib.crc32(wav.stem.encode()))
            with torch.no_grad():
                latents = vae.encode(torch.from_numpy(window)[None], generator)[0]
            with media.atomic(Path(entry.latents) / f"{wav.stem}.npy") as part:
                np.save(part, latents.numpy().astype(np.float16))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"latents: {error}")
