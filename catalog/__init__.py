"""Facts: hardware, nodes, models, techniques, rules, engines and prices, each with source and date.

One YAML file per entry; `catalog.load.open_catalog` reads them, `catalog.schema` says what an
entry must hold, `catalog.architecture` turns a ``config.json`` into layers.
"""
