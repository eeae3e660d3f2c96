#!/bin/sh
# An empty environment with the uv that requirements.lock pins: sh scripts/bootstrap.sh PYTHON VENV
set -eu
python=$1
venv=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" --version 2>&1) || found="nothing that runs"
    echo "error: Snellen needs Python 3.11 or newer; '$python' is $found; name another one: make PYTHON=python3.12 ..." >&2
    exit 1
fi

# A broken or half-made environment is started over; a sound one is kept.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"

pin=$(mktemp)
trap 'rm -f "$pin"' EXIT
awk '/^[^ ]/ { wanted = /^uv==/ } wanted' requirements.lock >"$pin"
"$venv/bin/python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: --requirement "$pin" ||
    echo "uv could not be installed; pip goes on without it" >&2
