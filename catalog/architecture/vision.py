"""Parameters of the vision towers and projectors that are loaded with a multimodal model.

No text token passes through them; they only take memory. Counts equal those of ``transformers`` 5.24.
Qwen3.5 and Llama 4 aren't here: ``transformers`` loads their language model alone as a causal LM, and so
do engines that are told to serve text only.
"""

from __future__ import annotations

from collections.abc import Callable

from catalog.architecture.fields import MAX_LAYERS, Fields

_IMAGE_CHANNELS = 3


def _biased(rows: int, columns: int) -> int:
    return rows * columns + columns


def _transformer(depth: int, hidden: int, inner: int) -> int:
    """A plain vision transformer: biases everywhere, two LayerNorms per layer."""
    return depth * (4 * _biased(hidden, hidden) + _biased(hidden, inner) + _biased(inner, hidden) + 4 * hidden)


def qwen3_vl(config: Fields) -> int:
    """Qwen3-VL: learned positions, a merger, and one more merger per deep-stacked layer."""
    vision = config.nested("vision_config")
    if vision is None:
        return 0
    hidden, depth = vision.count("hidden_size"), vision.count("depth", most=MAX_LAYERS)
    patch = vision.count("in_channels", default=3, most=1000) * vision.count("temporal_patch_size", most=1000)
    patch *= vision.count("patch_size", most=10_000) ** 2
    wide = hidden * vision.count("spatial_merge_size", most=1000) ** 2
    merger = _biased(wide, wide) + _biased(wide, vision.count("out_hidden_size"))
    stacked = len(vision.indices("deepstack_visual_indexes", depth))
    positions = vision.count("num_position_embeddings") * hidden
    towers = _transformer(depth, hidden, vision.count("intermediate_size"))
    return _biased(patch, hidden) + positions + towers + merger + 2 * hidden + stacked * (merger + 2 * wide)


def gemma3(config: Fields) -> int:
    """Gemma 3: SigLIP and a projection."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden, patch = vision.count("hidden_size"), vision.count("patch_size", most=10_000)
    text = _text_hidden(config)
    positions = (vision.count("image_size", default=896, most=100_000) // patch) ** 2 * hidden
    tower = _transformer(vision.count("num_hidden_layers", most=MAX_LAYERS), hidden, vision.count("intermediate_size"))
    return _biased(_IMAGE_CHANNELS * patch**2, hidden) + positions + tower + 2 * hidden + hidden * text + hidden


def gemma4(config: Fields) -> int:
    """Gemma 4: gated vision transformer with normalised heads; its audio tower isn't counted."""
    vision = config.nested("vision_config", required=False)
    if config.has("audio_config"):
        config.problem("audio_config", "audio towers aren't counted", "set it to null to plan without the tower")
    if vision is None:
        return 0
    hidden, dim = vision.count("hidden_size"), vision.count("head_dim", most=100_000)
    heads = vision.count("num_attention_heads", most=100_000) + vision.count("num_key_value_heads", most=100_000)
    each = 2 * heads * dim * hidden + 2 * dim + 3 * hidden * vision.count("intermediate_size") + 4 * hidden
    embedding = 2 * vision.count("position_embedding_size", default=10_240) * hidden
    embedding += _IMAGE_CHANNELS * vision.count("patch_size", most=10_000) ** 2 * hidden
    depth = vision.count("num_hidden_layers", most=MAX_LAYERS)
    return embedding + depth * each + hidden * _text_hidden(config)


def kimi_k25(config: Fields) -> int:
    """Kimi K2.5: MoonViT and a patch merger."""
    vision = config.nested("vision_config")
    if vision is None:
        return 0
    hidden = vision.count("vt_hidden_size")
    patch = _IMAGE_CHANNELS * vision.count("patch_size", most=10_000) ** 2
    grid = vision.count("init_pos_emb_height", most=100_000) * vision.count("init_pos_emb_width", most=100_000)
    depth, inner = vision.count("vt_num_hidden_layers", most=MAX_LAYERS), vision.count("vt_intermediate_size")
    width = vision.count("mm_hidden_size")
    wide = 4 * width
    if vision.raw("merge_kernel_size") not in (None, [2, 2]):
        vision.problem("merge_kernel_size", "is not [2, 2]", "other mergers aren't known")
    projector = 2 * width + _biased(wide, wide) + _biased(wide, vision.count("text_hidden_size"))
    return _biased(patch, hidden) + grid * hidden + _transformer(depth, hidden, inner) + 2 * hidden + projector


def minimax_m3(config: Fields) -> int:
    """MiniMax M3: CLIP-like tower, two projections before and two after merging patches."""
    vision = config.nested("vision_config")
    if vision is None:
        return 0
    hidden = vision.count("hidden_size")
    merging = vision.nested("img_token_compression_config", required=False) or vision
    frames = merging.count("temporal_patch_size", default=2, most=1000)
    merge = merging.count("spatial_merge_size", default=2, most=1000) ** 2
    text = _text_hidden(config)
    width = config.count("projector_hidden_size", default=text)
    patch = _IMAGE_CHANNELS * frames * vision.count("patch_size", most=10_000) ** 2 * hidden
    tower = _transformer(vision.count("num_hidden_layers", most=MAX_LAYERS), hidden, vision.count("intermediate_size"))
    projector = _biased(hidden, width) + _biased(merge * text, width) + 2 * _biased(width, text)
    return patch + 2 * hidden + tower + projector


def mistral3(config: Fields) -> int:
    """Mistral Small 3.1: Pixtral (gated, no biases), a patch merger and two projections."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden, depth = vision.count("hidden_size"), vision.count("num_hidden_layers", most=MAX_LAYERS)
    text = _text_hidden(config)
    patch = _IMAGE_CHANNELS * vision.count("patch_size", most=10_000) ** 2 * hidden
    tower = depth * (4 * hidden**2 + 3 * hidden * vision.count("intermediate_size") + 2 * hidden)
    merge = config.count("spatial_merge_size", default=2, most=1000) ** 2
    bias = 2 * text if config.flag("multimodal_projector_bias") else 0
    return patch + hidden + tower + hidden + merge * hidden * hidden + hidden * text + text * text + bias


def step3p7(config: Fields) -> int:
    """Step-3.7: the library's own tower where the config, as published, has none."""
    if config.has("vision_config"):
        config.problem("vision_config", "isn't known for this family", "remove it; the published tower is counted")
    hidden, inner, depth, positions, patch = 1536, 8960, 47, 2704, 14
    downsampling = _biased(9 * hidden, 2 * hidden) + _biased(18 * hidden, 4 * hidden)
    scales = depth * 2 * hidden
    embedding = _IMAGE_CHANNELS * patch**2 * hidden + positions * hidden + 2 * hidden
    projector = 4 * hidden * config.count("hidden_size")
    return embedding + _transformer(depth, hidden, inner) + scales + downsampling + projector


def qwen2_5_vl(config: Fields) -> int:
    """Qwen2.5-VL: gated blocks with biases below RMSNorm, and a merger."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden, inner = vision.count("hidden_size"), vision.count("intermediate_size")
    patch = vision.count("in_channels", "in_chans", default=3, most=1000) * vision.count("patch_size", most=10_000) ** 2
    patch *= vision.count("temporal_patch_size", default=2, most=1000)
    each = _biased(hidden, 3 * hidden) + _biased(hidden, hidden) + 2 * hidden
    each += 2 * _biased(hidden, inner) + _biased(inner, hidden)
    wide = hidden * vision.count("spatial_merge_size", default=2, most=1000) ** 2
    merger = hidden + _biased(wide, wide) + _biased(wide, vision.count("out_hidden_size"))
    return patch * hidden + vision.count("depth", most=MAX_LAYERS) * each + merger


def qwen2_vl(config: Fields) -> int:
    """Qwen2-VL: plain blocks without positions of their own, and a merger."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden = vision.count("embed_dim")
    patch = vision.count("in_channels", "in_chans", default=3, most=1000) * vision.count("patch_size", most=10_000) ** 2
    patch *= vision.count("temporal_patch_size", default=2, most=1000)
    tower = _transformer(
        vision.count("depth", most=MAX_LAYERS), hidden, int(hidden * vision.ratio("mlp_ratio", 4.0, 0.01, 100.0))
    )
    wide = hidden * vision.count("spatial_merge_size", default=2, most=1000) ** 2
    merger = 2 * hidden + _biased(wide, wide) + _biased(wide, vision.count("hidden_size"))
    return patch * hidden + tower + merger


def exaone4_5(config: Fields) -> int:
    """EXAONE 4.5: Qwen2.5-VL's tower with fewer KV heads."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden = vision.count("hidden_size")
    heads = vision.count("num_heads", most=100_000)
    kv = vision.count("num_key_value_heads", default=heads, most=100_000)
    fewer = 2 * (heads - kv) * (hidden // heads)
    return qwen2_5_vl(config) - vision.count("depth", most=MAX_LAYERS) * _biased(hidden, fewer)


def mllama(config: Fields) -> int:
    """Llama 3.2 Vision: a tower of local and gated global blocks over tiles, and a projection."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden, inner = vision.count("hidden_size"), vision.count("intermediate_size", default=5120)
    patch, image = vision.count("patch_size", default=14, most=10_000), vision.count("image_size", default=448)
    places = (image // patch) ** 2 + 1
    tiles, ratios = vision.count("max_num_tiles", default=4, most=1000), 9
    local, whole = vision.count("num_hidden_layers", most=MAX_LAYERS), vision.count("num_global_layers", default=8)
    each = 4 * hidden**2 + _biased(hidden, inner) + _biased(inner, hidden) + 4 * hidden
    positions = 1 + places * hidden + ratios * tiles * places * hidden
    tile = 2 * (1 + ratios * tiles * hidden)
    tower = hidden + _IMAGE_CHANNELS * patch**2 * hidden + positions + tile + 4 * hidden
    taken = vision.raw("intermediate_layers_indices")
    outputs = (len(taken) if isinstance(taken, list) else 5) + 1
    projector = _biased(outputs * hidden, _text_hidden(config))
    return tower + local * each + whole * (each + 2) + projector


def lfm2_vl(config: Fields) -> int:
    """LFM2-VL: SigLIP 2 with positions of its own, and a projector over merged patches."""
    vision = config.nested("vision_config", required=False)
    if vision is None:
        return 0
    hidden, inner = vision.count("hidden_size"), vision.count("intermediate_size")
    patch = vision.count("num_channels", default=3, most=1000) * vision.count("patch_size", most=10_000) ** 2
    tower = _biased(patch, hidden) + vision.count("num_patches", default=256) * hidden + 2 * hidden
    tower += _transformer(vision.count("num_hidden_layers", most=MAX_LAYERS), hidden, inner)
    tower += _pooling_head(hidden, inner) if vision.flag("vision_use_head", default=True) else 0
    wide = hidden * config.count("downsample_factor", default=2, most=1000) ** 2
    projector, text = config.count("projector_hidden_size"), _text_hidden(config)
    bias = config.flag("projector_bias", default=True)
    norm = 2 * wide if config.flag("projector_use_layernorm", default=True) else 0
    linear = wide * projector + projector * text + (projector + text if bias else 0)
    return tower + norm + linear


def _pooling_head(hidden: int, inner: int) -> int:
    """SigLIP's pooling by attention: a probe, one attention, a LayerNorm and a feed-forward."""
    return hidden + 4 * _biased(hidden, hidden) + 2 * hidden + _biased(hidden, inner) + _biased(inner, hidden)


def voxtral(config: Fields) -> int:
    """Voxtral: Whisper's encoder, and two projections without biases."""
    audio = config.nested("audio_config", required=False)
    if audio is None:
        return 0
    hidden, inner = audio.count("hidden_size"), audio.count("intermediate_size")
    convolutions = 3 * audio.count("num_mel_bins", default=128, most=10_000) * hidden + 3 * hidden**2 + 2 * hidden
    positions = audio.count("max_source_positions", default=1500, most=1_000_000) * hidden
    depth = audio.count("num_hidden_layers", most=MAX_LAYERS)
    layers = _transformer(depth, hidden, inner) - depth * hidden  # keys have no bias
    text = _text_hidden(config)
    return convolutions + positions + layers + 2 * hidden + inner * text + text * text


def _text_hidden(config: Fields) -> int:
    text = config.nested("text_config", required=False) or config
    return text.count("hidden_size")


TOWERS: dict[str, Callable[[Fields], int]] = {
    "exaone4_5": exaone4_5,
    "gemma3": gemma3,
    "gemma4": gemma4,
    "kimi_k25": kimi_k25,
    "lfm2_vl": lfm2_vl,
    "minimax_m3_vl": minimax_m3,
    "mistral3": mistral3,
    "mllama": mllama,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_vl": qwen2_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl,
    "step3p7": step3p7,
    "voxtral": voxtral,
}
"""``model_type`` of a whole config -> parameters beside its language model."""
