#!/usr/bin/env bash
#SBATCH --job-name=diff-v2m-ablations
#SBATCH --output=slurm-%x-%A_%a.out
#SBATCH --array=0-59
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# Trains the variants of configs/ablations.json: same model, data, steps and seeds, except for one setting each.
#   bash scripts/ablations.sh tiny                      small model, on this machine: data, training, scores and
#                                                       results/ablations.md
#   sbatch scripts/ablations.sh full --dataset-config data/train.json --val-dataset-config data/val.json [train.sh flags]
#                                                       full-size model, one task per variant and seed
#   --seeds "1 2 3"  --variants "full untimed"          only these; with sbatch, --array=0-N for as many tasks
# Finished runs are skipped, stopped runs resume. To use two cores, start `tiny` twice: the processes share the work.
# Paths are relative to the repository. Runs are written to runs/ablations/<base>/<variant>/seed_<n>.
set -euo pipefail

here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
root="${DIFF_V2M_ROOT:-$(dirname "$here")}"
if [ ! -f "$root/setup.sh" ] && [ -n "${SLURM_JOB_ID:-}" ]; then  # sbatch runs a copy from its spool folder
    command="$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=//p' | head -n 1 || true)"
    root="$(dirname "$(dirname "$(readlink -f "${command%%/ablations.sh*}/ablations.sh")")")"
    [ -f "$root/setup.sh" ] || root="${SLURM_SUBMIT_DIR:-}"
fi
if [ ! -f "$root/setup.sh" ]; then
    echo "ablations.sh: repository not found; set DIFF_V2M_ROOT=/path (now: ${DIFF_V2M_ROOT:-unset})" >&2
    exit 1
fi
cd "$root"

base="${1:-}" seeds="1 2 3" variants="" dataset="" validation="" flags=()
[ $# -eq 0 ] || shift
while [ $# -gt 0 ]; do
    case "$1" in
        --seeds) seeds="${2:?--seeds needs numbers}" && shift 2 ;;
        --variants | --twins) variants="${2:?--variants needs names}" && shift 2 ;;
        --dataset-config) dataset="${2:?--dataset-config needs a file}" && shift 2 ;;
        --val-dataset-config) validation="${2:?--val-dataset-config needs a file}" && shift 2 ;;
        *) flags+=("$1") && shift ;;
    esac
done
runs="runs/ablations/$base" data=runs/ablations/data weights=saved_model/tiny/model.safetensors
case "$base" in
    tiny)
        model=configs/model/tiny.json
        dataset="${dataset:-configs/dataset/ablations.json}"
        validation="${validation:-configs/dataset/ablations_held_out.json}"
        # 96 clips in batches of 4 are 24 steps an epoch: 25 epochs, of which the curriculum takes 5 to 15
        flags=(--pretransform-ckpt-path "$weights" --accelerator cpu --precision 32 --num-workers 0 --batch-size 4
            --max-epochs -1 --max-steps 600 --val-every 150 --checkpoint-every 150 --save-top-k 0 --log-every 25
            --gradient-clip-val 1 ${flags[@]+"${flags[@]}"})
        export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
        ;;
    full)
        model=configs/model/diff_v2m_corrected.json
        if [ -z "$dataset" ] || [ -z "$validation" ]; then
            echo "ablations.sh: full needs --dataset-config and --val-dataset-config" >&2
            exit 1
        fi
        ;;
    *) echo "ablations.sh: expected a base, tiny or full (given: ${base:-none})" >&2 && exit 1 ;;
esac
export DIFF_V2M_PYTHON="$(bash setup.sh)"
python="$DIFF_V2M_PYTHON"

render_and_encode() {  # clips, and their latents by the bundled autoencoder; latents of another one are replaced
    local set
    "$python" -m experiments.synthetic render --output "$data/train" --count 96
    # other seeds than the clips that evaluate the bundled model
    "$python" -m experiments.synthetic render --output "$data/held_out" --count 24 --held-out --first-seed 100000
    for set in "$dataset" "$validation"; do
        "$python" -m diff_v2m.preprocess latents --dataset-config "$set" --model-config "$model" \
            --pretransform-ckpt-path "$weights" --device cpu --overwrite
    done
}
if [ "$base" = tiny ]; then
    mkdir -p "$data"
    (flock 9 && render_and_encode) 9>"$data/.lock"
fi

train() {  # VARIANT SEED, with exec: train.sh needs the signal that Slurm sends before the time limit
    "$python" -m experiments.ablations expand "$1" --model-config "$model" --dataset-config "$dataset" \
        --val-dataset-config "$validation" --output "$runs/$1" || exit 1
    exec bash train.sh --model-config "$runs/$1/model.json" --dataset-config "$runs/$1/dataset.json" \
        --val-dataset-config "$runs/$1/val_dataset.json" --save-dir "$runs/$1" --name "seed_$2" --seed "$2" --recover \
        ${flags[@]+"${flags[@]}"}
}

tasks=()
[ -n "$variants" ] || variants="$("$python" -m experiments.ablations names --model-config "$model")"
for seed in $seeds; do
    for variant in $variants; do tasks+=("$variant $seed"); done
done
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    task="${tasks[$SLURM_ARRAY_TASK_ID]:-}"
    [ -n "$task" ] || { echo "task $SLURM_ARRAY_TASK_ID: nothing to do, there are ${#tasks[@]} tasks" && exit; }
    [ ! -f "$runs/${task% *}/seed_${task#* }/model.safetensors" ] || exit 0
    train ${task% *} ${task#* }
fi

trap 'exit 130' INT TERM  # once the current variant has ended
failed=()
for task in "${tasks[@]}"; do
    folder="$runs/${task% *}/seed_${task#* }"
    mkdir -p "$folder"
    [ ! -f "$folder/model.safetensors" ] || continue
    echo "== $task"
    (flock -n 9 || exit 75; train ${task% *} ${task#* }) 9>"$folder/.lock" || failed+=("$task (status $?)")
done
if [ ${#failed[@]} -gt 0 ]; then
    printf 'not finished: %s\n' "${failed[@]}" >&2
    echo "status 75: another process is training it; 128 and above: stopped by a signal" >&2
    exit 1
fi
[ "$base" = tiny ] || exit 0
"$python" -m experiments.ablations score "$runs" --dataset-config "$validation"
"$python" -m experiments.ablations table "$runs" --results results/ablations.json --write results/ablations.md
