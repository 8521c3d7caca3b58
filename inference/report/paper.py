"""The published results, shown beside the results of a report.

They were measured on the authors' own test clips by a protocol that cannot be repeated here. They show the order of
magnitude to expect; only systems evaluated on the same clips can be compared.
"""

SYSTEM = "Diff-V2M"
METRICS = ("fad_vggish", "fad_panns", "kl_softmax", "density_clap", "coverage_clap", "imagebind")
LABELS = ("FAD (VGGish) ↓", "FD (PANNs) ↓", "KL (PANNs) ↓", "Density ↑", "Coverage ↑", "ImageBind ↑")
NOTE = (
    "As published, on the authors' own test clips and protocol. They are not comparable with this report: compare only "
    "systems that are evaluated on the same clips. The paper does not say which KL it uses; it is shown beside the "
    "softmax form."
)
TABLES: dict[str, dict[str, tuple[float | None, ...]]] = {  # test set → system → a value for each of METRICS
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


def published(metric: str) -> float | None:
    """The paper's result for Diff-V2M on its mixed test set; None if the paper does not report this metric."""
    if metric not in METRICS:
        return None
    return TABLES["Mixed test (BGM909 + SymMV)"][SYSTEM][METRICS.index(metric)]
