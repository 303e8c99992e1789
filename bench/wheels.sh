#!/usr/bin/env bash
# Gather what `python -m bench.gpu` needs beside torch, Triton and numpy: wheels for Python 3.12 on Linux, x86-64.
set -eu
to=${1:?usage: bench/wheels.sh DIR}
here=$(cd "$(dirname "$0")/.." && pwd)
python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$to" --constraint "$here/constraints.txt" \
    --python-version 3.12 --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
    pydantic pydantic-core typing-extensions annotated-types typing-inspection tqdm \
    monai dynamic-network-architectures # others' models; torchvision, timm and einops are taken where they are there
# For its metadata: the code itself is taken from the tree.
python3 -m pip wheel --quiet --no-deps --wheel-dir "$to" "$here"
du -sh "$to"
