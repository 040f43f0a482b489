"""One module per engine: a deployment becomes launches."""
