#!/usr/bin/env python3
"""Our evaluator against EleutherAI's lm-evaluation-harness, item by item.

What: serves a checkpoint with `mistralrs-prune serve`, has the harness ask it (`local-completions`:
    `echo` with `logprobs`, prompts as token ids) about the first items of each FILE, runs
    `mistralrs-prune eval --task` on the same items, and compares the log-likelihood of the known
    answer, `acc` and `acc_norm` of every item. Prints one line per file; exit status 1 if a
    log-likelihood differs by more than --tolerance (nats, plus what our report rounds away), or if an
    item is right here and wrong there though its two best choices are further apart than that.
    The harness reads tasks as YAML and items as JSON Lines, both written to a temporary folder;
    nothing is fetched.
Items: JSON Lines of one kind a file: `query`, `choices`, `gold` (ARC, PIQA, HellaSwag); `contexts`,
    `continuation`, `gold` (WinoGrande); `context`, `continuation` (LAMBADA).
Usage: python scripts/check_lm_eval.py FILE.jsonl... [--model DIR] [--items 50]
           [--backend native|engine] [--program target/release/mistralrs-prune]
Needs: scripts/requirements-lm-eval.txt, in an environment of its own.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# How the harness is to ask about each kind of item, and what it measures.
CHOICES = """\
output_type: multiple_choice
doc_to_text: query
doc_to_choice: choices
doc_to_target: gold
"""
CONTEXTS = """\
output_type: multiple_choice
doc_to_text: gold
doc_to_choice: contexts
doc_to_target: continuation
"""
LAST_WORD = """\
output_type: loglikelihood
doc_to_text: context
doc_to_target: continuation
"""


def metrics(*names):
    lines = [
        f"  - metric: {name}\n    aggregation: {how}\n    higher_is_better: {better}\n"
        for name, how, better in names
    ]
    return "metric_list:\n" + "".join(lines)


ACC = ("acc", "mean", "true")
ACC_NORM = ("acc_norm", "mean", "true")
PERPLEXITY = ("perplexity", "perplexity", "false")


class Kind:
    """Items of one shape: their harness task, and the log-likelihood that our report implies."""

    def __init__(self, task, fields, known, bits):
        self.task, self.fields, self.known, self.bits = task, fields, known, bits

    def gold(self, item):
        return item.get("gold", 0)

    def log_likelihood(self, item, outcomes, index):
        """Of the known answer, in nats, and what rounding to 6 digits may have changed."""
        if not self.bits:
            return -outcomes["perplexity"][index], 1e-6
        scale = math.log(2) * len((" " + self.known(item)).encode())
        return -outcomes["gold_bits_per_byte"][index] * scale, 1e-6 * scale


def kind_of(item):
    if "choices" in item:
        task = CHOICES + metrics(ACC, ACC_NORM)
        return Kind(task, ("query", "choices", "gold"), lambda it: it["choices"][it["gold"]], True)
    if "contexts" in item:
        task = CONTEXTS + metrics(ACC)
        return Kind(task, ("contexts", "continuation", "gold"), lambda it: it["continuation"].strip(), True)
    task = LAST_WORD + metrics(PERPLEXITY, ACC)
    return Kind(task, ("context", "continuation"), lambda it: it["continuation"], False)


def harness_item(kind, item):
    """As lm-evaluation-harness' own tasks give it to the model."""
    item = {field: item[field] for field in kind.fields}
    if "contexts" in item:
        item["continuation"] = item["continuation"].strip()
    elif "context" in item and not item["continuation"][0].isspace():
        item["continuation"] = " " + item["continuation"]
    return item


@contextlib.contextmanager
def served(program, model, log):
    """The address of a server of `model`, which ends with the block."""
    # Every token of a prompt is to be computed, so no prefix is kept.
    command = [program, "serve", "-m", model, "--port", "0", "--prefix-cache-n", "0", "--cpu"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr:
            log.append(line)
            if found := re.search(r"Serving\s+(\S+) at (http\S+)", line):
                yield found[1], found[2]
                return
        sys.exit("error: the server did not start:\n" + "".join(log))
    finally:
        server.send_signal(signal.SIGINT)
        server.stderr.read()
        server.wait()


def ask_harness(folder, names, model, name, url):
    """The samples of every task: task -> item -> what the harness logged."""
    arguments = f"model={name},base_url={url}/v1/completions,tokenizer={model},tokenizer_backend=huggingface"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions"]
    command += ["--model_args", arguments + ",tokenized_requests=True,num_concurrent=1,max_retries=1"]
    command += ["--include_path", str(folder), "--tasks", ",".join(names), "--num_fewshot", "0"]
    command += ["--log_samples", "--output_path", str(folder / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment = {**os.environ, **offline, "HF_HOME": str(folder / "hf"), "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: lm_eval failed:\n{done.stderr[-4000:]}")
    samples = {}
    for task in names:
        [path] = (folder / "out").rglob(f"samples_{task}_*.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        samples[task] = sorted(lines, key=lambda sample: sample["doc_id"])
    return samples


def ask_ours(program, model, files, items, backend, folder):
    """The outcomes of every task: task -> metric -> one number per item."""
    output = folder / "ours.json"
    command = [program, "eval", "-m", model, "--cpu", "--no-text", "--quiet", "-o", str(output)]
    command += ["--task-limit", str(items), "--backend", backend]
    for task, path in files.items():
        command += ["--task", f"{task}={path}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = json.loads(output.read_text())
    return {
        task["name"]: {name: metric["outcomes"] for name, metric in task["models"][0]["metrics"].items()}
        for task in report["tasks"]
    }


def answers(sample):
    """Log-likelihood and whether it is greedy, of every choice."""
    found = [value[0] if isinstance(value[0], list) else value for value in sample["resps"]]
    return [(float(value), str(greedy) == "True") for value, greedy in found]


def compare(task, kind, items, theirs, ours, tolerance):
    """Prints one line; how many items differ by more than they may."""
    worst, bad, different = 0.0, [], 0
    shared = [metric for metric in ("acc", "acc_norm") if metric in ours]
    for index, (item, sample) in enumerate(zip(items, theirs, strict=True)):
        log_likelihoods = [value for value, _ in answers(sample)]
        value, rounding = kind.log_likelihood(item, ours, index)
        difference = abs(value - log_likelihoods[kind.gold(item)])
        worst = max(worst, difference)
        if difference > tolerance + rounding:
            bad.append(f"item {index}: {value:.6f} nats here, {log_likelihoods[kind.gold(item)]:.6f} there")
        for metric in shared:
            if ours[metric][index] != sample[metric]:
                different += 1
                if not tied(metric, item, log_likelihoods, tolerance):
                    bad.append(f"item {index}: {metric} {ours[metric][index]} here, {sample[metric]} there")
    means = ", ".join(
        f"{metric} {sum(ours[metric]) / len(items):.4f} / {sum(s[metric] for s in theirs) / len(items):.4f}"
        for metric in shared
    )
    print(f"{task:<24} {len(items)} items   {means}   worst difference {worst:.1e} nats   ties {different}")
    for line in bad[:5]:
        print(f"  {line}", file=sys.stderr)
    return len(bad)


def tied(metric, item, log_likelihoods, tolerance):
    """Whether the two best choices are closer than log-likelihoods are known."""
    if len(log_likelihoods) < 2:
        return False
    if metric == "acc_norm":
        lengths = [len(choice) for choice in item["choices"]]
        log_likelihoods = [value / length for value, length in zip(log_likelihoods, lengths)]
    best = sorted(log_likelihoods)[-2:]
    return best[1] - best[0] <= 2 * tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE.jsonl")
    parser.add_argument("--model", default=str(ROOT / "models/demo"), metavar="DIR")
    parser.add_argument("--items", type=int, default=50, help="the first N of every file")
    parser.add_argument("--backend", choices=("native", "engine"), default="native", help="what runs ours")
    parser.add_argument("--program", default=str(ROOT / "target/release/mistralrs-prune"))
    parser.add_argument("--tolerance", type=float, default=1e-3, help="nats")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files, kinds, items = {}, {}, {}
        for path in args.files:
            task = "ours_" + re.sub(r"\W", "_", path.stem)
            with path.open() as lines:
                items[task] = [json.loads(line) for line, _ in zip(lines, range(args.items))]
            kind = kinds[task] = kind_of(items[task][0])
            records = [json.dumps(harness_item(kind, item)) for item in items[task]]
            data = folder / f"{task}.jsonl"
            data.write_text("\n".join(records) + "\n")
            source = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\ntest_split: test\n"
            (folder / f"{task}.yaml").write_text(f"task: {task}\n{source}{kind.task}")
            files[task] = path

        with served(args.program, args.model, []) as (name, url):
            theirs = ask_harness(folder, list(files), args.model, name, url)
        ours = ask_ours(args.program, args.model, files, args.items, args.backend, folder)
        bad = sum(
            compare(task, kinds[task], items[task], theirs[task], ours[task], args.tolerance) for task in files
        )
    if bad:
        sys.exit(f"error: {bad} items differ by more than {args.tolerance} nats")


if __name__ == "__main__":
    main()
