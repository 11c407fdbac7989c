#!/usr/bin/env python3
"""Whether what `--fit` chooses is on the Pareto front of everything that fits.

What: makes every plan of STATS for the demo model (or --model): types of weights × numbers of experts ×
    layers dropped (0 to 2), measures all of them on held-out text in one `eval`, asks `plan --fit` for the
    most experts that fit each BUDGET with each type and number of layers, and prints for each budget what
    `plan --fit` chose, the best of all that fit, and the difference of their losses with that of the text.
    Everything that fits is compared on the loss alone, as all of it has the same budget. Exit status 1 if
    another plan in the budget is better than the choice by more than --tolerance nats a token.
Usage: python scripts/fit_front.py demo.stats 170MB 145MB 135MB [--max-seq-len 2048]
           [--program target/release/mistralrs-prune] [--cache-dir DIR] [--eval-tokens 4096]
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TYPES = ["float", "q8_0", "q6k", "q5k", "q4k", "q3k", "q2k"]
DROPPED = [0, 1, 2]


def run(args, *command):
    done = subprocess.run([args.program, *command, "--quiet", *args.common], capture_output=True, text=True)
    if done.returncode:
        return None
    return done.stdout


def plan_of(args, *budget):
    text = run(args, "plan", args.stats, *args.model_args, *budget, "--json")
    return text and json.loads(text)


def counts(plan):
    """Layers dropped and experts kept, if all layers keep as many."""
    dropped = sum(layer["dropped"] for layer in plan["layers"])
    return dropped, max(plan["after"]["experts_per_layer"])


def every_plan(args, folder):
    """(type, layers dropped, experts kept) → file, of every plan there is."""
    made = {}
    for dropped in DROPPED:
        drop = ["--drop-layers", str(dropped)] if dropped else []
        for kept in range(args.experts, args.least - 1, -1):
            keep = ["--keep-experts", str(kept)]
            plan = plan_of(args, *keep, *drop)
            if plan is None:
                continue
            for name in TYPES:
                plan["weights"] = None if name == "float" else name
                path = folder / f"{name}.{dropped}.{kept}.plan.json"
                path.write_text(json.dumps(plan))
                made[name, dropped, kept] = path
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stats")
    parser.add_argument("budgets", metavar="BUDGET", nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--least", type=int, default=2, help="experts that the router needs")
    parser.add_argument("--max-seq-len", type=int, default=2048)
    parser.add_argument("--eval-tokens", type=int, default=4096)
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--program", default=str(ROOT / "target/release/mistralrs-prune"))
    parser.add_argument("--cache-dir")
    args = parser.parse_args()
    args.common = ["--cache-dir", args.cache_dir] if args.cache_dir else []
    args.model_args = ["-m", args.model] if args.model else []
    traffic = ["--max-seq-len", str(args.max_seq_len)]

    with tempfile.TemporaryDirectory() as folder:
        made = every_plan(args, pathlib.Path(folder))
        print(f"{len(made)} plans", flush=True)
        named = {path.name.removesuffix(".plan.json"): key for key, path in made.items()}
        given = [word for path in made.values() for word in ("--plan", str(path))]
        size = ["--eval-tokens", str(args.eval_tokens)]
        report = run(args, "eval", *args.model_args, *given, *size, "--json")
        if report is None:
            sys.exit("eval failed")
    loss = {}
    for variant in json.loads(report)["variants"]:
        change = variant["all"]["perplexity_change"]
        loss[named[variant["name"]]] = [
            math.log1p(change[key]) if change.get(key) is not None else math.nan for key in ("value", "low", "high")
        ]
    fine = True
    for budget in args.budgets:
        chosen = plan_of(args, "--fit", budget, *traffic)
        key = (chosen.get("weights") or "float", *counts(chosen))
        fits = {}
        for name in TYPES:
            for dropped in DROPPED:
                only = ["--fit", budget, "--fit-weights", name, "--drop-layers", str(dropped)]
                most = plan_of(args, *only, *traffic)
                if most is not None:
                    fits[name, dropped] = counts(most)[1]
        inside = {it: value for it, value in loss.items() if it[2] <= fits.get(it[:2], 0)}
        best = min(inside, key=lambda it: inside[it][0])
        better = sum(value[0] < inside[key][0] for value in inside.values())
        gap = inside[key][0] - inside[best][0]
        fine &= gap <= args.tolerance
        said = [f"{it[0]}, {it[2]} experts, {it[1]} layers dropped: {inside[it][0]:+.4f}" for it in (key, best)]
        interval = "[{:+.4f}, {:+.4f}]".format(*inside[key][1:])
        print(f"{budget}: {len(inside)} plans fit; chosen {said[0]} {interval}; best {said[1]}; {better} better, gap {gap:.4f} nats")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
