#!/usr/bin/env bash
# Trains the variants of configs/ablations_film_music.json with equal steps, seed and data, on what
# scripts/train_film_music.sh left in runs/film_music, and prints what each reaches. The autoencoder of `audio` is trained
# first. A stopped run resumes.
#   bash scripts/ablate_film_music.sh [STEPS]       default: 1500, about 25 minutes of one core for each variant, 9 to
#                                                   encode the rhythm of rows_1, and 60 for autoencoder and latents of audio
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
steps="${1:-1500}" data=runs/film_music runs=runs/film_music/ablations
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

train() {  # FOLDER MODEL_JSON DATASET_JSON STEPS [flags]: a run that resumes from its last checkpoint
    [ -f "$1/model.safetensors" ] || "$python" train.py --model-config "$2" --dataset-config "$3" \
        --name "$(basename "$1")" --save-dir "$(dirname "$1")" --recover --precision 32 --accelerator cpu \
        --num-workers 0 --gradient-clip-val 1 --batch-size 4 --max-epochs -1 --max-steps "$4" --checkpoint-every 250 \
        --log-every 50 "${@:5}"
}

train "$runs/audio_vae" configs/model/tiny_vae.json configs/dataset/film_music.json 8000
models=()
for variant in shots rows_8 rows_1 audio; do
    folder="$runs/$steps/$variant" autoencoder="$data/autoencoder/model.safetensors"
    [ "$variant" != audio ] || autoencoder="$runs/audio_vae/model.safetensors"
    "$python" -m experiments.ablations expand "$variant" --table configs/ablations_film_music.json \
        --model-config configs/model/film_music.json --dataset-config configs/dataset/film_music.json --output "$folder"
    "$python" -m diff_v2m.preprocess latents --dataset-config "$folder/dataset.json" --device cpu \
        --model-config "$folder/model.json" --pretransform-ckpt-path "$autoencoder"
    train "$folder" "$folder/model.json" "$folder/dataset.json" "$steps" --pretransform-ckpt-path "$autoencoder"
    models+=("$folder/model.safetensors")
done
"$python" -m experiments.film_music compare "${models[@]}"
"$python" -m experiments.film_music compare "${models[@]}" --first 40
