"""One table per engine: which flag says which decision, in which unit, and what the engine takes without it.

Emission and import are its two readings: `Table.flags` writes, `Table.read` reads.
"""

from planner.emit.tables.llama_cpp import LLAMA_CPP
from planner.emit.tables.lmdeploy import LMDEPLOY
from planner.emit.tables.sglang import SGLANG
from planner.emit.tables.table import Row, Table
from planner.emit.tables.tensorrt_llm import TENSORRT_LLM
from planner.emit.tables.vllm import VLLM

TABLES = {table.engine: table for table in (VLLM, SGLANG, TENSORRT_LLM, LMDEPLOY, LLAMA_CPP)}

__all__ = ["LLAMA_CPP", "LMDEPLOY", "SGLANG", "TABLES", "TENSORRT_LLM", "VLLM", "Row", "Table"]
