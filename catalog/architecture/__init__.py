"""From a Hugging Face ``config.json`` to what the cost model needs to know of a transformer.

`read_config` is the way in; `Architecture` is what comes out.
"""

from catalog.architecture.architecture import Architecture, CacheTerm, Experts, Layer
from catalog.architecture.read import UnknownArchitectureError, read_config

__all__ = ["Architecture", "CacheTerm", "Experts", "Layer", "UnknownArchitectureError", "read_config"]
