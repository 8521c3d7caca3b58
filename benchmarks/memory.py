"""How much memory composing takes: `python -m benchmarks.memory`. Computed from the code, on no device (see
diff_v2m/generation/memory.py)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.measuring import PERFORMANCE, write_section
from diff_v2m.common import cli

ROOT = Path(__file__).resolve().parents[1]
ROWS = ((1, None), (1, 5.0), (1, 1.0), (4, None), (4, 5.0), (16, 5.0))  # windows together, seconds decoded at a time


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--model-config", type=Path, default=ROOT / "configs" / "model" / "diff_v2m.json")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="whose section on memory is replaced")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    from diff_v2m.config import load_model_config

    text = report(args.model_config, load_model_config(args.model_config))
    write_section(args.output, "Memory", "python -m benchmarks.memory", text)
    sys.stdout.write(text)


def report(path: Path, config) -> str:
    """Markdown: a row for each way to cut up the work, a column for each precision, kept on the device or not."""
    import torch

    from diff_v2m.generation.memory import OVERHEAD, SLACK, Memory, Plan

    memories = {"float32": Memory(config), "bf16, fp16": Memory(config, torch.bfloat16)}
    columns = [(name, offload) for name in memories for offload in (False, True)]
    lines = [
        f"Gigabytes of device memory for {path.name}, windows of {config.window_seconds:g} s, guidance on. **Computed, "
        f"not measured**: the tensors that live together, plus {100 * (SLACK - 1):.0f} %, plus {OVERHEAD / 1e9:g} GB "
        "for a CUDA context. `--memory GB` chooses the row by the same figures. Written by `python -m "
        "benchmarks.memory`.",
        "",
        "| `--batch_size` | `--decode_chunk` | "
        + " | ".join(f"{name}{', `--offload`' if offload else ''}" for name, offload in columns)
        + " |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for batch_size, chunk in ROWS:
        needs = [memories[name].needs(Plan(batch_size, chunk, offload)) for name, offload in columns]
        cells = [str(batch_size), "whole" if chunk is None else f"{chunk:g} s", *(f"{n / 1e9:.1f}" for n in needs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
