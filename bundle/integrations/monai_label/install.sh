#!/usr/bin/env bash
# Makes a virtual environment with MONAI Label and this bundle, for the CPU: install.sh [FOLDER], default .venv_label.
# pip's own resolution of monailabel takes a CUDA build of torchvision and much more that the app does not use.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
venv="${1:-$root/.venv_label}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
# the bundle's versions, but for what MONAI Label wants in another one
grep -v '^pydicom==' "$root/constraints.txt" >"$work/constraints.txt"
pip() { "$venv/bin/python" -m pip install -q -c "$work/constraints.txt" "$@"; }
pip torch # first: with the pinned build in place nothing else pulls in another one
pip -e "$root" -r "$here/requirements.txt"
pip --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
if ! "$venv/bin/python" -c "import torchvision" 2>/dev/null; then
    cp -r "$here/torchvision_stub" "$work" # a copy, since a build leaves files beside its source
    pip --no-deps "$work/torchvision_stub"
fi
"$venv/bin/python" -W ignore -c "import monailabel.main"
echo "MONAI Label is in $venv"
