"""The published numbers, to stand beside ours and be told apart from them.

They were found on the authors' own test clips, with weights and a protocol that cannot be repeated here: they say what
size of number to expect, and compare only with what is run again on the same clips.
"""

SYSTEM = "Diff-V2M"
FIGURES = ("fad_vggish", "fad_panns", "kl_softmax", "density_clap", "coverage_clap", "imagebind")
LABELS = ("FAD (VGGish) ↓", "FD (PANNs) ↓", "KL (PANNs) ↓", "Density ↑", "Coverage ↑", "ImageBind ↑")
NOTE = (
    "As published, on the authors' own test clips and protocol. Not comparable with the figures of this report: "
    "compare only what is run on the same clips. Which KL was taken is not said; it stands beside the softmax form."
)
TABLES: dict[str, dict[str, tuple[float | None, ...]]] = {  # test set → system → one value for each of FIGURES
    "Mixed test (BGM909 + SymMV)": {
        "CMT": (8.93, 47.76, 1.10, 0.042, 0.008, 0.082),
        "MuMu-LLaMA": (2.84, 27.12, 1.25, 0.107, 0.090, 0.145),
        "VidMuse": (3.44, 21.04, 0.94, 0.150, 0.130, 0.180),
        "Diff-V2M": (1.52, 10.96, 0.86, 0.376, 0.399, 0.181),
        "Diff-V2M, no rhythm": (1.83, 11.95, None, None, None, 0.189),
        "Diff-V2M, no emotion": (1.68, 12.89, None, None, None, 0.181),
        "Diff-V2M, no visual rhythm": (2.22, 13.61, None, None, None, 0.180),
        "Diff-V2M, no joint training": (1.88, 13.39, None, None, None, 0.181),
        "Diff-V2M, no schedule": (1.62, 10.67, None, None, None, 0.186),
    },
    "V2M-Bench": {
        "GVMGen": (2.15, 21.55, None, None, None, 0.203),
        "VidMuse": (2.59, 22.03, None, None, None, 0.196),
        "Diff-V2M": (1.76, 22.02, None, None, None, 0.197),
        "AudioX": (1.67, None, None, None, None, None),
        "Audio-Omni": (1.58, None, None, None, None, None),
    },
}


def published(figure: str) -> float | None:
    """What the paper gives for Diff-V2M on its mixed test; None where it has no such figure."""
    if figure not in FIGURES:
        return None
    return TABLES["Mixed test (BGM909 + SymMV)"][SYSTEM][FIGURES.index(figure)]
