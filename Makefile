.PHONY: check test schemas fits

check: ## everything that CI does, on a clean checkout of HEAD
	.ci/run

test: ## the default tests, in the current environment
	pytest -n 2

schemas: ## the editor schemas of catalog/schema/, after a change of catalog/schema/*.py
	for kind in hardware nodes models checkpoints techniques rules engines engine_rules prices measurements; do \
	  plan catalog schema $$kind > catalog/schema/$$kind.json || exit; \
	done

fits: ## every measurement of the catalog, fitted anew; needs pip install '.[fit]' aiconfigurator-core==0.12.0
	python -m planner.fit.operations "$$(python -c 'import aiconfigurator_core as a; print(*a.__path__)')/systems/data" catalog/measurements
	python -m planner.fit.runtime catalog/measurements/points.csv catalog/measurements
