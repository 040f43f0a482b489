"""The checkpoint that is served, and how to make it where the plan quantises the weights.

Quantised weights need a checkpoint of their own. The operator names an existing one, or runs the
script that is written beside the plan, which makes it from the model's own weights.
"""

from __future__ import annotations

from collections.abc import Collection

from planner.emit.deployment import Deployment

MODELS = "{models}"
"""Stands for the directory of local checkpoints; platforms replace it."""
SCHEMES = {
    "w_awq4": ("AWQModifier", "llmcompressor.modifiers.awq", "W4A16"),
    "w_gptq4": ("GPTQModifier", "llmcompressor.modifiers.quantization", "W4A16"),
    "w_gptq8": ("GPTQModifier", "llmcompressor.modifiers.quantization", "W8A16"),
    "w_int8_w8a8": ("GPTQModifier", "llmcompressor.modifiers.quantization", "W8A8"),
}
"""Catalog point -> llm-compressor's modifier, its module and its preset scheme."""
MODELOPT = {"w_fp8": "FP8_DEFAULT_CFG", "w_awq4": "INT4_AWQ_CFG"}
"""Catalog point -> ModelOpt's preset."""
SCRIPT = "make_checkpoint.py"
COMPRESSOR = "llmcompressor==0.14.0.1"


def makes_checkpoint(deployment: Deployment, made_at_load: Collection[str]) -> bool:
    """Tell whether a quantised checkpoint has to be made before serving."""
    weights = deployment.weights
    return weights is not None and weights.point.id not in made_at_load and deployment.checkpoint is None


def served_checkpoint(deployment: Deployment, made_at_load: Collection[str]) -> str:
    """Return what the engine loads: the checkpoint that was named, the one to be made, or the model itself."""
    if makes_checkpoint(deployment, made_at_load):
        return f"{MODELS}/{deployment.slug}-{deployment.decision.weights}"
    return deployment.checkpoint or deployment.model_source


def checkpoint_script(deployment: Deployment) -> str:
    """Return a Python program that quantises the model with llm-compressor; its argument is the directory to write."""
    if deployment.weights is None:
        raise ValueError("bf16 weights need no checkpoint of their own")
    modifier, module, scheme = SCHEMES[deployment.weights.point.id]
    return f'''"""Make the quantised checkpoint of the plan. Needs: pip install {COMPRESSOR}, and a GPU.

    python {SCRIPT} DIRECTORY
"""

import sys

from llmcompressor import oneshot
from {module} import {modifier}
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = {deployment.model_source!a}

model = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained(MODEL)
oneshot(
    model=model,
    tokenizer=tokenizer,
    dataset="open_platypus",
    recipe=[{modifier}(targets=["Linear"], scheme="{scheme}", ignore=["lm_head"])],
    max_seq_length=2048,
    num_calibration_samples=512,
)
model.save_pretrained(sys.argv[1], save_compressed=True)
tokenizer.save_pretrained(sys.argv[1])
'''


def modelopt_script(deployment: Deployment) -> str:
    """Return a Python program that quantises the model with ModelOpt, which TensorRT-LLM brings along."""
    if deployment.weights is None:
        raise ValueError("bf16 weights need no checkpoint of their own")
    config = MODELOPT[deployment.weights.point.id]
    return f'''"""Make the quantised checkpoint of the plan with ModelOpt, which TensorRT-LLM's image has. Needs a GPU.

    python {SCRIPT} DIRECTORY
"""

import sys

import modelopt.torch.quantization as mtq
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.utils.dataset_utils import create_forward_loop
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = {deployment.model_source!a}

model = AutoModelForCausalLM.from_pretrained(MODEL, torch_dtype="auto", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained(MODEL)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
calibrate = create_forward_loop(
    dataset_name="cnn_dailymail", tokenizer=tokenizer, num_samples=512, max_sample_length=2048, device=model.device
)
mtq.quantize(model, mtq.{config}, calibrate)
export_hf_checkpoint(model, export_dir=sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
'''
