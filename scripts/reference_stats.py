#!/usr/bin/env python3
"""Calibration statistics computed by Hugging Face transformers in float64.

What: the reference that router-stats is tested against. Reads token sequences, runs the model once
    in float64 and writes the same tables, under the same names, as a stats file:
    D domains, L layers, E most experts of a layer, H hidden size; dense layers are zeros.
      tokens, sequences [D]
      routing.count, .gate, .gate_sq, .soft_gate [D,L,E]; routing.pairs [D,L,E,E]
      expert.norm, .norm_sq, .gated_norm, .gated_norm_sq, .max [D,L,E]; expert.output [D,L,E,H]
      block.cos, block.angle [D,L,3]  (block, attention sublayer, MLP sublayer)
      span.angle [D,L+1,L+1]  between hidden states i < j of the last token of every sequence
    Everything is a sum over tokens, except expert.max. Angles are in units of pi. Gate values are those
    applied, renormalised and scaled; soft_gate sums what the router thinks of every expert, chosen or
    not: the softmax of the router logits, or their sigmoid (without bias or scaling) for routers with one.
Usage: python scripts/reference_stats.py MODEL_DIR TOKENS.safetensors OUT.safetensors [--domains 2]
    TOKENS holds input_ids [S,T] i64, for instance tests/golden/mixtral/golden.safetensors.
    Sequence i belongs to domain i mod D.
Needs: scripts/requirements.txt.
"""

import argparse
import math

import torch
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import observed
import routing

PER_EXPERT = (
    "routing.count", "routing.gate", "routing.gate_sq", "routing.soft_gate",
    "expert.norm", "expert.norm_sq", "expert.gated_norm", "expert.gated_norm_sq", "expert.max",
)  # fmt: skip


def empty_tables(domains, experts, hidden):
    layers, most = len(experts), max(experts)
    shapes = {name: (layers, most) for name in PER_EXPERT}
    shapes |= {"tokens": (), "sequences": (), "routing.pairs": (layers, most, most)}
    shapes |= {"expert.output": (layers, most, hidden), "span.angle": (layers + 1, layers + 1)}
    shapes |= {"block.cos": (layers, 3), "block.angle": (layers, 3)}
    return {name: torch.zeros(domains, *shape, dtype=torch.float64) for name, shape in shapes.items()}


def cosine(a, b):
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).clamp(-1, 1)


def angle(a, b):
    return cosine(a, b).arccos() / math.pi


def add_routing(tables, domain, index, layer, trace):
    scores = routing.scores(observed.router(layer), trace.router_logits[index])
    tables["routing.soft_gate"][domain, index, : scores.shape[-1]] += scores.sum(0)
    for chosen, gates in zip(trace.chosen[index], trace.gates[index]):
        for i, gate in zip(chosen, gates):
            tables["routing.count"][domain, index, i] += 1
            tables["routing.gate"][domain, index, i] += gate
            tables["routing.gate_sq"][domain, index, i] += gate**2
            for j in chosen:
                tables["routing.pairs"][domain, index, i, j] += 1


def add_experts(tables, domain, index, layer, trace):
    for expert in range(trace.router_logits[index].shape[-1]):
        token, position = torch.where(trace.chosen[index] == expert)
        if len(token) == 0:
            continue
        gate = trace.gates[index][token, position]
        output = observed.expert_output(layer, expert, trace.mlp_input[index][token])
        norm = output.norm(dim=-1)
        at = (domain, index, expert)
        tables["expert.norm"][at] += norm.sum()
        tables["expert.norm_sq"][at] += (norm**2).sum()
        tables["expert.gated_norm"][at] += (gate * norm).sum()
        tables["expert.gated_norm_sq"][at] += ((gate * norm) ** 2).sum()
        tables["expert.max"][at] = torch.maximum(tables["expert.max"][at], output.abs().max())
        tables["expert.output"][at] += output.sum(0)


def add_blocks(tables, domain, trace):
    for index, middle in enumerate(trace.middle):
        before, after = trace.hidden[index], trace.hidden[index + 1]
        for part, (a, b) in enumerate([(before, after), (before, middle), (middle, after)]):
            tables["block.cos"][domain, index, part] += cosine(a, b).sum()
            tables["block.angle"][domain, index, part] += angle(a[:, -1], b[:, -1]).sum()
    for i, a in enumerate(trace.hidden):
        for j in range(i + 1, len(trace.hidden)):
            tables["span.angle"][domain, i, j] += angle(a[:, -1], trace.hidden[j][:, -1]).sum()


@torch.inference_mode()
def collect(model, input_ids, domains):
    experts = observed.experts_per_layer(model)
    tables = empty_tables(domains, experts, observed.text_config(model).hidden_size)
    for i, sequence in enumerate(input_ids):
        domain = i % domains
        trace = observed.observe(model, sequence[None])
        tables["tokens"][domain] += len(sequence)
        tables["sequences"][domain] += 1
        add_blocks(tables, domain, trace)
        for index, layer in enumerate(observed.layers(model)):
            if experts[index]:
                add_routing(tables, domain, index, layer, trace)
                add_experts(tables, domain, index, layer, trace)
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("tokens", metavar="TOKENS.safetensors")
    parser.add_argument("out", metavar="OUT.safetensors")
    parser.add_argument("--domains", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    set_verbosity_error()
    model = observed.load(args.model, torch.float64)
    tables = collect(model, load_file(args.tokens)["input_ids"], args.domains)
    save_file(tables, args.out)
    for name in sorted(tables):
        print(f"{name:22} {list(tables[name].shape)!s:16} sum {tables[name].sum():.6f}")


if __name__ == "__main__":
    main()
