#!/usr/bin/env bash
# Makes saved_model/tiny/ from nothing, in runs/tiny: procedural data, autoencoder, generator. One thread. Rendering and
# training go on where they were stopped; encoding the latents starts over.
#   bash scripts/train_tiny.sh
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
runs="runs/tiny"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

train() {  # NAME MODEL DATASET STEPS [flags]: a run that goes on from its last checkpoint
    local name=$1 model=$2 dataset=$3 steps=$4
    shift 4
    [ -f "$runs/$name/model.safetensors" ] || "$python" train.py --model-config "configs/model/$model.json" \
        --dataset-config "configs/dataset/$dataset.json" --name "$name" --save-dir "$runs" --recover \
        --accelerator cpu --num-workers 0 --gradient-clip-val 1 --max-epochs -1 --max-steps "$steps" \
        --checkpoint-every 500 --log-every 100 "$@"
}

"$python" -m diff_v2m.synthetic render --output "$runs/train" --count 700
train vae tiny_vae tiny 24000 --batch-size 4 --precision 32
train decoder tiny_vae_decoder tiny 13000 --batch-size 4 --precision 32 \
    --pretrained-ckpt-path "$runs/vae/model.safetensors"
"$python" -m diff_v2m.latents --model-config configs/model/tiny.json --dataset-config configs/dataset/tiny.json \
    --pretransform-ckpt-path "$runs/decoder/model.safetensors"
train generator tiny tiny 4500 --batch-size 8 --precision 32 \
    --pretransform-ckpt-path "$runs/decoder/model.safetensors"
mkdir -p saved_model/tiny
cp "$runs/generator/model.safetensors" saved_model/tiny/model.safetensors
"$python" -m diff_v2m.synthetic check
