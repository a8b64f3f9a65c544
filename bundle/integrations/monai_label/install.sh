#!/usr/bin/env bash
# Makes a virtual environment with MONAI Label and this bundle, for the CPU: install.sh [FOLDER], default .venv_label.
# pip's own resolution of monailabel takes a CUDA build of torchvision and much more that the app does not use.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
venv="${1:-$root/.venv_label}"
test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" "$@"; }
pip torch # first: with the pinned build in place nothing else pulls in another one
pip -e "$root" -r "$here/requirements.txt"
pip --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
if ! "$venv/bin/python" -c "import torchvision" 2>/dev/null; then
    stub="$(mktemp -d)" # a copy, since a build leaves files beside its source
    trap 'rm -rf "$stub"' EXIT
    cp -r "$here/torchvision_stub/." "$stub"
    pip --no-deps "$stub"
fi
"$venv/bin/python" -W ignore -c "import monailabel.main"
echo "MONAI Label is in $venv"
