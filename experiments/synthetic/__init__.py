"""A procedural world whose music follows from the picture by known rules.

A model trained on it can therefore be evaluated exactly:

    ==================  =============================================================
    picture             music
    ==================  =============================================================
    shape               which of four instruments plays (key and tempo are constant)
    warm or cool        major or minor
    amount of motion    note density, loudness, and how much of the drum kit plays
    a cut               a crash and a new bar
    ==================  =============================================================

Everything follows from one integer seed: `scene.plan(seed)` draws a `Scene`, `music.render` renders its music and
`video.render` its picture. `python -m experiments.synthetic` renders data sets and checks models on held-out clips.
"""
