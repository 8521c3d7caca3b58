"""A procedural audio-video world in which picture and music are tied by known rules.

What is shown decides what is played, so that a model trained here can be judged exactly:

    ==================  =============================================================
    picture             music
    ==================  =============================================================
    what is shown       which of four instruments plays (key and tempo stay the same)
    warm or cool        major or minor
    how much it moves   how densely and how loudly it plays, and how much drum kit
    a cut               a crash and a new bar
    ==================  =============================================================

Everything follows from one integer seed: `scene.plan(seed)` draws a `Scene`, `music.render` plays it and
`video.render` films it. `python -m experiments.synthetic` writes sets to disk and judges models on held-out ones.
"""
