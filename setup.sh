#!/usr/bin/env bash
# Makes the Python environment that infer.sh, train.sh and test.sh run in, once, and prints the path of its python.
# When it is up to date that takes milliseconds. Everything meant for people goes to stderr.
#
#   bash setup.sh                 create, complete or update the environment
#   bash setup.sh --with-studio   with what the studio needs too
#   bash setup.sh --with-tests    with what the tests need, the studio's packages among it
#   bash setup.sh --no-install    install nothing: print its python if it is ready, else any Python 3.11
#
#   DIFF_V2M_VENV     where the environment goes (default: .venv beside this file)
#   DIFF_V2M_PYTHON   a python of your own that has what requirements*.txt list: nothing is created or installed
#   PYTHON            the Python 3.11 to create the environment from (default: python3.11, python3 or python)
set -euo pipefail
root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
caller="$PWD"
cd "$root"

lists=(requirements.txt requirements-sat.txt)
case "${1:-}" in
    --with-studio) lists+=(requirements-studio.txt) ;;
    --with-tests) lists+=(requirements-studio.txt requirements-test.txt) ;;
esac
further=("${lists[@]:2}")

say() { printf '[setup] %s\n' "$@" >&2; }
fail() { say "$@"; exit 1; }

# ---- an environment of the caller's own: check it, change nothing
if [ -n "${DIFF_V2M_PYTHON:-}" ]; then
    python="$(cd "$caller" && command -v "$DIFF_V2M_PYTHON")" ||
        fail "DIFF_V2M_PYTHON=$DIFF_V2M_PYTHON: there is no such program."
    [ "${python#/}" != "$python" ] || python="$caller/$python"
    missing="$("$python" - "${lists[@]}" <<'PY'
import importlib.metadata, re, sys

wanted = [re.match(r"([\w.-]+)==[^#;]*(;?)", line) for path in sys.argv[1:] for line in open(path)]
for name in (m[1] for m in wanted if m and not m[2]):  # a line with a marker is not wanted on every machine
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(name, end=" ")
PY
    )" || fail "DIFF_V2M_PYTHON=$DIFF_V2M_PYTHON does not run as a Python."
    [ -z "$missing" ] || fail "DIFF_V2M_PYTHON=$DIFF_V2M_PYTHON lacks: $missing" "Install them, in $root:" \
        "    $DIFF_V2M_PYTHON -m pip install -c constraints.txt -r requirements.txt" \
        "    $DIFF_V2M_PYTHON -m pip install --no-deps -r requirements-sat.txt" \
        "The studio and the tests also need:" \
        "    $DIFF_V2M_PYTHON -m pip install -c constraints.txt -r requirements-studio.txt -r requirements-test.txt"
    echo "$python"
    exit
fi

# ---- up to date already?
venv="${DIFF_V2M_VENV:-$root/.venv}"
venv="${venv%/}"
[ "${venv#/}" != "$venv" ] || venv="$caller/$venv"
python="$venv/bin/python"
checksum() { cat "$@" constraints.txt | cksum; }
stamp_of() {  # of the lists up to the n-th: without it, an environment does not have them all
    local names=(_ _ "" _studio _tests)
    echo "$venv/diff_v2m_stamp${names[$1]}"
}
record="$(stamp_of ${#lists[@]})"  # written last
wanted="$(checksum "${lists[@]}")"

if_ready() {  # prints the python and ends the script when the environment is finished and current
    if [ -x "$python" ] && [ "$(cat "$record" 2>/dev/null)" = "$wanted" ]; then
        echo "$python"
        exit
    fi
}
if_ready

# ---- a Python 3.11 to start from
is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }
base=""
seen=""
for candidate in ${PYTHON:-python3.11 python3 python}; do
    if is_311 "$candidate"; then
        base="$candidate"
        break
    fi
    seen="$seen $candidate ($("$candidate" --version 2>&1 | grep '^Python ' || echo "not there"))"
done
[ -n "$base" ] || fail "Python 3.11 is needed; tried:$seen." \
    "Install it (python.org, your package manager, conda, pyenv, uv) or name it: PYTHON=/path/to/python3.11 bash ..."

if [ "${1:-}" = --no-install ]; then
    command -v "$base"
    exit
fi

# ---- one set-up at a time (a Slurm array starts many)
mkdir -p "$(dirname "$venv")" 2>/dev/null || true
elsewhere="choose another place with DIFF_V2M_VENV=/path."
{ exec 9>>"$venv.lock"; } 2>/dev/null || fail "Cannot write in $(dirname "$venv"): $elsewhere"
if command -v flock >/dev/null && ! flock -n 9; then
    say "Another set-up of $venv is running; waiting for it."
    flock 9 || say "This file system has no locks: continuing without one."
fi
if_ready

# ---- create it, or complete what is there
fresh=no
on_exit() {
    local status=$?
    [ $status -eq 0 ] && return
    if [ $fresh = yes ]; then
        say "Set-up did not finish: removing the unfinished $venv. The same command starts it again."
        rm -rf "$venv"
    else
        say "Set-up did not finish: $venv is not complete. The same command resumes."
    fi
}

pip() {  # runs pip in the environment; on failure says in one line what to do about it
    local errors
    local clean=(env -u PYTHONPATH -u PYTHONHOME PIP_USER=0 PIP_COMPILE=0 PIP_DISABLE_PIP_VERSION_CHECK=1)
    { errors="$("${clean[@]}" "$python" -m pip "$@" 2>&1 >&3 |
        while IFS= read -r line; do printf '%s\n' "$line" >&3; printf '%s\n' "$line"; done)" && return; } 3>&2
    case "$errors" in
        *"No space left"* | *"Disk quota"*)
            fail "The disk is full: about 7 GB are needed in $venv and up to 4 GB in ${TMPDIR:-/tmp} and pip's cache." \
                "Make room, or choose other places: DIFF_V2M_VENV=/path, TMPDIR=/path, PIP_CACHE_DIR=/path." ;;
        *"Permission denied"* | *"Read-only file system"*)
            fail "pip could not write (see its message above): mend that, or $elsewhere" ;;
        *onnection* | *"timed out"* | *resol* | *SSL* | *roxy* | *"No matching distribution"* | *ResolutionImpossible*)
            fail "Download failed: the package index cannot be reached or lacks a package (see pip's message above)." \
                "Check the network, proxy and index (pip config list), then run the same command again." ;;
        *) fail "pip failed: see its message above, then run the same command again." ;;
    esac
}

if [ -e "$venv" ]; then
    if [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
        fail "$venv is there and is not a virtual environment: $elsewhere"
    elif [ -x "$python" ] && ! is_311 "$python"; then
        fail "$venv is $("$python" --version 2>&1), not 3.11: remove it, or $elsewhere"
    fi
else
    free_kb="$(df -Pk "$(dirname "$venv")" | awk 'END { print $4 }')"
    [ "${free_kb:-99999999}" -gt 8000000 ] ||
        fail "Only $((free_kb / 1000000)) GB free at $(dirname "$venv"), about 8 are needed: make room, or $elsewhere"
    fresh=yes
fi
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -f "$venv"/diff_v2m_stamp*

say "Setting up the Python environment in $venv: about 3 GB to download, some minutes, only once."
say "1/4 virtual environment"
if ! "$python" -m pip --version >/dev/null 2>&1; then
    "$base" -m venv "$venv" >&2 ||  # Debian takes ensurepip out of its Python; its pip, if there, can stand in
        { "$base" -m venv --without-pip "$venv" && "$base" -m pip --python "$python" install pip; } >&2 ||
        fail "$base could not create a virtual environment (see its message above). Use a Python 3.11 that has its" \
            "standard modules venv and ensurepip: PYTHON=/path/to/python3.11 bash ..."
fi
say "2/4 packages: pip install -c constraints.txt -r requirements.txt"
pip install -c constraints.txt -r requirements.txt
for list in ${further[@]+"${further[@]}"}; do pip install -c constraints.txt -r "$list"; done
say "3/4 packages without their pinned dependencies: pip install --no-deps -r requirements-sat.txt"
pip install --no-deps -r requirements-sat.txt
say "4/4 bytecode of what the programs import"
env -u PYTHONDONTWRITEBYTECODE "$python" -c "
import diff_v2m.generation.runner, diff_v2m.features.semantic, diff_v2m.training.diffusion_module, diff_v2m.training.trainer
import matplotlib.backends.backend_agg, pyloudnorm, scenedetect, scipy.signal
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
" >/dev/null 2>&1 || say "It could not be compiled; the first run does that."
for count in $(seq 2 ${#lists[@]}); do  # with more packages, it is complete for less too
    checksum "${lists[@]:0:count}" >"$(stamp_of "$count")"
done
say "Done."
echo "$python"
