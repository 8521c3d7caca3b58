#!/usr/bin/env bash
# Makes saved_model/tiny/ from nothing, in runs/tiny: procedural data, autoencoder, its decoder once more with the
# encoder frozen (latents stay what they are), generator. For two cores: the films are rendered while the autoencoder is
# trained on their music, and the generator is trained in two processes. Each step goes on where it was stopped.
#   bash scripts/train_tiny.sh
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
runs="runs/tiny"
clips=700
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
trap 'trap - INT TERM; kill 0' INT TERM  # what runs beside it ends with it

train() {  # NAME MODEL STEPS [flags]: a run that goes on from its last checkpoint
    local name=$1 model=$2 steps=$3
    shift 3
    [ -f "$runs/$name/model.safetensors" ] || "$python" train.py --model-config "configs/model/$model.json" \
        --dataset-config configs/dataset/tiny.json --name "$name" --save-dir "$runs" --recover --precision 32 \
        --accelerator cpu --num-workers 0 --gradient-clip-val 1 --max-epochs -1 --max-steps "$steps" \
        --checkpoint-every 500 --log-every 100 "$@"
}

render() { "$python" -m experiments.synthetic render --output "$runs/train" --count "$clips" "$@"; }
encode() {
    "$python" -m diff_v2m.preprocess --latents --dataset-config configs/dataset/tiny.json --device cpu \
        --model-config configs/model/tiny.json --pretransform-ckpt-path "$runs/vae/model.safetensors" "$@"
}
beside() {  # NAME COMMAND...: in the background, with a log of its own; a failure is told at once and ends it at `wait`
    { "${@:2}" >>"$runs/$1.log" 2>&1 || { echo "$1 failed:" && tail -n 5 "$runs/$1.log" && exit 1; } >&2; } &
}

mkdir -p "$runs"
render --music-only  # half a minute, and all that the autoencoder needs
beside films render
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
