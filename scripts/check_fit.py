#!/usr/bin/env python3
"""Whether a served model takes the memory that `--fit` says it takes.

What: for each BUDGET, starts `mistralrs-prune serve --fit BUDGET`, asks for what was predicted
    (`/v1/pruning`), then sends requests of --max-seq-len tokens (prompt and answer) from --clients clients
    at the same time, several times over, and reads the largest resident set of the process (`VmHWM`, reset
    when the model is loaded) and the largest part of it that belongs to no file (`RssAnon`, sampled).
    Prints one line per budget. Exit status 1 if a resident set is larger than its budget or more than
    --tolerance from the prediction.
Usage: python scripts/check_fit.py 170MB 145MB 135MB [--model DIR] [--max-seq-len 2048] [--clients 4]
           [--program target/release/mistralrs-prune] [--cache-dir DIR] [-- more arguments of serve]
Needs: Linux, for /proc; nothing beside Python.
"""

import argparse
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORDS = "the cat sat on a mat and she said that it was".split()
ANSWER = 16  # tokens that are generated


def call(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=1800) as answer:
        return json.load(answer)


def resident(pid):
    """Megabytes of /proc/PID/status by field."""
    fields = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "VmRSS", "RssAnon", "RssFile"):
            fields[name] = int(value.split()[0]) * 1024 / 1e6
    return fields


class Watch:
    """The largest RssAnon of a process while this is open."""

    def __init__(self, pid):
        self.pid, self.anonymous, self.over = pid, 0.0, False

    def look(self):
        while not self.over:
            self.anonymous = max(self.anonymous, resident(self.pid)["RssAnon"])
            time.sleep(0.005)

    def __enter__(self):
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()


def ask(address, words, seed, tokens):
    prompt = " ".join(WORDS[(i * 7 + seed * 3) % len(WORDS)] for i in range(words))
    body = {"model": "default", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    return call(address, "/v1/completions", body)["usage"]


def words_for(address, tokens):
    """Words of a prompt of nearly so many tokens, and not more."""
    words = tokens - 4
    while (found := ask(address, words, 0, 1)["prompt_tokens"]) > tokens - 4:
        words -= max(1, (found - tokens + 4) // 2)
    return words


def load(address, pid, clients, tokens, rounds):
    """The largest resident set and the largest anonymous part, in megabytes."""
    words = words_for(address, tokens - ANSWER)
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets VmHWM
    used, failed = [], []

    def client(seed):
        try:
            used.extend(ask(address, words, seed, ANSWER)["prompt_tokens"] for _ in range(rounds))
        except urllib.error.URLError as error:
            failed.append(error)

    with Watch(pid) as watch:
        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        sys.exit(f"a request failed: {failed[0]}")
    return resident(pid)["VmHWM"], watch.anonymous, min(used)


def wait_for(address, process):
    while True:
        try:
            return call(address, "/v1/pruning")
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                sys.exit("the server ended: " + process.stderr.read().decode())
            time.sleep(0.2)


def check(budget, args):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [args.program, "serve", "--cpu", "--port", str(port), "--fit", budget, "--no-eval", "--quiet"]
    command += ["--max-seq-len", str(args.max_seq_len)]
    command += ["-m", args.model] if args.model else []
    command += ["--cache-dir", args.cache_dir] if args.cache_dir else []
    process = subprocess.Popen(command + args.more, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}"
    try:
        plan = wait_for(address, process)["plan"]
        idle = resident(process.pid)
        fit = plan["method"]["asked"]["fit"]
        tokens = fit["traffic"]["tokens"]
        peak, anonymous, prompt = load(address, process.pid, args.clients, tokens, args.rounds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    predicted, allowed = fit["predicted"] / 1e6, fit["bytes"] / 1e6
    off = peak / predicted - 1
    fine = peak <= allowed and abs(off) <= args.tolerance
    kept = plan["after"]["experts_per_layer"]
    print(
        f"{budget:>9} {plan.get('weights') or 'float':>6} {max(kept):4} × {len(kept):2}"
        f"  loaded {idle['VmRSS']:8.1f}  predicted {predicted:8.1f}  resident {peak:8.1f} ({off:+.1%})"
        f"  anonymous {anonymous:8.1f}  {'ok' if fine else 'NOT OK'}"
        f"  [{args.clients} clients, {prompt} + {ANSWER} tokens; loading took {idle['VmHWM']:.1f}]",
        flush=True,
    )
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("budgets", metavar="BUDGET", nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--max-seq-len", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--program", default=str(ROOT / "target/release/mistralrs-prune"))
    parser.add_argument("--cache-dir")
    mine, more = sys.argv[1:], []
    if "--" in mine:
        mine, more = mine[: mine.index("--")], mine[mine.index("--") + 1 :]
    args = parser.parse_args(mine)
    args.more = more
    print("megabytes of 10^6 bytes")
    sys.exit(0 if all([check(budget, args) for budget in args.budgets]) else 1)


if __name__ == "__main__":
    main()
