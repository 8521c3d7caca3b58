#!/usr/bin/env bash
#SBATCH --job-name=diff-v2m-infer
#SBATCH --output=slurm-%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --time=02:00:00
# Video in, video with music out:
#   bash infer.sh [VIDEO | FOLDER ...] [flags]    (--help lists the flags; without an input: the clip in examples/)
#   sbatch infer.sh VIDEO                         (sbatch's own flags override the header: --mem=32G, --gres=none, ...)
#   sbatch --array=0-7 infer.sh FOLDER            (each task processes one part)
# Paths are relative to the folder it is called from, or submitted from.
set -euo pipefail

# sbatch runs a copy of this file from its spool folder; the job's record knows where the original is.
here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
root="${DIFF_V2M_ROOT:-$here}"
share=()
if [ ! -f "$here/setup.sh" ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    if [ -z "${DIFF_V2M_ROOT:-}" ]; then
        command="$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=//p' || true)"
        root="$(dirname "$(readlink -f "${command%%/infer.sh*}/infer.sh")")"
        [ -f "$root/setup.sh" ] || root="${SLURM_SUBMIT_DIR:-}"
    fi
    first="${SLURM_ARRAY_TASK_MIN:-}" step="${SLURM_ARRAY_TASK_STEP:-1}" count="${SLURM_ARRAY_TASK_COUNT:-}"
    [ -z "$count" ] || [[ " $* " =~ " --"(part|shard) ]] ||
        share=(--part "$(((SLURM_ARRAY_TASK_ID - first) / step))/$count")
fi
if [ ! -f "$root/setup.sh" ]; then
    echo "infer.sh: repository not found; set DIFF_V2M_ROOT=/path (now: ${DIFF_V2M_ROOT:-unset})" >&2
    exit 1
fi

case " $* " in
    *" --help "* | *" -h "*) python="$(bash "$root/setup.sh" --no-install)" ;;
    *) python="$(bash "$root/setup.sh")" ;;
esac
exec "$python" "$root/infer.py" ${share[@]+"${share[@]}"} "$@"
