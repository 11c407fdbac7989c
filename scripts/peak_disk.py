#!/usr/bin/env python3
"""The disk that streaming takes, measured: a hub on this machine gives a model, `mistralrs-prune` streams it.

What: serves the directory MODEL as `org/name` on the loopback interface, as the hub does (listing with sizes and
    SHA-256, ranged GET), runs `prune --stream-prune` or `calibrate --stream-calibrate` in an empty folder and adds up
    the blocks of the folder (`st_blocks`: holes are not counted) every few milliseconds, output, stage, state and
    cache together. Prints source, result, largest shard and peak; fails if the peak of a pruning is above the result
    and two shards. With --whole, does the same with a whole copy from that hub and compares all files.
Usage: python scripts/peak_disk.py MODEL --plan PLAN [--layout hf] [--whole]
       python scripts/peak_disk.py MODEL --calibrate "--calibration-tokens 4096 --seq-len 256" [--whole]
Needs: Linux or macOS; nothing but Python.
"""

import argparse
import filecmp
import hashlib
import http.server
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 1 << 20


def describe(path):
    """One file as a listing has it: large ones by SHA-256, small ones as Git hashes them."""
    size = path.stat().st_size
    entry = {"rfilename": path.name, "size": size}
    if path.suffix == ".safetensors":
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return entry | {"lfs": {"sha256": digest.hexdigest(), "size": size, "pointerSize": 134}}
    return entry | {"blobId": hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest()}


def hub(model, rate):
    """A running hub with MODEL as `org/name`, and the bytes of shards that it has sent."""
    files = {path.name: path for path in model.iterdir() if path.is_file()}
    listing = json.dumps({"sha": COMMIT, "siblings": [describe(files[name]) for name in sorted(files)]}).encode()
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path.startswith("/api/models/org/name/revision/"):
                return self.answer(200, {}, len(listing), [listing])
            name = self.path.removeprefix(f"/org/name/resolve/{COMMIT}/")
            if name not in files:
                return self.answer(404, {"x-error-code": "EntryNotFound"}, 0, [])
            size = files[name].stat().st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
            start = int(asked[1]) if asked else 0
            end = min(int(asked[2]) + 1, size) if asked and asked[2] else size
            headers = {"content-range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
            self.answer(206 if asked else 200, headers, end - start, self.pieces(files[name], start, end))

        def answer(self, status, headers, length, pieces):
            self.send_response(status)
            for name, value in (headers | {"content-length": str(length)}).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except ConnectionError:
                self.close_connection = True

        def pieces(self, path, start, end):
            with open(path, "rb") as file:
                file.seek(start)
                while start < end:
                    piece = file.read(min(PIECE, end - start))
                    start += len(piece)
                    if path.suffix == ".safetensors":
                        sent.append(len(piece))
                    if rate:
                        time.sleep(len(piece) / rate)
                    yield piece

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", sent


def taken(folder):
    """Bytes of the blocks of all files in a folder that changes meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(root, name))
            except FileNotFoundError:
                continue
            total += status.st_blocks * 512
    return total


def watched(command, folder, environment):
    """Runs a command; the most that the folder took meanwhile, and the seconds."""
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None:
        peak = max(peak, taken(folder))
        time.sleep(0.002)
    if process.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit status {process.returncode}")
    return max(peak, taken(folder)), time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", type=pathlib.Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", help="prune by this plan")
    what.add_argument("--calibrate", metavar="FLAGS", help="calibrate with these flags")
    parser.add_argument("--layout", default="hf")
    parser.add_argument("--whole", action="store_true", help="compare with what a whole copy gives")
    parser.add_argument("--rate", type=float, default=0.0, help="MB/s of the hub, for every connection")
    parser.add_argument("--binary", default="mistralrs-prune")
    parser.add_argument("--folder", type=pathlib.Path, help="where to make the empty folder")
    args = parser.parse_args()
    endpoint, sent = hub(args.model, args.rate * 1e6)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = pathlib.Path(name)
        environment = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_CACHE": "",
            "HF_HUB_OFFLINE": "",
            "HF_TOKEN": "",
            "MISTRALRS_PRUNE_CACHE": str(folder / "cache"),
        }
        out = folder / "out"
        if args.plan:
            command = ["prune", "--plan", args.plan, "--layout", args.layout]
            flag, local = "--stream-prune", ["--no-eval"]
        else:
            command, flag, local = ["calibrate", *shlex.split(args.calibrate)], "--stream-calibrate", []
        run = [args.binary, *command]
        peak, seconds = watched([*run, "-m", "org/name", flag, "-o", str(out)], folder, environment)
        shards = [path.stat().st_size for path in args.model.glob("*.safetensors")]
        weights = [path for path in out.glob("*") if path.suffix in (".safetensors", ".uqff", ".gguf")] if args.plan else [out]
        result = sum(path.stat().st_size for path in weights)
        figures = {
            "source": sum(shards), "shards": len(shards), "largest shard": max(shards), "result": result,
            "fetched": sum(sent), "peak": peak, "peak less result, in shards": (peak - result) / max(shards),
            "seconds": seconds,
        }  # fmt: skip
        for what, figure in figures.items():
            print(f"{what:<28}{figure:>16,.2f}" if isinstance(figure, float) else f"{what:<28}{figure:>16,}")
        if args.plan and peak > result + 2 * max(shards):
            sys.exit("the peak is above the result and two shards")
        if args.whole:
            whole, environment["MISTRALRS_PRUNE_CACHE"] = folder / "whole", str(folder / "cache-whole")
            subprocess.run([*run, "-m", "org/name", *local, "-o", str(whole)], env=environment, check=True)
            pairs = [(path, whole / path.name) for path in out.iterdir()] if args.plan else [(out, whole)]
            other = [ours.name for ours, theirs in pairs if not filecmp.cmp(ours, theirs, shallow=False)]
            print(f"files like those of the whole model: {len(pairs) - len(other)} of {len(pairs)}")
            if other:
                sys.exit(f"other files came of it: {', '.join(sorted(other))}")


if __name__ == "__main__":
    main()
