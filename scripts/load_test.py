#!/usr/bin/env python3
"""Loads `serve` with many clients, some of which mean no good, beside plain mistral.rs.

    cargo build --release --workspace --locked
    scripts/load_test.py target/release/mistralrs-prune

Needs nothing but Python. Two servers of one checkpoint run on this machine: ours, and mistral.rs's own router with
none of our layers (`plain`). Every answer is greedy and is compared with the one that its prompt got when it was asked
alone. For each number of clients it prints

* latency: the same requests to both servers, in turns that alternate. On a CPU mistral.rs 0.8.1 mixes up the requests
  of a batch, so `plain` is asked twice: by all clients at once, with the share of wrong answers, and by all clients
  who let one another go first, which is what our server does for them;
* a mix: as many requests with connections that are cut and bodies that are too large among them, to ours. None may be
  lost (no answer, or another status than it should have) or crossed (the answer to another prompt);

and the growth of resident memory over the mixes. Exits with 1 if a request was lost or crossed.
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

STARTS = ["Once upon a time there was a {} who", "The {} ran to the river and", "What does a {} do when", "A {} and a bird"]
NOUNS = ["dog", "cat", "girl", "king", "fish", "boy", "horse", "mouse", "bear", "queen", "frog", "cow"]
TOO_LARGE = 9_000_000


class Server:
    """A server of this machine."""

    def __init__(self, command, marker):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(marker + r".*http://([\d.]+):(\d+)", line):
                self.host, self.port = found[1], int(found[2])
                break
        else:
            sys.exit("no server:\n" + "".join(said))

    def resident(self):
        """Resident memory in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode


async def request(server, body, cut_after=None):
    """Status and body of one request on a connection of its own; None if it was cut."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        if cut_after is not None:
            await asyncio.sleep(cut_after)
            writer.transport.abort()
            return None
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        rest = unchunk(rest)
    return int(head.split(b" ", 2)[1]), rest


def unchunk(data):
    """The body that came in chunks."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        size = int(size, 16)
        if size == 0:
            return body
        body, data = body + data[:size], data[size + 2 :]
    raise ValueError("the last chunk is missing")


def text_of(body, stream):
    """The text of an answer."""
    if not stream:
        return json.loads(body)["choices"][0]["text"]
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]", body[-200:]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def prompts(count, rng):
    """Prompts, the tokens that they ask for, and whether they stream."""
    kinds = [(start.format(noun), tokens) for start in STARTS for noun in NOUNS for tokens in (8, 16, 32)]
    return [(*rng.choice(kinds), rng.random() < 0.5) for _ in range(count)]


def body_of(prompt, tokens, stream):
    """The body of a request."""
    asked = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "seed": 1, "stream": stream}
    return json.dumps(asked).encode()


async def run(server, work, clients, expected, seed=None, gate=None):
    """Sends `work` by so many clients at a time; latencies and what went wrong. With a seed, some mean no good. A gate
    lets one request through at a time."""
    gate = gate or contextlib.nullcontext()
    rng = random.Random(seed)
    queue, latencies, wrong = list(enumerate(work)), [], []
    done = {"answered": 0, "cut": 0, "too large": 0}

    async def client():
        while queue:
            number, (prompt, tokens, stream) = queue.pop()
            kind = number % 10 if seed is not None else 9
            try:
                if kind == 0:
                    status, body = await request(server, b" " * TOO_LARGE)
                    done["too large"] += 1
                    if status != 413:
                        wrong.append(("lost", f"too large: {status} {body[:200]}"))
                elif kind == 1:
                    await request(server, body_of(prompt, tokens, stream), cut_after=rng.random() * 0.2)
                    done["cut"] += 1
                else:
                    began = time.perf_counter()
                    async with gate:
                        status, body = await request(server, body_of(prompt, tokens, stream))
                    latencies.append(time.perf_counter() - began)
                    done["answered"] += 1
                    if status != 200:
                        wrong.append(("lost", f"{prompt}: {status} {body[:200]}"))
                    elif (text := text_of(body, stream)) != expected[prompt, tokens]:
                        wrong.append(("crossed", f"{prompt}: {text!r}, not {expected[prompt, tokens]!r}"))
            except (OSError, ValueError, AssertionError, IndexError) as error:
                wrong.append(("lost", f"{prompt}: {error!r}"))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies, wrong, done, time.perf_counter() - began


def quantiles(latencies):
    """p50 and p99 in seconds."""
    ordered = sorted(latencies)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


async def main():
    """See the documentation of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="mistralrs-prune")
    parser.add_argument("--model", help="checkpoint; the demo model if there is none")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=4, help="turns of each server in the comparison")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON too")
    args = parser.parse_args()
    model = ["--model", args.model] if args.model else []
    ours = Server([args.binary, "serve", *model, "--port", "0", "--log-format", "none"], "Serving")
    plain = Server([args.binary, "plain", *model, "--port", "0", "--max-seqs", str(max(args.clients))], "Plain")
    rng = random.Random(0)
    work = prompts(args.requests, rng)
    expected, differ = {}, 0
    for prompt, tokens, _ in work:
        if (prompt, tokens) in expected:
            continue
        answers = [await request(server, body_of(prompt, tokens, False)) for server in (ours, plain)]
        texts = [text_of(body, False) for _, body in answers]
        expected[prompt, tokens] = texts[0]
        differ += texts[0] != texts[1]
    print(f"{len(expected)} prompts asked one by one; answers that differ from plain mistral.rs: {differ}")
    result, failed = {"differ": differ, "clients": {}}, differ > 0
    for clients in args.clients:
        modes = {
            "plain": (plain, None),
            "plain, one at a time": (plain, asyncio.Semaphore(1)),
            "ours": (ours, None),
        }
        times, bad = {mode: [] for mode in modes}, dict.fromkeys(modes, 0)
        share = work[: max(1, args.requests // args.rounds)]
        for turn in range(args.rounds):
            order = list(modes.items())
            for mode, (server, gate) in order if turn % 2 == 0 else reversed(order):
                latencies, wrong, _, _ = await run(server, share, clients, expected, gate=gate)
                times[mode].append(latencies)
                bad[mode] += len(wrong)
                if mode == "ours" and wrong:
                    failed = True
                    print(*(f"  {kind}: {what}" for kind, what in wrong[:5]), sep="\n")
        before = ours.resident()
        _, wrong, done, seconds = await run(ours, work, clients, expected, seed=clients)
        after = ours.resident()
        lost, crossed = (sum(kind == name for kind, _ in wrong) for name in ("lost", "crossed"))
        failed |= bool(wrong)
        print(f"\n{clients} clients")
        row = {"done": done, "lost": lost, "crossed": crossed, "seconds": seconds, "resident": [before, after]}
        for mode in modes:
            # Of every turn, and of those the middle.
            p50, p99 = (statistics.median(column) for column in zip(*map(quantiles, times[mode])))
            share_wrong = bad[mode] / (len(share) * args.rounds)
            row[mode] = {"p50": p50, "p99": p99, "wrong": share_wrong}
            print(f"  {mode:20}  p50 {p50 * 1e3:7.1f} ms   p99 {p99 * 1e3:7.1f} ms   wrong {share_wrong:.0%}")
        right = row["plain, one at a time"]
        ratios = {key: row["ours"][key] / right[key] - 1 for key in ("p50", "p99")}
        print("  ours beside plain, one at a time: " + ", ".join(f"{key} {it:+.1%}" for key, it in ratios.items()))
        mixed = ", ".join(f"{count} {name}" for name, count in done.items())
        print(f"  mix: {mixed} in {seconds:.1f} s; lost {lost}, crossed {crossed}")
        print(f"  resident memory: {before / 1e6:.0f} MB before the mix, {after / 1e6:.0f} MB after")
        print(*(f"  {kind}: {what}" for kind, what in wrong[:5]), sep="\n", end="")
        result["clients"][clients] = row
    if args.json:
        print(json.dumps(result))
    plain.stop()
    if (code := ours.stop()) != 0:
        failed = True
        print(f"serve ended with {code}")
    sys.exit(1 if failed else 0)


asyncio.run(main())
