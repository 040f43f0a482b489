"""Architectures that no package tells: llama.cpp's names for them, and TensorRT-LLM's published list."""

from __future__ import annotations

import zipfile
from typing import Any

from scripts.engine_flags.reading import Wheel

CONVERTED_FROM = (
    "https://github.com/ggml-org/llama.cpp conversion/__init__.py@00bdaa105cb03380daf899b4fc9f026555745269, "
    "conversion/minimax.py@051139f511300aaf6159294433fab91c73ef7455, "
    "conversion/kimi_k3.py@3f99a416f263b468b00991c91fdc42d87377f2d2 and conversion/deepseek.py"
)
CONVERTED: dict[str, str] = {
    "llama": "LlamaForCausalLM MistralForCausalLM MixtralForCausalLM LLaMAForCausalLM IQuestCoderForCausalLM",
    "llama4": "Llama4ForCausalLM Llama4ForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration Ministral3ForCausalLM",
    "deci": "DeciLMForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2moe": "Qwen2MoeForCausalLM",
    "qwen2vl": "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "qwen3next": "Qwen3NextForCausalLM",
    "qwen3vl": "Qwen3VLForConditionalGeneration",
    "qwen3vlmoe": "Qwen3VLMoeForConditionalGeneration",
    "qwen35": "Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration",
    "qwen35moe": "Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM Gemma3ForConditionalGeneration",
    "gemma3n": "Gemma3nForCausalLM Gemma3nForConditionalGeneration",
    "gemma4": "Gemma4ForCausalLM Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration",
    "phi2": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "phimoe": "PhiMoEForCausalLM",
    "command-r": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "cohere2moe": "Cohere2MoeForCausalLM",
    "dbrx": "DbrxForCausalLM",
    "deepseek": "DeepseekForCausalLM",
    "deepseek2": "DeepseekV2ForCausalLM DeepseekV3ForCausalLM KimiVLForConditionalGeneration "
    "KimiK25ForConditionalGeneration",
    "deepseek32": "DeepseekV32ForCausalLM",
    "deepseek4": "DeepseekV4ForCausalLM",
    "chatglm": "ChatGLMModel ChatGLMForConditionalGeneration GlmForCausalLM",
    "glm4": "Glm4ForCausalLM Glm4vForConditionalGeneration",
    "glm4moe": "Glm4MoeForCausalLM Glm4vMoeForConditionalGeneration",
    "glm-dsa": "GlmMoeDsaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gptneox": "GPTNeoXForCausalLM",
    "gpt-oss": "GptOssForCausalLM",
    "bloom": "BloomForCausalLM",
    "falcon": "FalconForCausalLM RWForCausalLM",
    "falcon-h1": "FalconH1ForCausalLM",
    "starcoder": "GPTBigCodeForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "stablelm": "StableLmForCausalLM StableLMEpochForCausalLM",
    "mpt": "MPTForCausalLM",
    "baichuan": "BaichuanForCausalLM BaiChuanForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "grok": "Grok1ForCausalLM GrokForCausalLM",
    "granite": "GraniteForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM GraniteMoeSharedForCausalLM",
    "granitehybrid": "GraniteMoeHybridForCausalLM BambaForCausalLM",
    "jamba": "JambaForCausalLM",
    "mamba": "MambaForCausalLM MambaLMHeadModel FalconMambaForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
    "lfm2": "Lfm2ForCausalLM LFM2ForCausalLM",
    "lfm2moe": "Lfm2MoeForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "olmo": "OlmoForCausalLM OLMoForCausalLM",
    "olmo2": "Olmo2ForCausalLM Olmo3ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "exaone": "ExaoneForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "exaone-moe": "ExaoneMoEForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM Ernie4_5_ForCausalLM",
    "ernie4_5-moe": "Ernie4_5_MoeForCausalLM",
    "hunyuan-moe": "HunYuanMoEV1ForCausalLM",
    "hunyuan-dense": "HunYuanDenseV1ForCausalLM",
    "minimax-01": "MiniMaxText01ForCausalLM MiniMaxM1ForCausalLM",
    "minimax-m2": "MiniMaxM2ForCausalLM",
    "minimax-m3": "MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration",
    "mimo2": "MiMoV2FlashForCausalLM MiMoV2ForCausalLM",
    "kimi-linear": "KimiLinearForCausalLM",
    "kimi-k3": "KimiK3ForConditionalGeneration",
    "seed_oss": "SeedOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "step35": "Step3p5ForCausalLM Step3p7ForConditionalGeneration",
    "dots1": "Dots1ForCausalLM",
    "arcee": "ArceeForCausalLM",
    "afmoe": "AfmoeForCausalLM",
    "apertus": "ApertusForCausalLM",
    "bailingmoe": "BailingMoeForCausalLM",
    "bailingmoe2": "BailingMoeV2ForCausalLM",
    "xverse": "XverseForCausalLM",
    "orion": "OrionForCausalLM",
    "minicpm": "MiniCPMForCausalLM",
    "minicpm3": "MiniCPM3ForCausalLM",
    "plamo2": "Plamo2ForCausalLM PLaMo2ForCausalLM",
    "arctic": "ArcticForCausalLM",
    "grovemoe": "GroveMoeForCausalLM",
    "smallthinker": "SmallThinkerForCausalLM",
}
"""llama.cpp's own name of an architecture -> the names in ``config.json`` that its converter makes that of."""


def llama_cpp(wheel: Wheel) -> dict[str, Any]:
    """Return the architectures that the converter knows and that the compiled library has."""
    with zipfile.ZipFile(wheel.path) as archive:
        library = next(name for name in archive.namelist() if name.endswith(".so"))
        content = archive.read(library)
    compiled = [name for name in CONVERTED if name.encode() + b"\x00" in content]
    return {
        "source": CONVERTED_FROM,
        "provenance": "secondary",
        "native": sorted({hf for name in compiled for hf in CONVERTED[name].split()}),
        "removed": {},
    }


_PAGE = "docs/source/models/supported-models.md@00b6d5a25c30b4382d24fbdf52956d601b3ffd24"
TENSORRT_LLM_FROM = f"https://github.com/NVIDIA/TensorRT-LLM {_PAGE}"
TENSORRT_LLM = """
AfmoeForCausalLM Cohere2ForCausalLM DeciLMForCausalLM DeepseekV3ForCausalLM DeepseekV32ForCausalLM DeepseekV4ForCausalLM
Exaone4ForCausalLM ExaoneMoEForCausalLM Gemma3ForCausalLM Gemma3nForConditionalGeneration Gemma4ForConditionalGeneration
Gemma4UnifiedForConditionalGeneration Glm4MoeForCausalLM GlmMoeDsaForCausalLM GptOssForCausalLM
InklingForConditionalGeneration KimiK25ForConditionalGeneration LagunaForCausalLM LlamaForCausalLM
Llama4ForConditionalGeneration MiniCPMV4_6ForConditionalGeneration MiniMaxM3SparseForConditionalGeneration
MiniMaxM3SparseForCausalLM MistralForCausalLM MixtralForCausalLM MllamaForConditionalGeneration NemotronForCausalLM
NemotronHForCausalLM NemotronNASForCausalLM Phi3ForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM
Qwen3NextForCausalLM Qwen3_5MoeForCausalLM Step3p7ForConditionalGeneration Step3p5ForCausalLM
Exaone4_5_ForConditionalGeneration Gemma3ForConditionalGeneration HCXVisionForCausalLM LlavaNextForConditionalGeneration
Mistral3ForConditionalGeneration Phi4MMForCausalLM Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration
Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForConditionalGeneration
Qwen3_5MoeForConditionalGeneration
"""
"""Of the PyTorch backend, which is what is deployed: both of the page's tables of models that answer in text."""
AUTO_DEPLOY = """
DeepSeekV2ForCausalLM DeepseekV2ForCausalLM ExaoneForCausalLM Glm4MoeLiteForCausalLM GraniteForCausalLM
GraniteMoeHybridForCausalLM HunYuanDenseForCausalLM HunYuanMoEForCausalLM InternLM3ForCausalLM MiniMaxM2ForCausalLM
Olmo3ForCausalLM OpenELMForCausalLM SeedOssForCausalLM SkyworkR1V2ForConditionalGeneration SmolLM3ForCausalLM
"""
"""Those that the page marks as run by its other backend."""


def tensorrt_llm() -> dict[str, Any]:
    """Return the published list; the page is of the main branch, so a release may have fewer."""
    return {
        "source": TENSORRT_LLM_FROM,
        "provenance": "secondary",
        "native": sorted(TENSORRT_LLM.split()),
        "other_engine": {"AutoDeploy": sorted(AUTO_DEPLOY.split())},
    }
