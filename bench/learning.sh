#!/bin/sh
# Everything that docs/learning.md measures: the demo, the longer run on 1,000 composed scenes, and what each loss buys.
# Run again after an interruption, or with more iterations, it goes on where it was.
#
#     bench/learning.sh OUT [ITERATIONS]
set -eu
out=$1 iterations=${2:-1746}
python=${PYTHON:-.venv/bin/python}
lorbms() { "$python" -m lorbms_fast "$@"; }
photographs_alone() { "$@" || [ $? = 2 ]; }  # 2: no annotated objects there, what needs none is printed

lorbms demo --out "$out/demo"

# Other seeds draw other scenes, of the same 148 objects; the photographs of animals are in none of them.
[ -d "$out/scenes" ] || lorbms compose "$out/scenes" --scenes 1000 --no-photos --stl10-train 0 --stl10-test 0 --seed 1
[ -d "$out/others" ] || lorbms compose "$out/others" --scenes 400 --no-photos --stl10-train 1000 --stl10-test 800
if [ ! -d "$out/animals" ]; then
    mkdir -p "$out/animals.new"
    cp "$("$python" -c 'from lorbms_fast.photos.shipped import DATA; print(DATA)')"/scenes/gcompris_animal_*.jpg \
        "$out/animals.new"
    mv "$out/animals.new" "$out/animals"
fi
for store in seen=scenes/coco unseen=others/coco photographs=animals; do
    name=${store%%=*}
    [ -d "$out/$name" ] || lorbms prepare "$out/${store#*=}" --out "$out/$name"
    [ -e "$out/$name/neighbours.parquet" ] || lorbms neighbours "$out/$name"
done

if [ -e "$out/run/run.json" ]; then lorbms train --resume "$out/run" --iterations "$iterations"
else
    lorbms train "$out/seen" --out "$out/run" --iterations "$iterations" --preset demo \
        --model.stem 24 --model.layers 1 1 2 4 8 --model.chunk 192 --loss.adv 0.052 --loss.cls 0.044 \
        --optim.generator-lr 3e-4 --optim.discriminator-lr 2e-4 --optim.classifier-lr 2e-4 \
        --sheet-every 250 --checkpoint-every 250 --keep-checkpoints 40
fi
"$python" -m bench.moments "$out/run" "$out/seen" "$out/unseen" "$out/photographs"
for store in seen unseen photographs; do
    lorbms render "$out/run" --store "$out/$store" --out "$out/run/$store.png"
    lorbms render "$out/run" --store "$out/$store" --film --out "$out/run/$store-film.png"
done
for store in seen unseen; do lorbms evaluate scenes "$out/run" --store "$out/$store" --pairs 400; done
photographs_alone lorbms evaluate scenes "$out/run" --store "$out/photographs" --pairs 400
lorbms evaluate generation "$out/run" --stores "$out/seen" "$out/unseen" "$out/photographs" --features descriptor
set -- --stl10 "$out/others/stl10_binary" --views 1 --probe.epochs 50
lorbms evaluate linear "$out/run" --rows random encoder discriminator "$@"
lorbms evaluate report "$out/run"

echo '[evaluation]
epochs = 100  # of two iterations each' > "$out/ablation.toml"
lorbms evaluate ablation "$out/demo/store" --out "$out/ablation" --preset demo --iterations 700 \
    --config "$out/ablation.toml" --features descriptor "$@"
