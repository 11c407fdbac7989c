#!/usr/bin/env python3
"""Seeded tiny checkpoints and the logits Hugging Face transformers computes for them.

What: for Qwen3-MoE and Mixtral, writes tests/golden/<family>/ with
    config.json, model.safetensors (f32, one tensor per expert matrix), tokenizer files;
    golden.safetensors         input_ids [S,T] i64, logits [S,T,V] f32 (transformers in f32),
                               logits_f64 [S,T,V] f64 (everything in f64), hidden_states [L+1,S,T,H]
                               (input of every block, then the last output before the final norm),
                               and per MoE layer l: layers.l.router_logits [S,T,E],
                               layers.l.experts [S,T,k] i64, layers.l.gates [S,T,k] (gate values as
                               applied); f32 roundings of the f64 run;
    golden_pruned.safetensors  layers.l.kept [n] i64, and logits [S,T,V] f32 with the router logits of
                               all other experts at minus infinity.
    The weights are random but wide: experts are used unevenly and every choice of experts is clear
    by more than MARGIN, so that a different order of summation cannot change it.
Usage: python scripts/golden.py [--out tests/golden]
    Same versions (requirements.txt), same files, bit for bit.
Needs: scripts/requirements.txt.
"""

import argparse
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

import layout
import observed

MARGIN = 1e-3
TEXTS = ["The river bends north here, ", "def f(x):\n    return x * x\n", "12 + 30 = 42; 7 × 8 = 56 ✓ "]
LENGTH = 24

COMMON = {
    "hidden_size": 32, "max_position_embeddings": 512, "num_attention_heads": 4, "num_experts_per_tok": 2,
    "num_key_value_heads": 2, "torch_dtype": "float32", "vocab_size": 264,
}  # fmt: skip
FAMILIES = {
    "qwen3_moe": {
        "seed": 12,
        "kept": {0: [0, 2, 3, 5, 7], 2: [1, 2, 4, 5, 6], 3: [0, 1, 3, 6, 7]},  # layer 1 is dense
        "config": layout.qwen3_moe_config(
            **COMMON, head_dim=16, intermediate_size=40, mlp_only_layers=[1], moe_intermediate_size=16,
            num_experts=8, num_hidden_layers=4, rope_theta=50000.0,
        ),
    },
    "mixtral": {
        "seed": 24,
        "kept": {0: [0, 1, 3, 4], 1: [1, 2, 4, 5], 2: [0, 2, 3, 5]},
        "config": layout.mixtral_config(
            **COMMON, intermediate_size=24, num_hidden_layers=3, num_local_experts=6, rope_theta=20000.0,
        ),
    },
}  # fmt: skip


def write_tokenizer(out):
    """One token per byte: special tokens first, then the byte-level alphabet."""
    vocab = {token: i for i, token in enumerate(layout.SPECIAL_TOKENS + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(layout.SPECIAL_TOKENS)
    tokenizer.save(str(out / "tokenizer.json"))
    layout.write_tokenizer_config(out, COMMON["max_position_embeddings"])
    return tokenizer


def write_checkpoint(out, config, seed):
    """Random weights through transformers' own class, then a configuration every reader understands."""
    kind = config["model_type"]
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{k: v for k, v in config.items() if k != "model_type"}), dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.data = 1 + 0.2 * noise
        elif "embed_tokens" in name:
            weight.data = 0.5 * noise
        elif "lm_head" in name:
            weight.data = 0.1 * noise
        else:  # routers included: std 0.3 on 32 inputs gives router logits of std 1.7
            weight.data = 0.3 * noise
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    layout.write_json(out / "config.json", config)
    expert = "block_sparse_moe.experts.5.w1" if kind == "mixtral" else "mlp.experts.7.gate_proj"
    with safe_open(out / "model.safetensors", "pt") as file:
        assert f"model.layers.2.{expert}.weight" in file.keys(), sorted(file.keys())
    reread = observed.load(out)
    assert reread.config.rope_parameters["rope_theta"] == config["rope_theta"]
    for (name, a), (_, b) in zip(model.named_parameters(), reread.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def check_choices(out, trace, k, message):
    """Routing is clear: the k-th and the next router logit differ by more than MARGIN."""
    margin = torch.inf
    for logits in filter(lambda x: x is not None, trace.router_logits):
        best = logits.topk(k + 1, dim=-1).values
        margin = min(margin, (best[:, k - 1] - best[:, k]).min().item())
    print(f"{out.name}: {message}smallest routing margin {margin:.2e}")
    assert margin > MARGIN, "choose another seed"


def write_golden(out, input_ids, config):
    plain = observed.observe(observed.load(out), input_ids)
    exact = observed.observe(observed.load(out, torch.float64), input_ids)
    check_choices(out, exact, config["num_experts_per_tok"], "")
    tensors = {
        "input_ids": input_ids,
        "logits": plain.logits,
        "logits_f64": exact.logits,
        "hidden_states": torch.stack(exact.hidden).float(),
    }
    shape = (*input_ids.shape, -1)
    for layer, logits in enumerate(exact.router_logits):
        if logits is not None:
            assert torch.equal(plain.chosen[layer], exact.chosen[layer])
            tensors[f"layers.{layer}.router_logits"] = logits.view(shape).float()
            tensors[f"layers.{layer}.experts"] = exact.chosen[layer].view(shape)
            tensors[f"layers.{layer}.gates"] = exact.gates[layer].view(shape).float()
            used = torch.bincount(exact.chosen[layer].flatten(), minlength=logits.shape[-1])
            print(f"{out.name}: layer {layer} routed tokens per expert {used.tolist()}")
    save(tensors, out / "golden.safetensors")
    report(out, "", plain.logits, exact.logits)


def write_pruned(out, input_ids, config, kept):
    traces = []
    for dtype in (torch.float32, torch.float64):
        model = observed.load(out, dtype)
        observed.mask_experts(model, kept)
        traces.append(observed.observe(model, input_ids))
    plain, exact = traces
    check_choices(out, exact, config["num_experts_per_tok"], "pruned: ")
    kept = {f"layers.{layer}.kept": torch.tensor(experts) for layer, experts in kept.items()}
    save({"logits": plain.logits, **kept}, out / "golden_pruned.safetensors")
    report(out, "pruned: ", plain.logits, exact.logits)


def report(out, message, plain, exact):
    print(
        f"{out.name}: {message}logits in [{exact.min():.1f}, {exact.max():.1f}], "
        f"f32 differs from f64 by at most {(plain - exact).abs().max():.1e}"
    )


def save(tensors, path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    for family, spec in FAMILIES.items():
        out = args.out / family
        out.mkdir(parents=True, exist_ok=True)
        tokenizer = write_tokenizer(out)
        write_checkpoint(out, spec["config"], spec["seed"])
        input_ids = torch.tensor([tokenizer.encode(text).ids[:LENGTH] for text in TEXTS])
        write_golden(out, input_ids, spec["config"])
        write_pruned(out, input_ids, spec["config"], spec["kept"])


if __name__ == "__main__":
    main()
