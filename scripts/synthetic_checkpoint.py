#!/usr/bin/env python3
"""A Qwen3-MoE checkpoint of any size with random weights, for measuring memory and throughput.

What: writes OUT/ in Hugging Face layout (bf16, one tensor per expert matrix, one shard per layer and
    one for the rest, index, config, tokenizer). The defaults are the layer shapes of Qwen3-30B-A3B:
    hidden 2048, 128 experts of width 768, top-8, 32 heads and 4 key-value heads of 128; four layers
    take 5 GB. Weights are normal with std 0.02, which spreads tokens over the experts; norms are 1.
    Holds one expert matrix at a time. Same arguments, same bytes.
Usage: python scripts/synthetic_checkpoint.py OUT --tokenizer models/demo [--layers 4] [--experts 128] ...
Needs: numpy.
"""

import argparse
import json
import pathlib
import shutil
import struct

import numpy as np

import layout

STD = 0.02


def tensors(config):
    """(shard, name, shape) of every tensor, in the order in which they are written."""
    hidden, width = config["hidden_size"], config["moe_intermediate_size"]
    head, queries, keys = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    yield 0, "model.embed_tokens.weight", (config["vocab_size"], hidden)
    yield 0, "model.norm.weight", (hidden,)
    yield 0, "lm_head.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        parts = {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (queries * head, hidden),
            "self_attn.k_proj": (keys * head, hidden),
            "self_attn.v_proj": (keys * head, hidden),
            "self_attn.o_proj": (hidden, queries * head),
            "self_attn.q_norm": (head,),
            "self_attn.k_norm": (head,),
            "mlp.gate": (config["num_experts"], hidden),
        }
        for expert in range(config["num_experts"]):
            parts[f"mlp.experts.{expert}.gate_proj"] = (width, hidden)
            parts[f"mlp.experts.{expert}.up_proj"] = (width, hidden)
            parts[f"mlp.experts.{expert}.down_proj"] = (hidden, width)
        for part, shape in parts.items():
            yield layer + 1, f"{prefix}{part}.weight", shape


def values(rng, name, shape):
    """bf16 bits of one tensor."""
    if name.endswith("norm.weight"):
        return np.full(shape, 0x3F80, dtype="<u2")  # 1.0
    bits = (rng.standard_normal(shape, dtype=np.float32) * np.float32(STD)).view(np.uint32)
    return ((bits + 0x8000) >> 16).astype("<u2")


def write_shard(path, entries, seed):
    """One safetensors file: length of the header, header, data; written tensor by tensor."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in entries:
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in entries:
            file.write(values(rng, name, shape))
    return offset


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="directory to copy the tokenizer from")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--intermediate", type=int, default=768, help="width of an expert")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = layout.model_config(
        "qwen3_moe", head_dim=args.head_dim, hidden_size=args.hidden, intermediate_size=args.intermediate * args.top_k,
        max_position_embeddings=4096, max_window_layers=args.layers, moe_intermediate_size=args.intermediate,
        num_attention_heads=args.heads, num_experts=args.experts, num_experts_per_tok=args.top_k,
        num_hidden_layers=args.layers, num_key_value_heads=args.kv_heads, rope_theta=1000000.0,
        torch_dtype="bfloat16", vocab_size=args.vocab,
    )  # fmt: skip

    args.out.mkdir(parents=True, exist_ok=True)
    layout.write_json(args.out / "config.json", config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.tokenizer / name, args.out / name)
    shards = [[] for _ in range(args.layers + 1)]
    for shard, name, shape in tensors(config):
        shards[shard].append((name, shape))
    index, total = {}, 0
    for number, entries in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        total += write_shard(args.out / file, entries, seed=(args.seed, number))
        index |= {name: file for name, _ in entries}
        print(f"{file}: {len(entries)} tensors, {total / 1e9:.2f} GB so far", flush=True)
    layout.write_json(
        args.out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index}
    )


if __name__ == "__main__":
    main()
