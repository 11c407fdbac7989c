"""Block-scaled fp8 checkpoints, as DeepSeek-V3 and Kimi-K2 are published.

What: the module that golden.py and observed.py share. A matrix `X.weight` in F8_E4M3 comes with
    `X.weight_scale_inv` in F32, one number per block of 128 x 128 (here smaller) by which the stored
    numbers are multiplied. transformers multiplies such matrices on a GPU only; :func:`readable` gives
    it the dequantised checkpoint, and Kimi-K2's under the name that transformers knows.
Usage: imported.
Needs: torch, safetensors.
"""

import contextlib
import json
import pathlib
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

SCALE = "_scale_inv"
_LARGEST = torch.finfo(torch.float8_e4m3fn).max
KNOWN_AS = {"kimi_k2": "deepseek_v3"}  # model_type in config.json: in transformers


def quantise(weight, block):
    """F8_E4M3 numbers [rows, columns] and f32 scales [ceil(rows / block), ceil(columns / block)]."""
    rows, columns = weight.shape
    padded = F.pad(weight, (0, -columns % block, 0, -rows % block))
    largest = padded.view(padded.shape[0] // block, block, -1, block).abs().amax((1, 3))
    scales = largest / _LARGEST
    return (weight / _spread(scales, weight.shape, block)).to(torch.float8_e4m3fn), scales


def dequantise(numbers, scales, block):
    """f32 [rows, columns]."""
    return numbers.float() * _spread(scales, numbers.shape, block)


def quantise_tensors(tensors, block):
    """A checkpoint as published: projections in fp8, routing biases as they are, the rest in bf16."""
    stored = {}
    for name, tensor in tensors.items():
        if name.endswith(("_proj.weight", "_proj_with_mqa.weight")):
            stored[name], stored[name + SCALE] = quantise(tensor, block)
        else:
            stored[name] = tensor if name.endswith("e_score_correction_bias") else tensor.bfloat16()
    return stored


def dequantise_tensors(tensors, block):
    return {
        name: dequantise(tensor, tensors[name + SCALE], block) if name + SCALE in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALE)
    }


@contextlib.contextmanager
def readable(path):
    """A directory that transformers opens on a CPU: `path`, or a temporary copy."""
    path = pathlib.Path(path)
    config = json.loads((path / "config.json").read_text())
    quantised = config.pop("quantization_config", None)
    if quantised is None and config["model_type"] not in KNOWN_AS:
        yield path
        return
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        if file.name.startswith("model"):
            tensors |= load_file(file)
    if quantised is not None:
        tensors = dequantise_tensors(tensors, quantised["weight_block_size"][0])
    config["model_type"] = KNOWN_AS.get(config["model_type"], config["model_type"])
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "config.json").write_text(json.dumps(config))
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        yield directory


def _spread(scales, shape, block):
    rows, columns = shape
    return scales.repeat_interleave(block, 0)[:rows].repeat_interleave(block, 1)[:, :columns]
