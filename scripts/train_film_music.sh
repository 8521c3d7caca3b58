#!/usr/bin/env bash
# Trains saved_model/film_music_teacher/ from scratch, in runs/film_music. It composes procedural scores, trains the score
# autoencoder on them, renders clips with sound and features, encodes them, and trains the generator: 6,000 steps of two
# processes. It takes about three and a half hours of two cores. A stopped run resumes.
#   bash scripts/train_film_music.sh
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
runs="runs/film_music"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

train() {  # NAME MODEL_JSON DATASET STEPS [flags]: a run that resumes from its last checkpoint
    local name=$1 model=$2 dataset=$3 steps=$4
    shift 4
    [ -f "$runs/$name/model.safetensors" ] || "$python" train.py --model-config "$model" \
        --dataset-config "configs/dataset/$dataset.json" --name "$name" --save-dir "$runs" --recover \
        --precision 32 --accelerator cpu --num-workers 0 --gradient-clip-val 1 \
        --max-epochs -1 --max-steps "$steps" --checkpoint-every 250 --log-every 50 "$@"
}

render() {  # clips without pictures, whose features are made directly
    "$python" -m experiments.film_music render --output "$runs/train" --no-video "$@"
}

render_all() {  # most clips fill the window; the others teach that a video may be short
    render --count 1600
    local first=1600 seconds
    for seconds in 4 8 13 20; do
        render --count 100 --first-seed "$first" --duration "$seconds"
        first=$((first + 100))
    done
}

encode() {
    "$python" -m diff_v2m.preprocess latents --dataset-config configs/dataset/film_music.json --device cpu \
        --model-config configs/model/film_music.json --pretransform-ckpt-path "$runs/autoencoder/model.safetensors" "$@"
}

"$python" -m experiments.film_music render --output "$runs/scores" --count 4000 --scores-only
render_all &
rendering=$!
train autoencoder configs/model/score_autoencoder.json film_music_scores 5000 --batch-size 8
wait "$rendering"
encode --part 0/2 &
encoding=$!
encode --part 1/2
wait "$encoding"
train teacher configs/model/film_music.json film_music 6000 --batch-size 4 --num-gpus 2 \
    --pretransform-ckpt-path "$runs/autoencoder/model.safetensors"
"$python" -m diff_v2m.checkpoints export "$runs/teacher/model.safetensors" saved_model/film_music_teacher/model.safetensors \
    --pretransform-ckpt-path "$runs/autoencoder/model.safetensors"
"$python" -m experiments.film_music check --ckpt-path saved_model/film_music_teacher
