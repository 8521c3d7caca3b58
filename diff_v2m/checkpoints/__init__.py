"""Weights on disk: released-format Lightning checkpoints and our safetensors, loaded strictly and safely.

Every key of a file is loaded, named as dropped in `loading.DROPPED`, or an error that lists it; a new run may start
from weights that lack what its config adds, and says so (`starting`). Pickles are read with `weights_only=True` and
memory-mapped: nothing in a file is executed, and float32 weights are not copied to be loaded.

    released .ckpt     diffusion.*  diffusion_ema.ema_model.* (= diffusion.model.*)  losses.*   and perhaps model_config
    our .safetensors   diffusion.* (one set of weights), the model JSON in the metadata
    autoencoders       pretransform.* (Stable Audio), autoencoder.* (train.py), diffusion.pretransform.* (both above)
    adapters           a training checkpoint of low-rank adapters alone; lora.py knows how they are merged
"""

from diff_v2m.checkpoints.files import WeightsFile, read_weights, save_model
from diff_v2m.checkpoints.loading import Weights, check_resumable, load_model, load_vae_weights, load_weights
from diff_v2m.checkpoints.starting import start_from, start_from_stable_audio

__all__ = [
    "Weights", "WeightsFile", "check_resumable", "load_model", "load_vae_weights", "load_weights",
    "read_weights", "save_model", "start_from", "start_from_stable_audio",
]  # fmt: skip
