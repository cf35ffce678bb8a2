# filmstill: two commands do all the set-up, `make repro` and `make test`.
SHELL := bash
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.DEFAULT_GOAL := help
LANES := OMP_WAIT_POLICY=passive python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

repro: .venv/ready  ## run the pipeline end to end (the profile in params.yaml), then show the results
	python -m filmstill check
	dvc repro
	python -m filmstill results

test: .venv/ready  ## every test but those of test-slurm
	$(LANES)

test-slurm: .venv/ready  ## the tests on a real SLURM, which they bring up and take down (root; installs it by apt-get)
	python tests/slurm/lab.py install
	$(LANES) tests/slurm

slurm-up: .venv/ready  ## a real SLURM on this machine to play with: two nodes, pretended H100s (root)
	python tests/slurm/lab.py up

slurm-down:  ## stop it, and every job on it
	python tests/slurm/lab.py down

lint: .venv/ready  ## ruff, mypy, snakefmt, snakemake --lint
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check workflow
	snakemake --lint --snakefile workflow/Snakefile --config root=. shards=

deps: .venv/ready  ## rewrite the deps in dvc.yaml and pretrain/dvc.yaml from the import closures
	python tests/helpers/closure.py

readme: .venv/ready  ## rewrite README's table of results from data/evaluate/metrics.json
	python tests/helpers/readme_table.py

pretrain: .venv/ready  ## train the teacher of profile natural, data/released/symbols-natural (an hour or more of one core; resumes)
	dvc unfreeze pretrain/dvc.yaml:teacher
	trap 'dvc freeze pretrain/dvc.yaml:teacher' EXIT; dvc repro pretrain/dvc.yaml

kill-test: .venv/ready  ## kill -9 every stage at random moments, damage every file in .work: the results must not change
	python tests/helpers/kill_test.py

mini: .venv/ready  ## write data/released/wan-mini, a miniature Wan that the profile wan-mini runs on
	PYTHONPATH=src:tests/helpers python tests/helpers/mini_wan.py data/released/wan-mini

bench: .venv/ready  ## what speed costs and gains, as ratios of one run (docs/benchmarks.md)
	python tests/helpers/benchmark.py

bench-gpu: .venv/ready  ## Wan's sizes on a GPU beside their floors (docs/benchmarks.md)
	python tests/helpers/gpu_benchmark.py

clean:  ## remove work folders and caches of tools (artifacts and .venv stay)
	rm -rf .work .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.PHONY: repro test test-slurm slurm-up slurm-down lint deps readme pretrain kill-test mini bench bench-gpu clean help
