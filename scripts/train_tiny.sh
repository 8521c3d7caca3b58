#!/usr/bin/env bash
# Makes saved_model/tiny/ from nothing, in runs/tiny: procedural data, autoencoder, generator. Two cores: clips are
# rendered and encoded in two processes, and the last stage of the autoencoder is trained while the generator is. Each
# step goes on where it was stopped.
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

render() { "$python" -m diff_v2m.synthetic render --output "$runs/train" "$@"; }
encode() {
    "$python" -m diff_v2m.preprocess --latents --dataset-config configs/dataset/tiny.json --device cpu \
        --model-config configs/model/tiny.json --pretransform-ckpt-path "$runs/vae/model.safetensors" "$@"
}

render --count $((clips / 2)) &
render --count $((clips / 2)) --first-seed $((clips / 2))
wait $!
render --count $clips  # all are there: writes the JSON that lists them
train vae tiny_vae 24000 --batch-size 4
encode --shard 0/2 &
encode --shard 1/2
wait $!
train decoder tiny_vae_decoder 13000 --batch-size 4 --pretrained-ckpt-path "$runs/vae/model.safetensors" \
    >"$runs/decoder.log" 2>&1 &  # its encoder is frozen: latents stay what they are
train generator tiny 4500 --batch-size 8 --pretransform-ckpt-path "$runs/vae/model.safetensors"
wait $! || { tail -n 5 "$runs/decoder.log" >&2; exit 1; }
"$python" -m diff_v2m.checkpoints export "$runs/generator/model.safetensors" saved_model/tiny/model.safetensors \
    --pretransform-ckpt-path "$runs/decoder/model.safetensors"
"$python" -m diff_v2m.synthetic check
