#!/usr/bin/env bash
# Evaluates both bundled models as results/evaluation.md shows it: the small audio model on held-out procedural clips,
# against music made for other videos; and both on real footage. Existing results are kept.
#   bash scripts/evaluate.sh [FOLDER [CLIPS [VIDEO ...]]]       (default: runs/evaluation, 12, examples/earth.mp4)
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="$(realpath -m "${1:-$root/runs/evaluation}")"
clips="${2:-12}"
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- "$root/examples/earth.mp4"
videos=()
for video in "$@"; do videos+=("$(realpath "$video")"); done
python="$(bash "$root/setup.sh")"
cd "$root"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
held="$folder/held-out"
mkdir -p "$folder"

if [ ! -f "$held/check.md" ]; then
    "$python" -m experiments.synthetic check --output "$held" --count "$clips" >"$held.part"
    mv "$held.part" "$held/check.md"
fi
rm -rf "$held/other video"
mkdir -p "$held/other video"
wavs=("$held"/wav/*.wav)
for i in "${!wavs[@]}"; do  # each video gets the music made for the next one
    cp "${wavs[(i + 1) % ${#wavs[@]}]}" "$held/other video/$(basename "${wavs[i]}")"
done
"$python" -m inference.evaluate --compare "bundled=$held/wav" "other video=$held/other video" \
    --reference "$held/true" --videos "$held/video" --output "$folder/report"

mkdir -p "$folder/footage"
cp "${videos[@]}" "$folder/footage"
for model in tiny film_music; do
    bash infer.sh "${videos[@]}" --ckpt_path "saved_model/$model" --output_dir "$folder/real/$model"
done
"$python" -m inference.evaluate --compare "tiny=$folder/real/tiny" "film_music=$folder/real/film_music" \
    --videos "$folder/footage" --output "$folder/report-real"
