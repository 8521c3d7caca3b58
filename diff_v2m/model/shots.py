"""Features of the shot that a moment lies in: its mean motion, and the distances to its cuts.

In the released model a cut reaches the network only through the predicted rhythm.
"""

import torch
from torch import Tensor

LEVELS = torch.linspace(0, 1, 6)  # of motion; a value lies between two of them
DECAYS = torch.tensor([0.25, 1.0, 4.0])  # seconds


def shot_rows(scene_cut: Tensor, motion: Tensor, mask: Tensor, rate: int) -> Tensor:
    """Cuts (B, R) 0 or 1, level of motion (B, R) and mask (B, R) at `rate` rows a second → (B, R, 12) float32.

    The values of a row are the mean motion of its shot, as the weights of the two nearest LEVELS (6), and
    exp(-seconds / DECAYS) since the shot began (3) and until it ends (3). The first row begins a shot, and the last row
    of the mask ends one.
    """
    begins = scene_cut != 0
    begins[:, 0] = True
    begins[:, 1:] |= mask[:, 1:] != mask[:, :-1]  # padding is no part of a shot
    shot = begins.cumsum(dim=1) - 1  # (B, R)
    weight = mask.float()
    sums = torch.zeros_like(motion, dtype=torch.float32).scatter_add_(1, shot, motion.float() * weight)
    level = (sums / torch.zeros_like(sums).scatter_add_(1, shot, weight).clamp(min=1)).gather(1, shot)  # (B, R)
    spread = (1 - (level[..., None] - LEVELS.to(level)).abs() * (len(LEVELS) - 1)).clamp(min=0)  # (B, R, 6)
    row = torch.arange(mask.shape[1], device=mask.device).expand_as(shot)
    first = torch.where(begins, row, 0).cummax(dim=1).values
    ends = torch.cat([begins[:, 1:], torch.ones_like(begins[:, :1])], dim=1)
    last = torch.where(ends, row, row.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    decays = DECAYS.to(level) * rate  # rows
    near = [torch.exp(-distance[..., None] / decays) for distance in (row - first, last - row)]
    return torch.cat([spread, *near], dim=2)
