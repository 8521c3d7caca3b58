#!/usr/bin/env bash
# The whole test suite, in two processes of one thread each:    bash test.sh
# Anything pytest takes can be added:                           bash test.sh tests/cli/test_shell.py -n0 -s
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$(bash "$root/setup.sh" --with-tests)"
cd "$root"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled MPLBACKEND=Agg TOKENIZERS_PARALLELISM=false
exec "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
