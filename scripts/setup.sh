#!/bin/sh
# The environment of this project: sh scripts/setup.sh PYTHON VENV
# Everything comes from requirements.lock: exact versions, each file held to its sha256, wheels only.
set -eu
python=$1
venv=$2

sh scripts/bootstrap.sh "$python" "$venv"

# uv does in seconds what takes pip minutes (6 GB), but it does not read pip's settings: behind a mirror, pip does it.
# Compiling costs about 25 s once; it saves 15 s in every process where Python may not write its own bytecode.
if "$venv/bin/python" -m uv pip sync --quiet --compile-bytecode --python "$venv/bin/python" \
    --require-hashes --only-binary :all: requirements.lock; then
    echo "installed requirements.lock into $venv"
else
    echo "uv did not get through; pip takes over (minutes)" >&2
    "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r requirements.lock
fi
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
