#!/usr/bin/env bash
#SBATCH --job-name=diff-v2m-train
#SBATCH --output=slurm-%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# Training:
#   bash train.sh --model-config FILE --dataset-config FILE [flags]    (--help lists the flags and their defaults)
#   sbatch train.sh ...                      (sbatch's own flags override the header: --mem=64G, --time=8:00:00, ...)
#   sbatch --nodes=2 --ntasks-per-node=4 --gres=gpu:4 train.sh ... --num-nodes 2 --num-gpus 4   (a task for each GPU)
# Five minutes before its time limit, the job saves its state, is queued again, and resumes. It also resumes after a
# node failure or a preemption. To trigger this now: scancel --batch --signal=USR1 JOB
# Paths are relative to the folder it is called from, or submitted from.
set -euo pipefail

# sbatch runs a copy of this file from its spool folder; the job's record knows where the original is.
here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
root="${DIFF_V2M_ROOT:-$here}"
if [ ! -f "$here/setup.sh" ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    if [ -z "${DIFF_V2M_ROOT:-}" ]; then
        command="$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=//p' || true)"
        root="$(dirname "$(readlink -f "${command%%/train.sh*}/train.sh")")"
        [ -f "$root/setup.sh" ] || root="${SLURM_SUBMIT_DIR:-}"
    fi
fi
if [ ! -f "$root/setup.sh" ]; then
    echo "train.sh: repository not found; set DIFF_V2M_ROOT=/path (now: ${DIFF_V2M_ROOT:-unset})" >&2
    exit 1
fi

case " $* " in
    *" --help "* | *" -h "*) python="$(bash "$root/setup.sh" --no-install)" ;;
    *) python="$(bash "$root/setup.sh")" ;;
esac

# One process per task. In a job of several tasks srun starts them, unless srun started this script. srun passes the
# signal on. It ends all tasks when one dies, because the others would wait. It ignores sbatch's --cpus-per-task.
launch=()
if [ "${SLURM_NTASKS:-1}" -gt 1 ] && [ -z "${SLURM_STEP_ID:-}" ]; then
    launch=(srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"})
fi
# Only a job that Slurm has restarted resumes without --recover.
recover=()
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || recover=(--recover)
exec ${launch[@]+"${launch[@]}"} "$python" "$root/train.py" "$@" ${recover[@]+"${recover[@]}"}
