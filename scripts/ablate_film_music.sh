#!/usr/bin/env bash
# Trains the variants of configs/ablations_film_music.json with equal steps, seed and data, on what
# scripts/train_film_music.sh left in runs/film_music, and prints what each reaches. A stopped run resumes.
#   bash scripts/ablate_film_music.sh [STEPS]       default: 1500, about 25 minutes of one core for each variant, and 9
#                                                   to encode the rhythm of rows_1
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
steps="${1:-1500}" runs=runs/film_music/ablations
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

models=()
for variant in shots rows_8 rows_1; do
    folder="$runs/$steps/$variant"
    "$python" -m experiments.ablations expand "$variant" --table configs/ablations_film_music.json \
        --model-config configs/model/film_music.json --dataset-config configs/dataset/film_music.json --output "$folder"
    "$python" -m diff_v2m.preprocess latents --dataset-config "$folder/dataset.json" --device cpu \
        --model-config "$folder/model.json" --pretransform-ckpt-path runs/film_music/autoencoder/model.safetensors
    [ -f "$folder/model.safetensors" ] || "$python" train.py --model-config "$folder/model.json" \
        --dataset-config "$folder/dataset.json" --name "$variant" --save-dir "$runs/$steps" --recover \
        --precision 32 --accelerator cpu --num-workers 0 --gradient-clip-val 1 --batch-size 4 \
        --max-epochs -1 --max-steps "$steps" --checkpoint-every 250 --log-every 50 \
        --pretransform-ckpt-path runs/film_music/autoencoder/model.safetensors
    models+=("$folder/model.safetensors")
done
"$python" -m experiments.film_music compare "${models[@]}"
