"""Training; `train.py` at the top of the repository is the list of steps.

diffusion_module    the training step of the generator; losses, ema, optim: what it uses
distillation        the training step of a student, against a frozen teacher
pretransform_module  the training step of an autoencoder; autoencoder_module, score_module: losses and data of the two
trainer             settings → module, Lightning Trainer, checkpoint to resume from; distributed: devices and precision
callbacks           seeds, finite losses, validation schedule, checkpoints; preemption: stop signals
demos               music generated during training; music_metrics: metrics of it
run_folder          what a run keeps on disk; run_paths: where; run_logs, run_page: its curves on one page
"""
