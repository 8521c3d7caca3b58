"""Weights files: released-format Lightning checkpoints and our safetensors, loaded strictly and safely.

Every key of a file is loaded, skipped because `loading.DROPPED` lists it, or an error. A new run may start from weights
that lack what its config adds (`starting`), which is logged. Pickles are read with `weights_only=True` and
memory-mapped: nothing in a file is executed, and float32 weights are not copied.

    released .ckpt     diffusion.*  diffusion_ema.ema_model.* (= diffusion.model.*)  losses.*  perhaps model_config
    our .safetensors   diffusion.* (one weight set), the model JSON in the metadata
    autoencoders       pretransform.* (Stable Audio), autoencoder.* (train.py), diffusion.pretransform.* (both above)
    adapters           a training checkpoint of low-rank adapters alone; lora.py merges them
"""
