#!/usr/bin/env bash
# Trains students of saved_model/film_music_teacher/ in runs/film_music, for 8, 4 and 2 evaluations a clip, each of them
# the teacher of the next, and compares them with it. The first becomes saved_model/film_music/. Needs what
# scripts/train_film_music.sh leaves. It takes about an hour and a half of two cores. A stopped run resumes,
# and a finished one is not trained again: remove its folder for another teacher.
#   bash scripts/distill_film_music.sh [FOLDER OF THE TEACHER]    (default: saved_model/film_music_teacher)
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
teacher="$(realpath "${1:-$root/saved_model/film_music_teacher}")"
python="$(bash "$root/setup.sh")"
cd "$root"
runs="runs/film_music" autoencoder="runs/film_music/autoencoder/model.safetensors"  # which encoded the latents
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

distill() {  # STUDENT_STEPS TEACHER STEPS
    [ -f "$runs/student$1/model.safetensors" ] || "$python" train.py --distill "$2" --student-steps "$1" \
        --dataset-config configs/dataset/film_music.json --name "student$1" --save-dir "$runs" --recover \
        --pretransform-ckpt-path "$autoencoder" --precision 32 --accelerator cpu \
        --num-gpus 2 --num-workers 0 --gradient-clip-val 1 --batch-size 4 --max-epochs -1 --max-steps "$3" \
        --checkpoint-every 50 --log-every 25
}

distill 8 "$teacher" 800
"$python" -m diff_v2m.checkpoints export "$runs/student8/model.safetensors" saved_model/film_music/model.safetensors \
    --pretransform-ckpt-path "$autoencoder"
distill 4 "$runs/student8" 500
distill 2 "$runs/student4" 500
models=("$teacher" "$runs"/student{8,4,2})
"$python" -m experiments.film_music compare "${models[@]/%//model.safetensors}" --plot results/students.png
"$python" -m experiments.film_music compare "${models[@]/%//model.safetensors}" --first 40
