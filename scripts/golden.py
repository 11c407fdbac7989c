#!/usr/bin/env python3
"""Seeded tiny checkpoints and the logits Hugging Face transformers computes for them.

What: for every entry of golden_families.py, writes tests/golden/<name>/ with
    config.json, model.safetensors (f32, or fp8 and bf16), tokenizer files;
    golden.safetensors         input_ids [S,T] i64, logits [S,T,V] f32 (transformers in f32),
                               logits_f64 [S,T,V] f64 (everything in f64), hidden_states [L+1,S,T,H]
                               (input of every block, then the last output before the final norm),
                               and per MoE layer l: layers.l.router_logits [S,T,E],
                               layers.l.experts [S,T,k] i64, layers.l.gates [S,T,k] (gate values as
                               applied, falling); f32 roundings of the f64 run;
    golden_pruned.safetensors  layers.l.kept [n] i64, and logits [S,T,V] f32 with all other experts
                               impossible to choose: their choice scores are minus infinity.
    The weights are random but wide: experts are used unevenly and every choice of experts is clear
    by more than MARGIN, so that a different order of summation cannot change it. Before anything is
    written, masking is compared with transformers' own class on really sliced weights.
Usage: python scripts/golden.py [NAME ...] [--out tests/golden]
    Same versions (requirements.txt), same files, bit for bit.
Needs: scripts/requirements.txt.
"""

import argparse
import copy
import pathlib

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import fp8
import layout
import observed
import routing
from golden_families import COMMON, FAMILIES

MARGIN = 1e-3
TEXTS = ["The river bends north here, ", "def f(x):\n    return x * x\n", "12 + 30 = 42; 7 × 8 = 56 ✓ "]
LENGTH = 24


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


def new_model(config):
    """A model of transformers' own class, in f32, with one layer more for each multi-token-prediction block."""
    fields = copy.deepcopy(config)  # transformers writes into nested dictionaries
    kind = fields.pop("model_type")
    fields.pop("quantization_config", None)
    if blocks := config.get("num_nextn_predict_layers"):
        fields["num_hidden_layers"] += blocks
    family = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    return family.from_config(AutoConfig.for_model(fp8.KNOWN_AS.get(kind, kind), **fields), dtype=torch.float32)


def randomise(model, generator):
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name and not name.endswith("bias"):
            weight.data = 1 + 0.2 * noise
        elif "norm" in name:
            weight.data = 0.2 * noise
        elif "embed_tokens" in name:
            weight.data = 0.5 * noise
        elif "lm_head" in name:
            weight.data = 0.1 * noise
        else:  # routers included: std 0.3 on 32 inputs gives router logits of std 1.7
            weight.data = 0.3 * noise
    for name, bias in sorted(model.named_buffers()):
        if name.endswith("e_score_correction_bias"):  # as wide as the sigmoids themselves: it decides often
            bias.data = 0.3 * torch.randn(bias.shape, generator=generator)


def prediction_block(tensors, layer, generator):
    """What a multi-token-prediction block has beside a decoder layer; transformers ignores all of it."""
    hidden = tensors["model.norm.weight"].shape[0]

    def noise(*shape):
        return torch.randn(shape, generator=generator)

    block = {f"{norm}.weight": 1 + 0.2 * noise(hidden) for norm in ("enorm", "hnorm", "shared_head.norm")}
    block["eh_proj.weight"] = 0.3 * noise(hidden, 2 * hidden)
    block["embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    block["shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return {f"model.layers.{layer}.{name}": tensor for name, tensor in block.items()}


def write_checkpoint(out, spec):
    """Random weights through transformers' own class, then a configuration every reader understands."""
    config, generator = spec["config"], torch.Generator().manual_seed(spec["seed"])
    model = new_model(config)
    randomise(model, generator)
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    layout.write_json(out / "config.json", config)
    tensors = load_file(out / "model.safetensors")
    if "vision_config" in config:  # published checkpoints have the experts' inputs before their outputs
        tensors |= {name: tensor.mT for name, tensor in tensors.items() if ".experts." in name}
        save(tensors, out / "model.safetensors")
    for block in range(config.get("num_nextn_predict_layers", 0)):
        tensors |= prediction_block(tensors, config["num_hidden_layers"] + block, generator)
        save(tensors, out / "model.safetensors")
    if quantised := config.get("quantization_config"):
        tensors = fp8.quantise_tensors(tensors, quantised["weight_block_size"][0])
        save(tensors, out / "model.safetensors")
    assert spec["holds"] in tensors, sorted(tensors)

    reread, report = observed.load_with_report(out)
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    written = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, weight in [*reread.named_parameters(), *reread.named_buffers()]:
        if quantised:  # bf16 keeps 8 bits, fp8 keeps 4
            assert (weight - written[name]).abs().max() < written[name].abs().max() / 16, name
        else:
            assert torch.equal(weight, written[name]), name


def check_choices(out, model, trace, message, kept=None):
    """Routing is clear: no choice score is nearer than MARGIN to another choice."""
    margin = torch.inf
    for index, layer in enumerate(observed.layers(model)):
        if observed.router(layer) is not None:
            removed = observed.removed_experts(layer, kept[index]) if kept else None
            routed = routing.route(observed.router(layer), trace.router_logits[index], removed)
            assert torch.equal(routed.chosen, trace.chosen[index])
            assert torch.allclose(routed.gates, trace.gates[index], rtol=1e-12)
            margin = min(margin, routed.margin.min().item())
    print(f"{out.name}: {message}smallest routing margin {margin:.2e}")
    assert margin > MARGIN, "choose another seed"


def write_golden(out, input_ids):
    plain = observed.observe(observed.load(out), input_ids)
    model = observed.load(out, torch.float64)
    exact = observed.observe(model, input_ids)
    check_choices(out, model, exact, "")
    tensors = {
        "input_ids": input_ids,
        "logits": plain.logits,
        "logits_f64": exact.logits,
        "hidden_states": torch.stack(exact.hidden).float(),
    }
    shape = (*input_ids.shape, -1)
    for layer, logits in enumerate(exact.router_logits):
        if logits is not None:
            check_same_routing(plain, exact, layer)
            tensors[f"layers.{layer}.router_logits"] = logits.view(shape).float()
            tensors[f"layers.{layer}.experts"] = exact.chosen[layer].view(shape)
            tensors[f"layers.{layer}.gates"] = exact.gates[layer].view(shape).float()
            used = torch.bincount(exact.chosen[layer].flatten(), minlength=logits.shape[-1])
            print(f"{out.name}: layer {layer} routed tokens per expert {used.tolist()}")
    save(tensors, out / "golden.safetensors")
    report(out, "", plain.logits, exact.logits)


def check_same_routing(plain, exact, layer):
    """transformers in f32 chose the same experts with the same gate values; near ties may be ordered otherwise."""
    dense = [
        torch.zeros_like(trace.router_logits[layer]).scatter(-1, trace.chosen[layer], trace.gates[layer])
        for trace in (plain, exact)
    ]
    assert torch.allclose(dense[0].double(), dense[1], atol=1e-4), (dense[0] - dense[1]).abs().max()


def write_pruned(out, input_ids, kept):
    traces = []
    for dtype in (torch.float32, torch.float64):
        model = observed.load(out, dtype)
        if dtype == torch.float32:
            sliced = observed.observe(observed.slice_experts(model, kept), input_ids).logits
        observed.mask_experts(model, kept)
        traces.append(observed.observe(model, input_ids))
    plain, exact = traces
    check_choices(out, model, exact, "pruned: ", kept)
    difference = (plain.logits - sliced).abs().max().item()
    print(f"{out.name}: pruned: masked and really sliced differ by at most {difference:.1e}")
    assert difference < 1e-5
    kept = {f"layers.{layer}.kept": torch.tensor(experts) for layer, experts in kept.items()}
    save({"logits": plain.logits, **kept}, out / "golden_pruned.safetensors")
    report(out, "pruned: ", plain.logits, exact.logits)


def report(out, message, plain, exact):
    print(
        f"{out.name}: {message}logits in [{exact.min():.1f}, {exact.max():.1f}], "
        f"f32 differs from f64 by at most {(plain - exact).abs().max():.1e}"
    )


def save(tensors, path):
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"format": "pt"} if path.name == "model.safetensors" else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all")
    parser.add_argument("--out", type=pathlib.Path, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    set_verbosity_error()
    for name in args.names or FAMILIES:
        spec, out = FAMILIES[name], args.out / name
        out.mkdir(parents=True, exist_ok=True)
        tokenizer = write_tokenizer(out)
        write_checkpoint(out, spec)
        input_ids = torch.tensor([tokenizer.encode(text).ids[:LENGTH] for text in TEXTS])
        write_golden(out, input_ids)
        if "kept" in spec:
            write_pruned(out, input_ids, spec["kept"])


if __name__ == "__main__":
    main()
