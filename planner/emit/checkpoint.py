"""The checkpoint that is served, and how to make it where the plan quantises the weights.

Quantised weights need a checkpoint of their own. The operator names an existing one, or runs the
script that is written beside the plan, which makes it from the model's own weights.
"""

from __future__ import annotations

from planner.emit.deployment import Deployment

MODELS = "{models}"
"""Stands for the directory of local checkpoints; platforms replace it."""
_QUANTIZE, _GPTQ, _AWQ = (
    ("QuantizationModifier", "llmcompressor.modifiers.quantization"),
    ("GPTQModifier", "llmcompressor.modifiers.gptq"),
    ("AWQModifier", "llmcompressor.modifiers.transform.awq"),
)
RECIPES = {
    "w_awq4": ((_AWQ, _QUANTIZE), "W4A16"),
    "w_gptq4": ((_GPTQ,), "W4A16"),
    "w_gptq8": ((_GPTQ,), "W8A16"),
    "w_int8_w8a8": ((_GPTQ,), "W8A8"),
}
"""Catalog point -> llm-compressor's modifiers (0.14), of which the last quantises, and its preset scheme."""
_KEPT = ("lm_head",)
_KEPT_OF_EXPERTS = ("re:.*gate$", "re:.*router$")
"""What chooses experts stays as it is; engines don't load it quantised."""
_KEPT_OF_IMAGES = ("re:.*vision.*", "re:.*visual.*", "re:.*multi_modal_projector.*")
MODELOPT = {"w_fp8": "FP8_DEFAULT_CFG", "w_awq4": "INT4_AWQ_CFG"}
"""Catalog point -> ModelOpt's preset."""
SCRIPT = "make_checkpoint.py"
COMPRESSOR = "llmcompressor==0.14.0.1"


def makes_checkpoint(deployment: Deployment) -> bool:
    """Tell whether a quantised checkpoint has to be made before serving: none was named, and none is published."""
    found, known = deployment.weights, deployment.weight_format
    at_load = known is not None and known.made_at_load
    return found is not None and not at_load and deployment.checkpoint is None and deployment.ready is None


def served_checkpoint(deployment: Deployment) -> str:
    """Return what the engine loads: what was named, else what is published, else what is made, or the model itself."""
    if makes_checkpoint(deployment):
        return f"{MODELS}/{deployment.slug}-{deployment.decision.weights}"
    ready = None if deployment.ready is None else deployment.ready.hub_id
    return deployment.checkpoint or ready or deployment.model_source


def weights_notes(deployment: Deployment) -> tuple[str, ...]:
    """What an operator should know of the weights that are loaded: where they come from, and what they bring along."""
    ready = deployment.ready
    if makes_checkpoint(deployment):
        return (
            f"nobody is known to publish {deployment.decision.weights} weights of {deployment.model_source} that "
            f"{deployment.engine.id} loads here: {SCRIPT} makes them once, in GPU time that isn't priced; name a "
            "checkpoint of yours with --checkpoint",
        )
    if ready is None or deployment.checkpoint not in (None, ready.hub_id):
        return ()
    known = " ".join(part for part in (ready.format.quant_method, ready.checkpoint.algorithm) if part)
    how = "read in its config" if ready.checkpoint.provenance == "found" else "as its publisher names it"
    notes = [f"loads {ready.hub_id}: {ready.checkpoint.base} in {deployment.decision.weights} ({known}, {how})"]
    if ready.format.weight_only:
        notes.append(f"on {deployment.hardware.name} it saves memory, and multiplies in bf16 as the plan counts")
    if ready.checkpoint.kv == "fp8":
        notes.append("it asks for KV in fp8 by itself; the command says the plan's KV type, which holds")
    return tuple(notes)


def checkpoint_script(deployment: Deployment) -> str:
    """Return a Python program that quantises the model with llm-compressor; its argument is the directory to write."""
    if deployment.weights is None:
        raise ValueError("bf16 weights need no checkpoint of their own")
    modifiers, scheme = RECIPES[deployment.weights.point.id]
    kept = list(_KEPT)
    if any(layer.experts for layer in deployment.architecture.layers):
        kept += _KEPT_OF_EXPERTS
    sees = "vision_config" in deployment.config
    if sees:
        kept += _KEPT_OF_IMAGES
    loader, reader = ("AutoModelForImageTextToText", "AutoProcessor") if sees else ("AutoModelForCausalLM", "")
    imports = "\n".join(sorted(f"from {module} import {name}" for name, module in modifiers))
    names = ", ".join(sorted({loader, "AutoTokenizer", *([reader] if reader else [])}))
    before = "".join(f"{name}(), " for name, _ in modifiers[:-1])
    ignored = ", ".join(f'"{pattern}"' for pattern in kept)
    also = f"\n{reader}.from_pretrained(MODEL).save_pretrained(sys.argv[1])" if reader else ""
    return f'''"""Make the quantised checkpoint of the plan. Needs: pip install {COMPRESSOR}, and a GPU.

    python {SCRIPT} DIRECTORY
"""

import sys

from llmcompressor import oneshot
{imports}
from transformers import {names}

MODEL = {deployment.model_source!a}
IGNORED = [{ignored}]

model = {loader}.from_pretrained(MODEL, dtype="auto", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained(MODEL)
oneshot(
    model=model,
    tokenizer=tokenizer,
    dataset="open_platypus",
    recipe=[{before}{modifiers[-1][0]}(targets=["Linear"], scheme="{scheme}", ignore=IGNORED)],
    max_seq_length=2048,
    num_calibration_samples=512,
)
model.save_pretrained(sys.argv[1], save_compressed=True)
tokenizer.save_pretrained(sys.argv[1]){also}
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
