#!/usr/bin/env bash
#SBATCH --job-name=diff-v2m-train
#SBATCH --output=slurm-%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
# Training:
#   bash train.sh --model-config FILE --dataset-config FILE [flags]    (--help lists the flags and their defaults)
#   sbatch train.sh ...                           (sbatch's own flags override the header: --mem=64G, --gres=gpu:2, ...)
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
    echo "train.sh: where is the repository? Say so with DIFF_V2M_ROOT=/path (now: ${DIFF_V2M_ROOT:-unset})." >&2
    exit 1
fi

case " $* " in
    *" --help "* | *" -h "*) python="$(bash "$root/setup.sh" --no-install)" ;;
    *) python="$(bash "$root/setup.sh")" ;;
esac

# One process a task: under a job of several tasks srun starts them, unless srun started this very script.
launch=()
[ "${SLURM_NTASKS:-1}" -le 1 ] || [ -n "${SLURM_STEP_ID:-}" ] || launch=(srun)
exec ${launch[@]+"${launch[@]}"} "$python" "$root/train.py" "$@"
