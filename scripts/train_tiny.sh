#!/usr/bin/env bash
# Trains saved_model/tiny/ from scratch, in runs/tiny. It makes procedural data, then trains the autoencoder, its decoder
# with a frozen encoder (the latents stay valid), and the generator. It uses two cores: videos are rendered while the
# autoencoder trains on their music, and the generator trains in two processes. A stopped run resumes.
#   bash scripts/train_tiny.sh
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
runs="runs/tiny"
clips=700
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
trap 'trap - INT TERM; kill 0' INT TERM  # background commands end too

train() {  # NAME MODEL STEPS [flags]: a run that resumes from its last checkpoint
    local name=$1 model=$2 steps=$3
    shift 3
    [ -f "$runs/$name/model.safetensors" ] || "$python" train.py --model-config "configs/model/$model.json" \
        --dataset-config configs/dataset/tiny.json --name "$name" --save-dir "$runs" --recover --precision 32 \
        --accelerator cpu --num-workers 0 --gradient-clip-val 1 --max-epochs -1 --max-steps "$steps" \
        --checkpoint-every 500 --log-every 100 "$@"
}

render() { "$python" -m experiments.synthetic render --output "$runs/train" --count "$clips" "$@"; }
encode() {
    "$python" -m diff_v2m.preprocess latents --dataset-config configs/dataset/tiny.json --device cpu \
        --model-config configs/model/tiny.json --pretransform-ckpt-path "$runs/vae/model.safetensors" "$@"
}
beside() {  # NAME COMMAND...: in the background, with its own log; a failure is printed and ends the script at `wait`
    { "${@:2}" >>"$runs/$1.log" 2>&1 || { echo "$1 failed:" && tail -n 5 "$runs/$1.log" && exit 1; } >&2; } &
}

mkdir -p "$runs"
render --music-only  # half a minute; the autoencoder needs no more
beside videos render
train vae tiny_vae 24000 --batch-size 4
wait $!
beside encoding encode --part 0/2
encode --part 1/2
wait $!
train decoder tiny_vae_decoder 13000 --batch-size 4 --pretrained-ckpt-path "$runs/vae/model.safetensors"
train generator tiny 7000 --num-gpus 2 --batch-size 4 --pretransform-ckpt-path "$runs/vae/model.safetensors"
"$python" -m diff_v2m.checkpoints export "$runs/generator/model.safetensors" saved_model/tiny/model.safetensors \
    --pretransform-ckpt-path "$runs/decoder/model.safetensors"
"$python" -m experiments.synthetic check
