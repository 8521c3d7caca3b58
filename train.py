"""Train Diff-V2M or its audio autoencoder: defaults.ini + flags → data, model, Trainer, fit."""

import argparse
import sys

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.training.preemption import Interrupted, StopSignals, end_interrupted
from diff_v2m.training.run_paths import check_new_run, last_checkpoint, make_run_folder, run_folder
from diff_v2m.training.settings import DEFAULTS, find_files, parse_arguments


def main(arguments: list[str] | None = None) -> int:
    stopped = "train.py: stopped; --recover resumes from the last checkpoint"
    return cli.main(parse, run, arguments, prefix="train.py", stopped=stopped)


def parse(arguments: list[str]) -> argparse.Namespace:
    return parse_arguments(arguments, DEFAULTS)


def run(settings: argparse.Namespace) -> None:
    with StopSignals() as signals:  # signals received before step 1 are handled after it
        from diff_v2m.config import load_dataset_config, load_model_config

        check_new_run(settings)
        find_files(settings)
        config = None if settings.distill else load_model_config(settings.model_config)
        data = load_dataset_config(settings.dataset_config)
        val_data = load_dataset_config(settings.val_dataset_config) if settings.val_dataset_config else None

        import pytorch_lightning as pl

        from diff_v2m.training.run_folder import write_record
        from diff_v2m.training.run_page import write_after_training
        from diff_v2m.training.trainer import build_trainer, checkpoint_to_resume, module_class

        if settings.distill:
            from diff_v2m.training.distillation import student_config

            config = student_config(settings)
        kind = module_class(config, distilled=bool(settings.distill))
        train_loader = kind.loader(data, config, settings, training=True)
        config = kind.recorded(config, train_loader)
        val_loader = kind.loader(val_data, config, settings, training=False) if val_data else None
        pl.seed_everything(settings.seed, workers=True, verbose=False)
        module = kind.from_settings(config, settings)

        start = checkpoint_to_resume(settings, module)
        make_run_folder(settings)  # last, so that a mistake in the flags leaves nothing behind
        write_record(settings, config, {"dataset": data} | ({"val_dataset": val_data} if val_data else {}))
        trainer = build_trainer(settings, config, data, val_data, signals)
        try:
            trainer.fit(module, train_loader, val_loader, ckpt_path=start, weights_only=True)
        except Interrupted as interruption:
            if trainer.is_global_zero:
                end_interrupted(interruption)
            return
        try:
            module.export(run_folder(settings) / "model.safetensors", train_loader)
        except InputError as error:
            last = last_checkpoint(settings)
            raise InputError(
                f"{error}; what was trained is in {last}; start the run again with --recover: it only exports then"
            ) from error
        if trainer.is_global_zero:
            write_after_training(run_folder(settings))


if __name__ == "__main__":
    sys.exit(main())
