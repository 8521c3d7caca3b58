"""The network and its sampler.

dit.py                LatentDiffusion > GuidedDiT > HierarchicalDiT
blocks.py             attention, feed-forward, the hierarchical block and its stack
fusion.py             combines semantics and rhythm, depending on diffusion time
rotary.py             rotary positions
streams.py            condition tokens with their times and masks
conditioners.py       batch → Conditions; the rhythm predictor
pretransform.py       the interface of the two that follow
autoencoder.py        waveform ⇄ latents
score_autoencoder.py  score ⇄ latents
music.py              the music of a clip: audio, score, voices
accents.py            accents in audio: the strongest attack, played at further moments
warp.py               time warps of music, at the same pitch
diffusion.py          objectives and samplers over denoise(x, t)
precision.py          bf16, fp16, int8, fp8
compiling.py          torch.compile, block by block
"""
