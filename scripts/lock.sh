#!/bin/sh
# Re-compile requirements.lock from pyproject.toml: sh scripts/lock.sh PYTHON VENV [--upgrade]
# One file for every platform and Python: names, versions, markers and hashes. It names no index, so that any mirror will do.
set -eu
python=$1
venv=$2
shift 2

sh scripts/bootstrap.sh "$python" "$venv"
"$venv/bin/python" -m uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
    --generate-hashes --no-emit-index-url --no-header --no-annotate "$@" \
    --extra dev pyproject.toml --output-file requirements.lock
