#!/usr/bin/env bash
# train.sh and infer.sh as real jobs of a one-node Slurm on this machine, with toy models:    bash tests/slurm/run.sh
# Needs root and slurmctld, slurmd and srun in PATH (Debian: slurm-wlm); skips with a reason and status 77 otherwise.
set -euo pipefail
here="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$(dirname "$here")")"
for program in slurmctld slurmd srun; do
    command -v "$program" >/dev/null || { echo "skipped: $program is not installed (Debian: slurm-wlm)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: starting a cluster needs root"; exit 77; }

exec 9>"${TMPDIR:-/tmp}/diff-v2m-slurm.lock"
flock 9  # the jobs of two clusters would have the same numbers and ports

python="$(bash "$root/setup.sh")"
export DIFF_V2M_PYTHON="$python" OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TQDM_DISABLE=1 MASTER_ADDR=127.0.0.1
work="$(mktemp -d)"
source "$here/one_node.sh"
trap 'stop_slurm; rm -rf "$work" || true' EXIT
cd "$work"
PYTHONPATH="$root:$root/tests" "$python" "$here/toys_for_slurm.py" "$work"
start_slurm "$work/slurm"

fail() { echo "FAILED: $1" >&2; tail -n 40 "$work"/*.out >&2; exit 1; }
submit() { sbatch --parsable --gres=none --cpus-per-task=1 --output="$work/%x-%j.out" "$@"; }
train() {
    submit --ntasks-per-node=2 "$root/train.sh" --model-config model.json --dataset-config data.json --save-dir runs \
        --val-dataset-config data.json --val-every 4 --accelerator cpu --num-gpus 2 --precision 32 --num-workers 0 \
        --batch-size 1 --log-every 1 --checkpoint-every 2 "$@"
}
rows() { cat "runs/$1"/logs/version_*/metrics.csv 2>/dev/null | wc -l; }
has_rows() { [ "$(rows "$1")" -gt "$2" ]; }
finished() { case "$(job_state "$1")" in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) ;; *) false ;; esac; }
completed() { wait_for 900 finished "$1" && [ "$(job_state "$1")" = COMPLETED ]; }

second_task() {
    local file
    for file in /proc/[0-9]*/environ; do
        ! { grep -qz "^SLURM_JOB_ID=$1\$" "$file" && grep -qz '^SLURM_PROCID=1$' "$file"; } 2>/dev/null ||
            basename "$(dirname "$file")"
    done | head -n 1
}

echo "== two tasks train to the end"
job="$(train --name whole --max-steps 24)"
completed "$job" || fail "the uninterrupted job"

echo "== after SIGUSR1 half-way, the job is queued again, resumes and ends"
job="$(train --name pieces --max-steps 24)"
wait_for 600 has_rows pieces 5 || fail "the job did not start"
scancel --batch --signal=USR1 "$job"
completed "$job" || fail "the requeued job"
scontrol show job "$job" | grep -q "Restarts=1 " || fail "it was not queued again"
grep -q "resuming from" "diff-v2m-train-$job.out" || fail "it did not resume"
PYTHONPATH="$root:$root/tests" "$python" "$here/toys_for_slurm.py" --compare runs/whole runs/pieces || fail "the curves"

echo "== a killed task ends the job, with a message"
job="$(train --name killed --max-steps 100000)"
wait_for 600 has_rows killed 3 || fail "the job did not start"
kill -9 "$(second_task "$job")"
wait_for 120 finished "$job" || fail "the job hangs"
[ "$(job_state "$job")" = FAILED ] || fail "a job with a killed task ended as $(job_state "$job")"
grep -qi "killed" "diff-v2m-train-$job.out" || fail "nothing says why"

echo "== an array of infer.sh generates music for a folder, each video once"
job="$(submit --array=0-1 "$root/infer.sh" videos --ckpt_path model.safetensors --output_dir generated --device cpu)"
wait_for 900 finished "${job}_0" && wait_for 900 finished "${job}_1" || fail "the array"
for video in videos/*.mp4; do
    name="$(basename "$video" .mp4)"
    [ -s "generated/$name.wav" ] && [ -s "generated/$name.mp4" ] || fail "$name was not generated"
    [ "$(grep -l "$name" diff-v2m-infer-*.out | wc -l)" -le 1 ] || fail "$name was generated twice"
done
echo "passed"
