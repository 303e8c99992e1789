#!/bin/sh
# The longer run of docs/learning.md: the demo's networks go on with 35 photographs of animals, 11 others are kept for
# testing. Run again with more iterations, or after an interruption, it goes on where it was.
#
#     bench/learning.sh OUT [ITERATIONS]
set -eu
out=$1 iterations=${2:-2400}
python=${PYTHON:-.venv/bin/python}
lorbms() { "$python" -m lorbms_fast "$@"; }
photos=$("$python" -c 'from lorbms_fast.photos.shipped import DATA; print(DATA / "scenes")')

[ -d "$out/demo/run/evaluation" ] || lorbms demo --out "$out/demo"

if [ ! -d "$out/photos" ]; then  # every third photograph that the demo does not have is kept for testing
    mkdir -p "$out/photos.new/seen" "$out/photos.new/unseen"
    number=0
    for photo in "$photos"/gcompris_animal_*.jpg; do
        name=${photo##*_animal_}
        if [ -e "$out/demo/data/photos/$name" ]; then part=seen
        else number=$((number + 1)); [ $((number % 3)) = 0 ] && part=unseen || part=seen; fi
        cp "$photo" "$out/photos.new/$part/$name"
    done
    mv "$out/photos.new" "$out/photos"
fi
for part in seen unseen; do
    [ -d "$out/$part" ] || lorbms prepare "$out/photos/$part" --out "$out/$part"
    [ -e "$out/$part/neighbours.parquet" ] || lorbms neighbours "$out/$part"
done
[ -d "$out/composed" ] || lorbms compose "$out/composed" --scenes 120 --no-photos --stl10-train 500 --stl10-test 500
[ -d "$out/composed-store" ] || lorbms prepare "$out/composed/coco" --out "$out/composed-store"

if [ -e "$out/run/run.json" ]; then lorbms train --resume "$out/run" --iterations "$iterations"
else lorbms train "$out/seen" --resume "$out/demo/run" --out "$out/run" --other-images --iterations "$iterations"; fi

lorbms render "$out/run"
for part in seen unseen; do
    lorbms evaluate scenes "$out/run" --store "$out/$part" --pairs 400 || [ $? = 2 ]  # 2: no annotated objects there
done
lorbms evaluate scenes "$out/run" --store "$out/composed-store" --pairs 400
lorbms evaluate generation "$out/run" --stores "$out/seen" "$out/unseen" --features descriptor
lorbms evaluate linear "$out/run" --stl10 "$out/composed/stl10_binary" --rows random encoder discriminator \
    --views 1 --probe.epochs 50
lorbms evaluate report "$out/run"
