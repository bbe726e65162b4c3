# One door for everything; each target is one line. .ci/run calls the same tools.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

.PHONY: run test check openapi bench demo warm conformance torture clean-cache

run: ; $(PYTHON) -m app.cli serve
demo: ; $(PYTHON) -m app.cli demo
test: ; $(PYTHON) -m pytest -q
check: ; PYTHON=$(PYTHON) .ci/check
openapi: ; $(PYTHON) -m app.openapi
bench: ; $(PYTHON) -m benchmarks
warm: ; $(PYTHON) -m core.warm
conformance: ; $(PYTHON) -m pytest -q tests/conformance
torture: ; for victim in "worker --workers 2" "service --workers 1" "service --workers 2"; do for database in sqlite postgresql; do $(PYTHON) -m tests.pool.torture --victim $$victim --database $$database || exit 1; done; done
clean-cache: ; rm -rf "$$($(PYTHON) -c "from core.jit import cache_dir; print(cache_dir().parent)")"; find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +
