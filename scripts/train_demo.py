#!/usr/bin/env python3
"""Trains a small MoE language model from text, the kind that models/demo/ holds.

What: trains a byte-level BPE tokenizer, then transformers' own model of a family (trainable.py) with
    next-token loss plus a load-balance loss per layer (Switch Transformers, arXiv 2101.03961, eq. 4), Muon
    for hidden matrices, AdamW for the rest and a warmup-stable-decay schedule, until a step or wall-clock
    budget is spent. Prints held-out loss per domain. Writes to OUT/:
      tokenizer.json, tokens/<domain>.<split>.npy    made once, kept; bring your own tokenizer.json if you like
      state.pt                                       to continue from after Ctrl-C or a crash (--resume)
      export/                                        bf16 checkpoint in Hugging Face layout
    The export is read back and its logits compared with the trained model's, rounded to bf16.
    On a GPU the forward pass runs in bf16 autocast, on a CPU in f32.
Usage: python scripts/train_demo.py OUT --data DATA --minutes 80
       python scripts/train_demo.py OUT --data DATA --steps 2000 --domains stories=1 python=2 --resume
       python scripts/train_demo.py OUT --data DATA --minutes 80 --family deepseek_v2 --experts 32 --top-k 4
    DATA holds <domain>/train.txt and <domain>/valid.txt, documents separated by a line
    `<|endoftext|>`. Documents that begin with `User: ` become chat turns of the model's template.
Needs: scripts/requirements.txt.
"""

import argparse
import pathlib
import re
import signal
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.utils.logging import disable_progress_bar

import layout
from muon import Muon
from trainable import BALANCE_WEIGHT, FAMILIES, Trainable

WARMUP_STEPS = 50
DECAY_FROM = 0.5  # share of the budget after which the learning rate falls linearly
FINAL_RATE = 0.02
CLIP_NORM = 1.0
MUON_RATE = 2.5  # relative to AdamW's


# --- text -----------------------------------------------------------------------------------------


def documents(path):
    parts = path.read_text(encoding="utf-8").split(f"{layout.SPECIAL_TOKENS[0]}\n")
    return [as_chat(part.strip()) for part in parts if part.strip()]


def as_chat(document):
    """`User: …` / `Assistant: …` turns in the model's own template; other documents unchanged."""
    if not document.startswith("User: "):
        return document
    turns = re.split(r"^(User|Assistant): ?", document, flags=re.MULTILINE)[1:]
    _, start, end = layout.SPECIAL_TOKENS
    return "".join(f"{start}{role.lower()}\n{text.strip()}{end}\n" for role, text in zip(turns[::2], turns[1::2]))


def train_tokenizer(path, data, domains, vocab, sample=2_000_000):
    """Byte-level BPE with single digits, on up to `sample` characters of every domain."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=layout.SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts():
        for domain in domains:
            left = sample
            for document in documents(data / domain / "train.txt"):
                left -= len(document)
                if left < 0:
                    break
                yield document

    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.save(str(path))


def token_stream(out, data, domain, split, tokenizer):
    """Token ids of all documents of a domain, each followed by the end-of-text token; memory-mapped."""
    path = out / "tokens" / f"{domain}.{split}.npy"
    if not path.exists():
        ids = []
        docs = documents(data / domain / f"{split}.txt")
        for first in range(0, len(docs), 1000):
            for encoding in tokenizer.encode_batch(docs[first : first + 1000]):
                ids += [*encoding.ids, layout.END_OF_TEXT]
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.array(ids, dtype=np.uint16))
    return np.load(path, mmap_mode="r")


def batch(streams, weights, size, length, seed, step):
    """Windows of length + 1 tokens at random places; a function of (seed, step), so resuming is exact."""
    rng = np.random.default_rng((seed, step))
    rows = []
    for domain in rng.choice(len(streams), size, p=weights):
        start = rng.integers(0, len(streams[domain]) - length)
        rows.append(streams[domain][start : start + length + 1].astype(np.int64))
    return torch.from_numpy(np.stack(rows))


# --- model ----------------------------------------------------------------------------------------


def next_token_loss(trainable, windows):
    logits = trainable.logits(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.inference_mode()
def held_out(trainable, streams, names, length, device, autocast, tokens):
    """Mean loss in nats per token on the first `tokens` held-out tokens of every domain."""
    losses = {}
    for name, stream in zip(names, streams):
        rows = max(1, min(tokens, len(stream) - 1) // length)
        ids = torch.from_numpy(stream[: rows * length + 1].astype(np.int64))
        windows = ids.unfold(0, length + 1, length)
        total = 0.0
        for part in windows.split(16):
            with autocast():
                total += next_token_loss(trainable, part.to(device)).item() * len(part)
        losses[name] = total / len(windows)
    return losses


def export(model, config, out):
    """bf16 checkpoint in Hugging Face layout; returns the largest logit difference after reading it back."""
    rounded = type(model)(model.config).eval()
    rounded.load_state_dict({k: v.to("cpu", torch.bfloat16).float() for k, v in model.state_dict().items()})
    ids = torch.arange(64)[None] * 37 % config["vocab_size"]
    with torch.inference_mode():
        expected = rounded(ids).logits
    rounded.to(torch.bfloat16).save_pretrained(out / "export")
    layout.write_json(out / "export" / "config.json", config)
    layout.write_json(out / "export" / "generation_config.json", {
        "bos_token_id": layout.END_OF_TEXT, "eos_token_id": [layout.END_OF_TURN, layout.END_OF_TEXT],
        "pad_token_id": layout.END_OF_TEXT, "do_sample": True, "temperature": 0.8, "top_p": 0.95,
    })  # fmt: skip
    layout.write_tokenizer_config(out / "export", config["max_position_embeddings"])
    (out / "export" / "tokenizer.json").write_bytes((out / "tokenizer.json").read_bytes())
    read_back = type(model).from_pretrained(out / "export", dtype=torch.float32).eval()
    with torch.inference_mode():
        return (read_back(ids).logits - expected).abs().max().item()


# --- training -------------------------------------------------------------------------------------


def optimizers(model, rate):
    """Muon for matrices between hidden states, AdamW for embeddings, routers and vectors."""
    hidden, matrices, vectors = [], [], []
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            vectors.append(weight)
        elif "embed" in name or "lm_head" in name or name.endswith("gate.weight"):
            matrices.append(weight)
        else:
            hidden.append(weight)
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return Muon(hidden, lr=MUON_RATE * rate), torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def rate_factor(step, progress):
    """Warmup, then constant, then linear decay over the rest of the budget."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = min(1.0, (1 - progress) / (1 - DECAY_FROM))
    return warmup * max(FINAL_RATE, decay)


def save_state(path, **state):
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--domains", nargs="+", default=["stories=14", "wiki=11", "textbook=11", "python=21",
                        "math=10", "math_synth=10", "instruct=12", "dialog=11"], metavar="NAME=WEIGHT")  # fmt: skip
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="wall-clock budget of training")
    budget.add_argument("--steps", type=int)
    parser.add_argument("--resume", action="store_true", help="continue from OUT/state.pt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=FAMILIES, default="qwen3_moe")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--intermediate", type=int, default=96, help="width of an expert")
    parser.add_argument("--shared", type=int, default=1, help="shared experts, in families that have them")
    parser.add_argument("--scaling", type=float, default=1.0, help="factor on gate values, in families that have it")
    parser.add_argument("--batch", type=int, default=32, help="sequences per step")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--log-every", type=int, default=20, metavar="STEPS")
    parser.add_argument("--save-every", type=float, default=10, metavar="MINUTES")
    args = parser.parse_args()
    if args.heads % args.kv_heads:
        parser.error("--heads must be a multiple of --kv-heads")
    if args.vocab > 65536:
        parser.error("--vocab must fit 16 bits")
    return args


def main():
    args = arguments()
    disable_progress_bar()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    names, weights = zip(*((name, float(weight)) for name, weight in (d.split("=") for d in args.domains)))
    weights = np.array(weights) / sum(weights)

    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "tokenizer.json").exists():
        train_tokenizer(args.out / "tokenizer.json", args.data, names, args.vocab)
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    train, valid = ([token_stream(args.out, args.data, n, s, tokenizer) for n in names] for s in ("train", "valid"))
    print(f"training tokens {sum(map(len, train)):,}: {dict(zip(names, map(len, train)))}", flush=True)

    config = FAMILIES[args.family](args, tokenizer.get_vocab_size())
    trainable = Trainable(config)
    model = trainable.model.to(args.device)
    both = optimizers(model, args.rate)
    for group in (group for one in both for group in one.param_groups):
        group["initial_lr"] = group["lr"]
    step, elapsed = 0, 0.0
    if args.resume:
        state = torch.load(args.out / "state.pt", map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        for one, saved_state in zip(both, state["optimizers"]):
            one.load_state_dict(saved_state)
        step, elapsed = state["step"], state["elapsed"]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {args.device}, from step {step}", flush=True)

    def autocast():
        return torch.autocast("cuda", torch.bfloat16, enabled=args.device.startswith("cuda"))

    def save():
        save_state(args.out / "state.pt", model=model.state_dict(), step=step, elapsed=elapsed,
                   optimizers=[one.state_dict() for one in both])  # fmt: skip

    def evaluate(tokens):
        losses = held_out(trainable, valid, names, args.seq_len, args.device, autocast, tokens)
        print("held-out loss: " + ", ".join(f"{n} {v:.3f}" for n, v in losses.items()), flush=True)

    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    begun, saved = time.monotonic() - elapsed, time.monotonic()
    while not stop:
        elapsed = time.monotonic() - begun
        progress = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        if progress >= 1:
            break
        for group in (group for one in both for group in one.param_groups):
            group["lr"] = group["initial_lr"] * rate_factor(step, progress)
        windows = batch(train, weights, args.batch, args.seq_len, args.seed, step).to(args.device)
        with autocast():
            loss = next_token_loss(trainable, windows)
            balance = trainable.balance_loss()
        (loss + BALANCE_WEIGHT[trainable.kind] * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        for one in both:
            one.step()
        trainable.balance_biases()
        model.zero_grad(set_to_none=True)
        step += 1
        if step % args.log_every == 0:
            speed = step * args.batch * args.seq_len / (time.monotonic() - begun)
            print(f"step {step} loss {loss.item():.3f} balance {balance.item():.3f} "
                  f"{speed:.0f} tokens/s, {progress:.0%} of the budget", flush=True)  # fmt: skip
        if time.monotonic() - saved > 60 * args.save_every:
            save()
            evaluate(tokens=16_384)
            saved = time.monotonic()
    save()
    if stop:
        print(f"stopped at step {step}; continue with --resume", flush=True)
        return
    print(f"export read back: logits differ by at most {export(model, config, args.out):.1e}", flush=True)
    evaluate(tokens=65_536)


if __name__ == "__main__":
    main()
