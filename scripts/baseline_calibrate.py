#!/usr/bin/env python3
"""Calibration with PyTorch and transformers: what `mistralrs-prune calibrate` is timed against.

What: one pass over batches of equally long sequences through the base model (no head), collecting
    the sums that router-stats collects (names and meaning: reference_stats.py), only from experts
    that tokens were routed to. Written to be fast: no padding, inference mode, f32 arithmetic with
    f64 sums, one vectorised update per layer, the head never run.
    transformers 4 holds experts as modules, so forward hooks see their outputs; transformers 5 fuses
    them, so the same code runs as an experts implementation, tokens sorted by expert. Both work.
    Prints tokens/s without and with loading the model, and the peak resident memory.
Usage: python scripts/baseline_calibrate.py MODEL_DIR --text FILE... [--tokens 65536] [--seq-len 512]
           [--batch-tokens 4096] [--threads 2] [--out STATS.safetensors]
    Every text file is a domain and gives an equal share of the tokens: text is concatenated and cut.
Needs: scripts/requirements.txt, or transformers 4.57 with a tokenizers that it accepts.
"""

import argparse
import math
import pathlib
import resource
import time

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModel
from transformers.utils import logging

import experts

FUSED = int(transformers.__version__.split(".")[0]) >= 5


class Collector:
    """Sums of one domain-indexed calibration; `domain` is the domain of the current batch."""

    def __init__(self, model, domains):
        self.domain, self.seen, self.hidden, self.middle = 0, [], [], None
        layers, hidden = len(model.layers), model.config.hidden_size
        blocks = [moe_block(layer) for layer in model.layers]
        self.experts = max(block.gate.weight.shape[0] for block in blocks if block is not None)

        def table(*shape):
            return torch.zeros(domains, *shape, dtype=torch.float64)

        moe = (layers, self.experts)
        routing = ("count", "gate", "gate_sq", "soft_gate")
        expert = ("norm", "norm_sq", "gated_norm", "gated_norm_sq", "max")
        self.tables = {"tokens": table(), "sequences": table()}
        self.tables |= {f"routing.{name}": table(*moe) for name in routing}
        self.tables |= {f"expert.{name}": table(*moe) for name in expert}
        self.tables |= {"routing.pairs": table(*moe, self.experts), "expert.output": table(*moe, hidden)}
        self.tables |= {"block.cos": table(layers, 3), "block.angle": table(layers, 3)}
        self.tables |= {"span.angle": table(layers + 1, layers + 1)}
        for index, layer in enumerate(model.layers):
            layer.post_attention_layernorm.register_forward_pre_hook(self.on_middle)
            layer.register_forward_hook(lambda _m, inputs, out, i=index: self.on_block(i, inputs, out))
            if blocks[index] is not None:
                self.watch(index, blocks[index])

    def add(self, name, layer, value):
        self.tables[name][self.domain, layer, : len(value)] += value

    def watch(self, index, block):
        if FUSED:
            block.gate.register_forward_hook(lambda _m, _i, out: self.on_router(index, out[0], out[1], out[2]))
            block.experts.on_output = self.on_expert
        else:
            renormalise, top_k = getattr(block, "norm_topk_prob", True), block.top_k

            def router(_module, _inputs, logits):
                gates, chosen = logits.softmax(-1).topk(top_k, dim=-1)
                self.on_router(index, logits, gates / gates.sum(-1, keepdim=True) if renormalise else gates, chosen)

            block.gate.register_forward_hook(router)
            for number, expert in enumerate(block.experts):
                expert.register_forward_hook(lambda _m, _i, out, e=number: self.on_expert(e, out))
        block.register_forward_hook(lambda *_: self.on_moe(index))

    def on_router(self, index, logits, gates, chosen):
        count = logits.shape[-1]
        routed = torch.zeros(logits.shape).scatter_(1, chosen, 1.0)
        self.add("routing.soft_gate", index, logits.softmax(-1).sum(0, dtype=torch.float64))
        self.tables["routing.pairs"][self.domain, index, :count, :count] += routed.T @ routed
        # Both layouts hand an expert its tokens slot by slot, so gates are sorted the same way.
        expert, order = chosen.T.flatten().sort(stable=True)
        gates = gates.T.flatten()[order].double()
        self.seen, self.routing = [], (expert, gates, count)
        by_expert = torch.zeros(2, count, dtype=torch.float64)
        by_expert.index_add_(1, expert, torch.stack((gates, gates**2)))
        self.add("routing.count", index, torch.bincount(expert, minlength=count))
        self.add("routing.gate", index, by_expert[0])
        self.add("routing.gate_sq", index, by_expert[1])

    def on_expert(self, expert, output):
        self.seen.append((expert, output.norm(dim=-1), output.abs().amax(), output.sum(0)))

    def on_moe(self, index):
        ids, norms, peaks, outputs = zip(*self.seen)
        expert, gates, count = self.routing
        norm, ids = torch.cat(norms).double(), torch.tensor(ids)
        gated = gates * norm
        sums = torch.zeros(4, count, dtype=torch.float64)
        sums.index_add_(1, expert, torch.stack((norm, norm**2, gated, gated**2)))
        for name, value in zip(("norm", "norm_sq", "gated_norm", "gated_norm_sq"), sums):
            self.add(f"expert.{name}", index, value)
        self.tables["expert.output"][self.domain, index].index_add_(0, ids, torch.stack(outputs).double())
        peak = self.tables["expert.max"][self.domain, index]
        peak[ids] = torch.maximum(peak[ids], torch.stack(peaks).double())

    def on_middle(self, _module, inputs):
        self.middle = inputs[0]

    def on_block(self, index, inputs, output):
        before, after = inputs[0], output[0] if isinstance(output, tuple) else output
        pairs = ((before, after), (before, self.middle), (self.middle, after))
        cosines = torch.stack([F.cosine_similarity(a, b, dim=-1) for a, b in pairs])
        self.add("block.cos", index, cosines.sum((1, 2), dtype=torch.float64))
        self.add("block.angle", index, angle(cosines[:, :, -1].double()).sum(1))
        self.hidden = [before[:, -1]] if index == 0 else self.hidden
        self.hidden.append(after[:, -1])

    def on_batch(self, batch):
        last = F.normalize(torch.stack(self.hidden, 1).double(), dim=-1)
        self.tables["span.angle"][self.domain] += angle(last @ last.mT).sum(0).triu(1)
        self.tables["tokens"][self.domain] += batch.numel()
        self.tables["sequences"][self.domain] += len(batch)


def angle(cosine):
    return cosine.clamp(-1, 1).arccos() / math.pi


def moe_block(layer):
    """The mixture-of-experts block of a decoder layer, None if it is dense."""
    block = getattr(layer, "mlp", None) or getattr(layer, "block_sparse_moe", None)
    return block if hasattr(block, "experts") else None


def load(path):
    options = {"dtype": torch.float32, "local_files_only": True, "attn_implementation": "sdpa"}
    if FUSED:
        experts.register()
        options["experts_implementation"] = "sorted"
    return AutoModel.from_pretrained(path, **options).eval()


def sequences(directory, files, tokens, length):
    """One tensor [n, length] of token ids per file, together at most `tokens`."""
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    rows = tokens // length // len(files)
    result = []
    for file in files:
        text = file.read_text(encoding="utf-8")[: rows * length * 8]  # a token is seldom over 8 characters
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        ids = ids[: min(rows, len(ids) // length) * length]
        result.append(torch.tensor(ids).view(-1, length))
    return result


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


@torch.inference_mode()
def calibrate(model, domains, batch_tokens):
    collector = Collector(model, len(domains))
    for collector.domain, ids in enumerate(domains):
        for batch in ids.split(max(1, batch_tokens // ids.shape[1])):
            model(input_ids=batch, use_cache=False)
            collector.on_batch(batch)
    return collector.tables


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("--text", nargs="+", type=pathlib.Path, required=True, metavar="FILE")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", metavar="STATS.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    domains = sequences(args.model, args.text, args.tokens, args.seq_len)

    logging.set_verbosity_error()  # the head is left over on purpose
    logging.disable_progress_bar()
    before = peak_megabytes()
    start = time.perf_counter()
    model = load(args.model)
    loaded = time.perf_counter()
    tables = calibrate(model, domains, args.batch_tokens)
    end = time.perf_counter()

    if args.out:
        save_file(tables, args.out)
    total = int(tables["tokens"].sum())
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads")
    print(f"{total} tokens in {len(domains)} domains, sequences of {args.seq_len}, {args.batch_tokens} tokens a batch")
    print(f"load {loaded - start:.2f} s, pass {end - loaded:.2f} s")
    print(f"{total / (end - loaded):.0f} tokens/s, {total / (end - start):.0f} tokens/s with loading")
    print(f"peak resident memory {peak_megabytes():.0f} MB ({before:.0f} MB before the model was loaded)")


if __name__ == "__main__":
    main()
