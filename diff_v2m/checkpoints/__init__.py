"""Weights on disk: released-format Lightning checkpoints and our safetensors, loaded strictly and safely.

Every key of a file is loaded, named as dropped in `loading.DROPPED`, or an error that lists it; a new run may start
from weights that lack what its config adds, and says so (`starting`). Pickles are read with `weights_only=True` and
memory-mapped: nothing in a file is executed, and float32 weights are not copied to be loaded.

    released .ckpt     diffusion.*  diffusion_ema.ema_model.* (= diffusion.model.*)  losses.*   and perhaps model_config
    our .safetensors   diffusion.* (one set of weights), the model JSON in the metadata
    autoencoders       pretransform.* (Stable Audio), autoencoder.* (train.py), diffusion.pretransform.* (both above)
    adapters           a training checkpoint of low-rank adapters alone; lora.py knows how they are merged
"""
