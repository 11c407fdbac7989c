#!/usr/bin/env python3
"""A pruned checkpoint in Hugging Face layout, compared with its masked original in transformers.

What: loads DIR (written by `mistralrs-prune prune --layout hf`; any family of routing.py) in
    transformers, with no tensor missing, left over or of another shape. With --reference and --plan it
    also loads the original, makes the experts the plan removes impossible to choose and skips the
    layers it drops; both must then give the same logits (float32) and tokenise alike. fp8 checkpoints
    are dequantised into the class first.
    Prints the largest absolute difference; exit status 1 if it exceeds the tolerance.
Usage: python scripts/check_hf.py DIR [--reference ORIGINAL_DIR --plan plan.json]
           [--text TEXT | --tokens FILE.safetensors] [--tolerance 1e-4]
Needs: scripts/requirements.txt.
"""

import argparse
import json
import pathlib
import re
import sys

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import observed

TEXT = (
    "Once upon a time there was a small river that wanted to see the sea.\n"
    "def area(width, height):\n    return width * height\n"
    "If 3 boxes hold 12 pencils each, there are 3 * 12 = 36 pencils.\n"
    "User: What is the capital of France?\nAssistant: Paris.\n"
)


def load_strictly(path):
    """The model, if the checkpoint holds exactly the tensors its configuration asks for.

    Multi-token-prediction blocks, stored as layers after the last, may be there: transformers reads none.
    """
    model, report = observed.load_with_report(path)
    count = len(observed.layers(model))
    blocks = getattr(observed.text_config(model), "num_nextn_predict_layers", None) or 0
    prediction = {str(layer) for layer in range(count, count + blocks)}
    for problem, names in report.items():
        wrong = sorted(name for name in map(str, names) if layer_number(name) not in prediction)
        if wrong:
            sys.exit(f"error: {path}: {problem.replace('_', ' ')}: {wrong[:8]}")
    return model


def layer_number(name):
    """The digits after `layers.` in a tensor name, None for a tensor of no layer."""
    match = re.search(r"\blayers\.(\d+)\.", name)
    return match and match[1]


def read_plan(path):
    """Kept experts by original layer, and the dropped layers."""
    layers = json.loads(path.read_text())["layers"]
    dropped = [layer["layer"] for layer in layers if layer["dropped"]]
    kept = {layer["layer"]: layer["kept"] for layer in layers if not layer["dropped"] and layer["kept"]}
    return kept, dropped


def encode(directory, text):
    return Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def describe(directory, model):
    counts = sorted(set(observed.experts_per_layer(model)) - {0})
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{directory}: {len(observed.layers(model))} layers, experts {counts}, {size:,} parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--reference", metavar="ORIGINAL_DIR", type=pathlib.Path)
    parser.add_argument("--plan", type=pathlib.Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", default=TEXT)
    source.add_argument("--tokens", metavar="FILE.safetensors", help="holds input_ids [S,T]")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    if (args.reference is None) != (args.plan is None):
        parser.error("--reference and --plan go together")
    disable_progress_bar()
    set_verbosity_error()

    if args.tokens:
        input_ids = load_file(args.tokens)["input_ids"]
    else:
        ids = encode(args.directory, args.text)
        if args.reference and encode(args.reference, args.text) != ids:
            sys.exit("error: the two directories tokenise the text differently")
        input_ids = torch.tensor([ids])

    pruned = load_strictly(args.directory)
    describe(args.directory, pruned)
    logits = observed.observe(pruned, input_ids).logits
    if not logits.isfinite().all():
        sys.exit("error: logits are not finite")
    if args.reference is None:
        print(f"loads; logits of {input_ids.numel()} tokens are finite")
        return

    original = observed.load(args.reference)
    describe(args.reference, original)
    kept, dropped = read_plan(args.plan)
    unmasked = observed.observe(original, input_ids).logits
    observed.mask_experts(original, kept)
    observed.drop_layers(original, dropped)
    expected = observed.observe(original, input_ids).logits
    difference = (logits - expected).abs().max().item()
    effect = (logits - unmasked).abs().max().item()
    verdict = "equal" if difference <= args.tolerance else "DIFFERENT"
    print(f"{input_ids.numel()} tokens; pruning moved logits by up to {effect:.3f}")
    print(f"pruned vs masked original: max abs difference {difference:.2e} (tolerance {args.tolerance:g}): {verdict}")
    sys.exit(difference > args.tolerance)


if __name__ == "__main__":
    main()
