# The commands of the project; `make help` lists them. The work is done by scripts/ and by the modelfleet command.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV_PYTHON := .venv/bin/python
# make up ENGINE=process: the same without Docker. Unset: Docker, and process where no engine can be had.
ENGINE ?=
# make test ARGS="tests/unit -k reconcile"
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make .venv with the locked dependencies and the modelfleet command
	@bash scripts/setup.sh
	@bash scripts/console.sh

.PHONY: engine
engine: ## Install and start a Docker Engine if none answers
	@bash scripts/engine.sh start

.PHONY: engine-down
engine-down: ## Stop the Docker Engine, if `make engine` started it by hand
	@bash scripts/engine.sh stop

.PHONY: up
up: setup ## Start everything with the example models, and predict with each (ENGINE=docker|process)
	@bash scripts/up.sh "$(ENGINE)"

.PHONY: down
down: ## End everything that `make up` started
	@if [ -x .venv/bin/modelfleet ]; then .venv/bin/modelfleet down; else echo "down: nothing was set up here"; fi

.PHONY: test
test: setup ## Run the whole test suite (ARGS="tests/unit -k name" for a part of it)
	@bash scripts/test.sh $(ARGS)

.PHONY: conformance
conformance: setup ## Judge the gateway as an HTTP proxy: 501 cases of framing, smuggling, limits
	@$(VENV_PYTHON) -m pytest tests/conformance $(ARGS)

.PHONY: fuzz
fuzz: setup ## Fuzz the gateway for ten minutes (ARGS="--seconds 60 --target client --keep")
	@bash scripts/fuzz.sh $(ARGS)

.PHONY: bench-reconcile
bench-reconcile: setup ## Time one decision over 1,000 models and 5,000 replicas
	@$(VENV_PYTHON) -m benchmarks.reconcile $(ARGS)

.PHONY: bench-policy
bench-policy: setup ## Judge the autoscaler on recorded traffic beside Knative's, Ray's and HPA's rules, five minutes
	@$(VENV_PYTHON) -m benchmarks.autoscale.referee $(ARGS)

.PHONY: bench-autoscale
bench-autoscale: setup engine ## Measure the autoscaler on real replicas beside a simulation of the same arrivals, 25 minutes
	@$(VENV_PYTHON) -m benchmarks.autoscale.live $(ARGS)

.PHONY: bench-wake
bench-wake: setup engine ## Measure what the first requests of a sleeping model wait, on both engines, fifteen minutes
	@$(VENV_PYTHON) -m benchmarks.wake $(ARGS)

.PHONY: bench-scrape
bench-scrape: setup ## Measure what a Prometheus costs that reads 200 models and 50 replicas, three minutes
	@$(VENV_PYTHON) -m benchmarks.scrape $(ARGS)

.PHONY: bench-console
bench-console: setup ## Measure the web console: what it costs the control plane, first paint, frames while it scrolls
	@$(VENV_PYTHON) -m benchmarks.console.server
	@$(VENV_PYTHON) -m benchmarks.console.browser $(ARGS)

.PHONY: bench-fleet
bench-fleet: setup engine ## Measure a cluster: start-up, rest, one change, predictions across disturbances
	@$(VENV_PYTHON) -m benchmarks.fleet $(ARGS)

.PHONY: bench-gateway
bench-gateway: setup bench-tools ## Measure the gateway beside HAProxy, nginx and Envoy, ten minutes (ARGS=--quick: three)
	@$(VENV_PYTHON) -m benchmarks.gateway.compare $(ARGS)

.PHONY: bench-server
bench-server: setup bench-tools engine ## Measure the model server beside eleven others, twenty minutes
	@$(VENV_PYTHON) -m benchmarks.server.compare $(ARGS)

.PHONY: bench-tensors
bench-tensors: setup bench-tools engine ## Measure pictures as binary tensors and as JSON, beside MLServer
	@$(VENV_PYTHON) -m benchmarks.server.tensors $(ARGS)

.PHONY: bench-onnx
bench-onnx: setup ## Measure an ONNX model served beside a bare loop over onnxruntime
	@$(VENV_PYTHON) -m benchmarks.server.onnx $(ARGS)

.PHONY: bench-batching
bench-batching: setup ## Measure the model server with batching off and on, at 1 to 128 connections
	@$(VENV_PYTHON) -m benchmarks.server.batching $(ARGS)

.PHONY: bench-cold-start
bench-cold-start: setup engine ## Measure a scikit-learn replica from its creation to its readiness, and its memory
	@$(VENV_PYTHON) -m benchmarks.server.cold_start $(ARGS)

.PHONY: bench-queue
bench-queue: setup ## Measure the gateway's queue beside an ideal one
	@$(VENV_PYTHON) -m benchmarks.gateway.queueing $(ARGS)

.PHONY: bench-reliability
bench-reliability: setup ## Count what clients see while replicas die and tables change, four minutes
	@$(VENV_PYTHON) -m benchmarks.gateway.reliability $(ARGS)

.PHONY: bench-slow
bench-slow: setup bench-tools ## Measure other clients' latency beside 1,000 slow connections
	@$(VENV_PYTHON) -m benchmarks.gateway.slow_clients $(ARGS)

.PHONY: bench-tools
bench-tools: setup
	@bash scripts/bench_tools.sh

.PHONY: lint
lint: setup ## Check style, types, layers, shell scripts and the console's modules
	@bash scripts/lint.sh

.PHONY: format
format: setup ## Format the code and mend what can be mended by itself
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .
	@p=orchestrator/console/node_modules/.bin/prettier; [ ! -x $$p ] || $$p --log-level warn --write orchestrator/console/static/js

.PHONY: dashboards
dashboards: setup ## Write configs/grafana/dashboards/*.json anew from scripts/dashboards/
	@$(VENV_PYTHON) -m scripts.dashboards

.PHONY: lock
lock: setup ## Pin the dependencies anew (UPGRADE=1 takes newer releases)
	@sh scripts/lock.sh

.PHONY: wheel
wheel: setup ## Build dist/modelfleet-*.whl
	@bash scripts/console.sh --required
	@rm -rf dist
	@$(VENV_PYTHON) -m hatchling build -t wheel

.PHONY: clean
clean: ## Remove caches and build results (not .venv, not models, not what runs)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache test-artifacts
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
