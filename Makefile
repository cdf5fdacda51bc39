.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

help: ## show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): requirements.lock scripts/environment.sh
	@sh scripts/environment.sh $(VENV)
	@touch $(STAMP)

setup: $(STAMP) ## build the environment and train a first model if there is none
	@$(PY) -m bot train --if-missing

run: setup ## set up and serve on http://127.0.0.1:5005
	@$(PY) webhook.py

test: $(STAMP) ## set up and run every check and test
	@$(PY) -m bot train --if-missing & training=$$!; \
	sh scripts/system-packages.sh && $(PY) -m ruff check . && $(PY) -m mypy; checked=$$?; \
	wait $$training && exit $$checked
	@$(PY) -m pytest

lint: $(STAMP) ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m mypy

format: $(STAMP) ## sort imports and mend what ruff can mend
	@$(PY) -m ruff check --fix .

soak: setup ## kill the server again and again; nothing may be lost or filed twice
	@$(PY) -m tests.soak --full

promote-soak: setup ## promote and roll back while residents talk to two servers: no failed turn, all follow within 10 s
	@$(PY) -m tests.promote_soak

studio-loop: setup ## a correction on the desk is reviewed, trained, promoted and serves, in a browser (6 minutes)
	@sh scripts/system-packages.sh
	@$(PY) -m pytest -n 0 -m loop

wechat-sim: setup ## play a resident on a simulated WeChat, in the browser or in the terminal (SIM="--terminal")
	@$(PY) -m tests.wechat_sim $(SIM)

wechat-soak: setup ## 2,000 messages over a simulated WeChat while the service is killed; each answered once, in order
	@$(PY) -m tests.wechat_soak

bench-chat: setup ## conversations per second beside the classic Rasa stack, same model and actions
	@$(PY) -m tests.bench_chat

bench-search: setup ## find tickets among 100,000 on the desk (10 minutes, most of it filing them)
	@$(PY) -m tests.bench_search $(BENCH)

bench-desk: setup ## 50 calls at once on the desk: how soon a turn is in the form
	@$(PY) -m tests.bench_desk

bench-wechat: setup ## how fast repeated WeChat callbacks are acknowledged while turns are slow, 200 requests a second
	@$(PY) -m tests.wechat_retries

bench-nlu: setup ## understanding beside its peers (25 minutes; BENCH="--quick", "--diet", "--data DIR": docs/benchmarks.md)
	@sh scripts/bench-environment.sh $(VENV)-bench $(VENV)
	@$(PY) -m tests.bench_nlu $(BENCH)

lock: $(STAMP) ## resolve requirements.in anew
	@$(VENV)/bin/uv pip compile -q --no-header --no-annotate requirements.in -o requirements.lock

clean: ## remove environment, models and data of this checkout
	rm -rf $(VENV) $(VENV)-bench models var .pytest_cache .mypy_cache .ruff_cache

.PHONY: help setup run test lint format soak promote-soak studio-loop wechat-sim wechat-soak bench-chat bench-desk bench-search bench-wechat bench-nlu lock clean
