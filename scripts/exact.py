"""A model of transformers in float64 throughout.

What: transformers keeps norms, softmax, routing and rotary positions in float32 whatever the model's
    type; :func:`compute_in_float64` replaces them by the same formulas in float64. The rotary
    frequencies are computed here independently of transformers, also for scaled positions.
Usage: imported by observed.py.
Needs: torch, transformers 5.
"""

import math
import sys

import torch
import torch.nn.functional as F

import routing


def compute_in_float64(model):
    """Replaces what a float64 model computes in float32. Text only: a vision tower is left alone."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if "visual." in name:
            continue
        if kind.endswith("RMSNorm"):
            module.forward = _rms_norm(module)
        elif kind.endswith("RotaryEmbedding"):
            module.forward = _rotary(module)
        elif routing.is_router(module):
            module.forward = _router(module)
    if hasattr(family := sys.modules[type(model).__module__], "apply_rotary_emb"):  # DeepSeek-V2
        family.apply_rotary_emb = _rotate_complex


def inverse_frequencies(config, length):
    """Rotary frequencies [n] in radians per token for sequences of `length`, and the factor on cosine and sine."""
    rope = config.rope_parameters
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(dim * rope.get("partial_rotary_factor", 1.0))
    frequencies = rope["rope_theta"] ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if rope["rope_type"] == "yarn":
        return _yarn(rope, dim, frequencies)
    if rope["rope_type"] == "longrope":
        size = "long" if length > rope["original_max_position_embeddings"] else "short"
        return frequencies / torch.tensor(rope[f"{size}_factor"], dtype=torch.float64), rope[f"{size}_mscale"]
    return frequencies, 1.0


def _yarn(rope, dim, frequencies):
    """YaRN (Peng et al. 2023): slow frequencies divided by the factor, fast ones kept, a ramp between."""

    def index(rotations):  # of the frequency that turns so often over the original context
        turns = rope["original_max_position_embeddings"] / (2 * math.pi * rotations)
        return dim * math.log(turns) / (2 * math.log(rope["rope_theta"]))

    def mscale(weight):
        return 0.1 * weight * math.log(rope["factor"]) + 1.0

    low = max(math.floor(index(rope["beta_fast"])), 0)
    high = min(math.ceil(index(rope["beta_slow"])), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)
    slow = ramp.clamp(0, 1)
    scaled = frequencies / rope["factor"] * slow + frequencies * (1 - slow)
    return scaled, mscale(rope["mscale"]) / mscale(rope["mscale_all_dim"])


def _rms_norm(module):
    return lambda x: F.rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)


def _router(module):
    def forward(x, *_bias):  # MiniMax-M2's block hands it over
        logits = F.linear(x.reshape(-1, x.shape[-1]), module.weight)
        chosen, gates, _ = routing.route(module, logits)
        return logits, gates, chosen

    return forward


def _rotary(module):
    def forward(x, position_ids):
        if position_ids.ndim == 3:  # Qwen3-VL: time, height and width, alike for text
            position_ids = position_ids[0]
        frequencies, factor = inverse_frequencies(module.config, position_ids.max() + 1)
        angles = position_ids[..., None].double() * frequencies
        if type(module).__name__.startswith("DeepseekV2"):
            return torch.polar(torch.full_like(angles, factor), angles)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * factor, angles.sin() * factor

    return forward


def _rotate_complex(q, k, rotation):
    """DeepSeek-V2's rotation of neighbouring pairs; transformers rounds q and k to float32 before it."""
    rotated = []
    for x in (q, k):
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        rotated.append(torch.view_as_real(pairs * rotation.unsqueeze(1)).flatten(3))
    return rotated
