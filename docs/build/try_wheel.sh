#!/usr/bin/env bash
# Install a wheel into an empty environment of each Python, and run the demo's first trial and its report from an
# empty folder: try_wheel.sh WHEEL PYTHON...
set -euo pipefail
wheel=$(realpath "$1")
shift
for python in "$@"; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip install --quiet "$wheel"
    mkdir "$folder/empty"
    (
        cd "$folder/empty"
        "$folder/venv/bin/scaling-study" --version
        "$folder/venv/bin/scaling-study" run demo --only 'mini-ViT-XXS-8 clip 100 GFLOP' --quiet
        "$folder/venv/bin/scaling-study" report demo
        test -s results/demo/report/report.html
    )
    echo "$("$python" --version): the wheel's demo has its report"
    rm -rf "$folder"
done
