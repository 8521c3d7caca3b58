#!/usr/bin/env bash
# Checks and measures a GPU in one call and writes results/gpu.md and gpu.json: every precision against float32 on the
# CPU, the released size with random weights, a clip, and training steps. Planned for eight minutes of an H100; not yet
# run on a GPU. It needs no weights and, where torch is installed, no network.
#   bash scripts/gpu_check.sh                                      on the first CUDA device
#   bash scripts/gpu_check.sh --size toy --device cpu              try the script without a GPU
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(bash "$root/setup.sh")"
cd "$root"
exec "$python" -m benchmarks.gpu "$@"
