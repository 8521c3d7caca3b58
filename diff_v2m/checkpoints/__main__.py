"""`python -m diff_v2m.checkpoints export`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from diff_v2m.checkpoints import lora
from diff_v2m.checkpoints.files import PREFIXES, read_weights, save_state
from diff_v2m.checkpoints.loading import WeightSet, load_model, load_vae_weights
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.config import CAST_DTYPES

log = logging.getLogger("diff_v2m.checkpoints")  # __name__ is "__main__" when this is run


def export(
    source: Path,
    target: Path,
    *,
    weights: WeightSet = "ema",
    dtype: torch.dtype | None = torch.float16,
    vae: Path | None = None,
    base: Path | None = None,
) -> None:
    """A training checkpoint or a released one → one weight set of it, as safetensors with its config.

    dtype: as in `save_state`. vae: a file whose autoencoder replaces the checkpoint's. base: base model of a
    LoRA checkpoint, if it was moved.
    Raises InputError if the source does not fit its config or the target cannot be written.
    """
    file = read_weights(source)
    if file.adapters is not None:
        model, config, adapters = lora.read_adapters(file, weights, base)
    elif base is not None:
        raise InputError(f"{source}: holds whole weights; --base is for checkpoints of adapters")
    else:
        (model, config), adapters = load_model(source, weights=weights), {}
    if vae is not None:
        load_vae_weights(model.pretransform, vae)
    state = model.state_dict(prefix=PREFIXES[config.model_type])
    save_state(lora.MergedState(state | adapters), config, target, dtype=dtype)


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m diff_v2m.checkpoints", description="Weights files.")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "export", help="a training checkpoint → model.safetensors, with the model JSON inside"
    )
    command.add_argument("checkpoint", type=Path, help=".ckpt or .safetensors; its model JSON in it or beside it")
    command.add_argument("output", type=Path, help="the .safetensors file to write")
    command.add_argument(
        "--weights", choices=("ema", "online"), default="ema", help="weight set to export (default: %(default)s)"
    )
    command.add_argument(
        "--dtype", choices=CAST_DTYPES, default="fp16", help="precision on disk (default: %(default)s)"
    )
    command.add_argument(
        "--pretransform-ckpt-path",
        type=Path,
        help="take the autoencoder from this file, for example one trained further with a frozen encoder",
    )
    command.add_argument("--base", type=Path, help="base model of a LoRA checkpoint, if it was moved")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    if args.output.suffix != ".safetensors":
        raise InputError(f"{args.output}: expected a name that ends in .safetensors")
    export(
        args.checkpoint,
        args.output,
        weights=args.weights,
        dtype=getattr(torch, CAST_DTYPES[args.dtype]),
        vae=args.pretransform_ckpt_path,
        base=args.base,
    )
    log.info("wrote %s: the %s weights of %s", args.output, args.weights, args.checkpoint)


if __name__ == "__main__":
    sys.exit(main())
