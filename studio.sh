#!/usr/bin/env bash
# A page on which music for videos is made:    bash studio.sh [flags]    (--help lists the flags)
# The first call installs what the page needs besides. Paths are relative to the folder it is called from.
set -euo pipefail
root="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
python="$(bash "$root/setup.sh" --with-studio)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m diff_v2m studio "$@"
