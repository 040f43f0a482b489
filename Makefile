.PHONY: check test schemas

check: ## everything that CI does, on a clean checkout of HEAD
	.ci/run

test: ## the default tests, in the current environment
	pytest

schemas: ## the editor schemas of catalog/schema/, after a change of catalog/schema.py
	for kind in hardware nodes models techniques rules engines prices measurements; do \
	  plan catalog schema $$kind > catalog/schema/$$kind.json || exit; \
	done
