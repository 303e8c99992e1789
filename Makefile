# The two commands of the README (`make demo`, `make test`) and little else.
VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.installed

# ONNX Runtime for the page of `export --web`, as it was tested.
WEB    := onnxruntime-web@1.30.0

# Tests share the cores; a file's stay together, with what they set up.
SHARED := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all test-gpu test-browser test-cluster test-others test-torch bench static fuzz audit lock docs lint format clean

demo: $(READY)
	$(VENV)/bin/lorbms-fast demo --out demo

test: $(READY)
	$(PYTHON) -m pytest $(SHARED)

test-all: $(READY)
	$(PYTHON) -m pytest $(SHARED) -m "slow or not slow"

# On a GPU, which all other tests leave alone.
test-gpu: $(READY)
	$(PYTHON) -m pytest -m gpu -rs

# Real clicks in headless Chromium, and a page that computes in it: what the other two skip without a browser.
test-browser: $(READY)
	@command -v chromium chromedriver npm > /dev/null || { echo "apt-get install chromium chromium-driver npm"; exit 1; }
	npm install --no-save --no-package-lock $(WEB)
	$(PYTHON) -m pytest tests/lorbms_fast/app tests/lorbms_fast/export -m "slow or not slow" -rs

# Preparing and neighbours on a Ray cluster of three nodes of this machine, ten of which are killed, and a server that
# speaks S3, in an environment of its own: it wants older packages than ours.
test-cluster: $(READY) .moto/.installed
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	$(PYTHON) -m pytest tests/lorbms_fast/cluster tests/dataloader/test_places.py -m "slow or not slow" -rs

.moto/.installed:
	python3 -m venv .moto
	.moto/bin/pip install --quiet 'moto[s3]>=5.1' flask flask-cors
	touch $@

# Models that nobody here wrote, before and after `accelerate`; their packages bring others (timm, einops) with them.
test-others: $(READY)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[others]'
	$(PYTHON) -m pytest $(SHARED) tests/others tests/kernels/densenet_block -rs

# As `make test`, with another torch and the Triton that it brings, in an environment of its own: TORCH=2.14.1, say.
# What another torch warns of is no error.
TORCH := 2.11.0
test-torch: .torch/$(TORCH)/.installed
	.torch/$(TORCH)/bin/python -m pytest $(SHARED) -W default::UserWarning -W default::FutureWarning

.torch/%/.installed: constraints.txt pyproject.toml
	python3 -m venv .torch/$*
	grep -Ev '^(torch|torchvision|triton)==' constraints.txt > .torch/$*/constraints.txt
	.torch/$*/bin/pip install --quiet --constraint .torch/$*/constraints.txt torch==$* --editable '.[dev]'
	touch $@

# Every layer, network and iteration on the CPU into bench/RESULTS.md; `make bench DEVICE=cuda`: an iteration on the GPU.
DEVICE := cpu
bench: $(READY)
	$(if $(filter cpu,$(DEVICE)),$(PYTHON) -m bench,$(VENV)/bin/lorbms-fast bench step --device $(DEVICE) --compiled-reference)

# All kernels of an iteration, in all arithmetics, compiled with each supported Triton, no GPU needed, into
# bench/STATIC.md. It may be stopped and started again: bench/.static keeps what was compiled.
static: $(READY)
	$(PYTHON) -m bench.static --triton

# Needs minutes: other damaged files for every reader than `make test` takes, and more of them.
EXAMPLES := 2000
fuzz: $(READY)
	FUZZ_EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest $(SHARED) tests/fuzz/test_readers.py

# Known vulnerabilities of what is pinned; says NOT CHECKED where the service that knows them cannot be reached.
audit: .audit/.installed
	TOOLS=.audit tools/audit.sh

# Renew constraints-hashed.txt after a change of constraints.txt.
lock: .audit/.installed
	.audit/bin/python tools/lock.py constraints.txt constraints-hashed.txt

.audit/.installed: tools/requirements.txt
	python3 -m venv .audit
	.audit/bin/pip install --quiet --requirement tools/requirements.txt
	touch $@

# site/index.html: the pages of docs/ and one for every module; those of the modules that need Ray are left out.
docs: $(READY)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	rm -rf build/docs && mkdir -p build/docs
	cp --parents *.md docs/* bench/*.md bench/*.png LICENSE examples/*.py build/docs
	$(VENV)/bin/mkdocs build --quiet --strict
	$(PYTHON) -W ignore -m pdoc --docformat google --output-directory site/api lorbms_fast '!lorbms_fast.search.tuner' '!lorbms_fast.cluster.(tasks|prepare|neighbours)'

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy lorbms_fast bench tools

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .audit .moto .torch build dist *.egg-info demo site

$(READY): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
