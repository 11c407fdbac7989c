#!/usr/bin/env python3
"""A pruned GGUF in llama.cpp, compared with the same plan's checkpoint in transformers and in our engine.

What: calibrates MODEL, plans, and prunes it twice with the same plan: `--layout gguf` and `--layout hf`.
    llama.cpp loads the first and must tokenise held-out text as tokenizer.json does; its logits of every
    token are compared with those that transformers computes (float32) for the second, and its
    log-probabilities of the text with those of `mistralrs-prune serve`. With --weights the reference
    has the weights that the GGUF holds, dequantised, so what is compared is the arithmetic; how far
    they are from the original's is printed too. Then llama.cpp answers a question.
    Prints the largest difference of a logit, the root mean square of differences over that of the
    reference's logits around their mean, and how often both have the same best token. Exit status 1 if
    the second exceeds the tolerance: 1e-4 for f32; 0.05 for other types, whose products llama.cpp takes
    with activations rounded to the type (tiny random models need more: --tolerance).
    With --quantiser the source is a GGUF file itself: MODEL as llama.cpp's own quantiser writes it. Then
    every block of the pruned file must be one of the source's, and every key but what pruning changes.
    With --tokenizer alone: writes a model of one layer with that tokenizer and compares token ids.
Usage: python scripts/check_gguf.py MODEL [--experts 0.5] [--drop-layers 0] [--f32] [--weights q8_0]
           [--quantiser Q4_K_M] [--text FILE] [--tokens 512] [--program target/release/mistralrs-prune]
       python scripts/check_gguf.py --tokenizer tokenizer.json --text FILE...
Needs: scripts/requirements.txt and scripts/requirements-gguf.txt.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

import gguf
import llama_cpp
import numpy
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import observed
from check_lm_eval import served

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What llama.cpp computes with activations as they are.
EXACT = {"F32"}


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, arguments))}\n{done.stderr}")


def widened(source, target):
    """A copy of a checkpoint with every weight in f32."""
    shutil.copytree(source, target)
    for path in target.glob("*.safetensors"):
        save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path)
    config = json.loads((target / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    (target / "config.json").write_text(json.dumps(config))


def written(args, source, folder, name, tokens, how, weights=(), hf=False):
    """The plan that the flags `how` give, and the GGUF file of it; with `hf`, also a directory for transformers."""
    stats, plan = folder / f"{name}.stats", folder / f"{name}.json"
    common = ["-m", source, "--cpu", "--cache-dir", folder / "cache"]
    run(args.program, "calibrate", *common, "--calibration-tokens", tokens, "-o", stats)
    run(args.program, "plan", *common, stats, *how, "-o", plan)
    prune = ["prune", *common, "--plan", plan, "--no-eval"]
    if hf:
        run(args.program, *prune, "--layout", "hf", "-o", folder / "hf")
    run(args.program, *prune, "--layout", "gguf", *weights, "-o", folder / name)
    [file] = (folder / name).glob("*.gguf")
    return plan, file


def asked(args):
    """The flags of the plan that is compared."""
    return ["--prune-experts", args.experts, "--drop-layers", args.drop_layers]


def pruned(args, source, folder):
    """The GGUF file, and the directory that transformers loads, of one plan."""
    weights = ["--gguf-weights", args.weights] if args.weights else []
    _, file = written(args, source, folder, "gguf", 4096, asked(args), weights, hf=True)
    return file, folder / "hf"


def quantised(args, source, folder):
    """All of the model as llama.cpp's quantiser writes it."""
    _, whole = written(args, source, folder, "whole", 1024, ["--prune-experts", 0])
    target = folder / f"{args.model.name}-{args.quantiser}.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{args.quantiser}")
    options.nthread = 2
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(target).encode(), options) != 0:
        sys.exit("error: llama.cpp does not quantise the model")
    return target


def cut(args, source, folder):
    """A GGUF file pruned to one, each block of which must be the source's."""
    plan, file = written(args, source, folder, "cut", 4096, asked(args))
    layers = [layer for layer in json.loads(plan.read_text())["layers"] if not layer["dropped"]]
    whole = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    changed = gguf.GGUFReader(file)
    for tensor in changed.tensors:
        block, _, inside = tensor.name.removeprefix("blk.").partition(".")
        if not tensor.name.startswith("blk."):
            expected = whole[tensor.name]
            rows = expected.data
        else:
            layer = layers[int(block)]
            expected = whole[f"blk.{layer['layer']}.{inside}"]
            chosen = "_exps." in inside or inside.startswith(("ffn_gate_inp.", "exp_probs_b"))
            rows = expected.data[layer["kept"]] if chosen else expected.data
        if tensor.tensor_type != expected.tensor_type or not numpy.array_equal(tensor.data, rows):
            sys.exit(f"error: {tensor.name} is not what the source has there")
    fields = {name for name in gguf.GGUFReader(source).fields if not name.startswith("GGUF.")}
    if fields != {name for name in changed.fields if not name.startswith("GGUF.")}:
        sys.exit("error: the pruned file has other keys")
    print(f"{source.name}: {len(whole)} tensors, {source.stat().st_size:,} bytes; every block of the pruned file is one of them")
    return file


def load(file, context, vocab_only=False):
    return llama_cpp.Llama(
        str(file),
        n_ctx=context,
        n_batch=context,
        n_ubatch=context,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
        n_threads=2,
        vocab_only=vocab_only,
        verbose=False,
    )


def same_tokens(llama, tokenizer, texts):
    """The ids of all texts, which both must agree on."""
    ids = []
    for text in texts:
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
        if ours != theirs:
            at = next(i for i, pair in enumerate(zip([*ours, None], [*theirs, None])) if pair[0] != pair[1])
            sys.exit(f"error: token {at}: ours {ours[at:at + 5]}, llama.cpp's {theirs[at:at + 5]}")
        ids += ours
    return ids


def logits_of(llama, windows):
    found = []
    for window in windows:
        llama.reset()
        llama.eval(window)
        found.append(torch.tensor(llama.scores[: len(window)].copy()))
    return torch.cat(found)


def dequantised(file, directory, target):
    """The checkpoint of `directory` with the numbers that `file` holds; the types it has them in.

    Rows of q and k that a file has in another order are found by trying both.
    """
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    numbers = {name: torch.tensor(gguf.dequantize(t.data, t.tensor_type)) for name, t in tensors.items()}
    shutil.copytree(directory, target)
    config = json.loads((directory / "config.json").read_text())
    architectures = {"Qwen3MoeForCausalLM": "QWEN3MOE", "MixtralForCausalLM": "LLAMA"}
    architectures |= {"Qwen2MoeForCausalLM": "QWEN2MOE", "OlmoeForCausalLM": "OLMOE"}
    architectures |= {"MiniMaxM2ForCausalLM": "MINIMAXM2", "Glm4MoeForCausalLM": "GLM4_MOE"}
    architecture = gguf.MODEL_ARCH[architectures[config["architectures"][0]]]
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    worst = 0.0
    for path in target.glob("*.safetensors"):
        weights = load_file(path)
        for name, old in weights.items():
            stem, _, suffix = name.rpartition(".")
            expert = None
            if ".experts." in stem:
                before, _, after = stem.partition(".experts.")
                index, _, matrix = after.partition(".")
                expert, stem = int(index), f"{before}.experts.{matrix}"
                if "block_sparse_moe" in before:
                    stem = f"layers.{before.split('.')[2]}.feed_forward.experts.{matrix}"
            if suffix == "e_score_correction_bias":
                stem, suffix = name.removesuffix("_bias"), "bias"
            theirs = names.get_name(stem)
            new = numbers[f"{theirs}.{suffix}"]
            new = (new if expert is None else new[expert]).reshape(old.shape)
            error = (new - old.float()).norm() / old.float().norm()
            if architecture == gguf.MODEL_ARCH.LLAMA and (".q_proj." in name or ".k_proj." in name):
                heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
                new = new.reshape(heads, -1, 2, *old.shape[1:]).transpose(1, 2).reshape(old.shape)
                error = (new - old.float()).norm() / old.float().norm()
            worst = max(worst, error.item())
            weights[name] = new.float().contiguous()
        save_file(weights, path)
    config["dtype"] = "float32"
    (target / "config.json").write_text(json.dumps(config))
    return {t.tensor_type.name for t in tensors.values()}, worst


def compare(found, expected, what):
    """The root mean square of differences over that of the expected logits around their mean."""
    largest = (found - expected).abs().max().item()
    spread = (expected - expected.mean(-1, keepdim=True)).pow(2).mean().sqrt()
    relative = ((found - expected).pow(2).mean().sqrt() / spread).item()
    agreement = (found.argmax(-1) == expected.argmax(-1)).double().mean().item()
    print(f"  {what}: max abs difference {largest:.2e}, relative {relative:.2e}, same best token {agreement:.2%}")
    return relative


def of_our_engine(program, directory, windows):
    """The log-probability that `mistralrs-prune serve` gives every token but the first of each window."""
    found = []
    with served(program, str(directory), []) as (name, url):
        for window in windows:
            body = {"model": name, "prompt": window, "echo": True, "logprobs": 1, "max_tokens": 0}
            request = urllib.request.Request(
                f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request) as response:
                [choice] = json.load(response)["choices"]
            found += choice["logprobs"]["token_logprobs"][1:]
    return torch.tensor(found)


def log_probabilities(logits, windows):
    logits = logits.log_softmax(-1).split([len(window) for window in windows])
    return torch.cat([rows[:-1].gather(1, torch.tensor(w[1:])[:, None])[:, 0] for rows, w in zip(logits, windows)])


def check_model(args, texts, folder):
    source = args.model
    if args.f32:
        source = folder / args.model.name
        widened(args.model, source)
    file, directory = pruned(args, source, folder)
    if args.quantiser:
        file = cut(args, quantised(args, source, folder), folder)
    context = 256
    llama = load(file, context + 64)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    ids = same_tokens(llama, tokenizer, texts)
    windows = [ids[at : at + context] for at in range(0, min(len(ids), args.tokens), context)]
    windows = [window for window in windows if len(window) > 1]
    found = logits_of(llama, windows)
    types, error = dequantised(file, directory, folder / "same")
    whole = args.model.name + (" in f32" if args.f32 else "")
    print(f"{whole}, {args.experts:g} of experts and {args.drop_layers} layers removed: {file.stat().st_size:,} bytes,")
    differ = "" if args.quantiser else f"; weights differ from the checkpoint's by up to {error:.1e} of their norm"
    print(f"  {', '.join(sorted(types))}{differ}")
    print(f"  {len(ids)} tokens of held-out text tokenised alike; logits of {sum(map(len, windows))}:")
    reference = observed.load(folder / "same")
    expected = torch.cat([observed.observe(reference, torch.tensor([w])).logits[0] for w in windows])
    # llama.cpp has a row for every token of its vocabulary, which the embedding may exceed.
    relative = compare(found, expected.float(), "llama.cpp and transformers")
    if not (args.weights or args.quantiser):
        theirs = log_probabilities(found, windows)
        try:
            ours = of_our_engine(args.program, directory, windows)
            largest, mean = (ours - theirs).abs().max().item(), (ours - theirs).abs().mean().item()
            print(f"  llama.cpp and our engine: log-probabilities differ by up to {largest:.2e}, {mean:.2e} on average")
        except SystemExit as refusal:
            print(f"  our engine does not take it: {str(refusal).splitlines()[-1]}")
    llama.reset()
    try:
        answer = llama.create_chat_completion(
            [{"role": "user", "content": "Tell me a story about a river."}], max_tokens=40, temperature=0.0
        )
        print(f"  it answers: {answer['choices'][0]['message']['content']!r}")
    except ValueError as problem:
        print(f"  it has no chat template: {problem}")
    tolerance = args.tolerance or (1e-4 if types <= EXACT else 0.05)
    print(f"  {'equal' if relative <= tolerance else 'DIFFERENT'} within {tolerance:g}")
    return relative > tolerance


def check_tokenizer(args, texts, folder):
    """A model of one layer with the tokenizer, written as GGUF."""
    source = folder / "one-layer"
    source.mkdir()
    shutil.copy(args.tokenizer, source / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    hidden, width, experts, vocab = 32, 32, 4, max(tokenizer.get_vocab().values()) + 1
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "moe_intermediate_size": width,
        "num_experts": experts,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "vocab_size": vocab,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
    }
    (source / "config.json").write_text(json.dumps(config))
    layer = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    shapes |= {layer + f"{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
    shapes |= {layer + f"self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
    shapes |= {layer + f"self_attn.{name}_norm.weight": (32,) for name in "qk"}
    shapes[layer + "mlp.gate.weight"] = (experts, hidden)
    for expert in range(experts):
        for name in ("gate", "up", "down"):
            shapes[layer + f"mlp.experts.{expert}.{name}_proj.weight"] = (width, hidden)
    random = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(shape, generator=random) for name, shape in shapes.items()}, source / "model.safetensors")
    args.experts, args.drop_layers, args.weights = 0.5, 0, None
    file, _ = pruned(args, source, folder)
    llama = load(file, 512, vocab_only=True)
    ids = same_tokens(llama, tokenizer, texts)
    print(f"{args.tokenizer.name}: {vocab} tokens; {len(ids)} tokens of text alike in llama.cpp")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", nargs="?", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    parser.add_argument("--experts", type=float, default=0.5, help="fraction of experts that goes")
    parser.add_argument("--drop-layers", type=int, default=0)
    parser.add_argument("--f32", action="store_true", help="widen the model's weights to f32 first")
    parser.add_argument("--weights", help="as --gguf-weights of prune")
    parser.add_argument("--quantiser", help="a type of llama.cpp's quantiser, for the source: Q4_K_M, Q8_0")
    parser.add_argument("--text", nargs="+", type=pathlib.Path, default=[ROOT / "models/demo/held-out/stories.txt"])
    parser.add_argument("--tokens", type=int, default=512, help="tokens whose logits are compared")
    parser.add_argument("--tolerance", type=float)
    parser.add_argument("--program", default=str(ROOT / "target/release/mistralrs-prune"))
    args = parser.parse_args()
    if (args.model is None) == (args.tokenizer is None):
        parser.error("either MODEL or --tokenizer")
    disable_progress_bar()
    set_verbosity_error()
    texts = [path.read_text() for path in args.text]
    with tempfile.TemporaryDirectory() as folder:
        check = check_model if args.model else check_tokenizer
        sys.exit(check(args, texts, pathlib.Path(folder)))


if __name__ == "__main__":
    main()
