"""Measures what each way of capture costs the application, and what a SIGKILL costs each.

Usage: capture.py PROGRAM SECONDS. See README.md in this folder.
"""
import os
import random
import signal
import subprocess
import sys
import time

from pipeline import blast, prepare
from servers import ROOT, ask, flush, postgres, redis, run, sluice, start, stop, until

SECONDS = int(sys.argv[2])
KEYS = 100_000
HANDMADE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "handmade.py")
# The name, how Sluice captures, and how the application writes.
WAYS = [
    ("bare Redis", None, "plain"),
    ("replication", "replication", "plain"),
    ("tracking", "tracking", "plain"),
    ("dirty-set, functions", "dirty-set", "function"),
    ("dirty-set, MULTI", "dirty-set", "transaction"),
    ("by hand: SADD in a script; SPOP, MGET, upsert", "by hand", "script"),
]


def clean(url):
    subprocess.run(
        ["psql", "-q", url, "-c", "DROP TABLE IF EXISTS counters, handmade, sluice_position, "
         "sluice_loose, sluice_kept, sluice_dead_letters"], check=True, stderr=subprocess.DEVNULL)


def peer(capture, port, url):
    """What settles the writes, and how to start it again."""
    if capture == "by hand":
        command = [sys.executable, HANDMADE, str(port), url]
        return start(command, "handmade"), None, command
    process, status = sluice(port, url, capture=capture)
    return process, status, status.command


def rate(url, capture, way):
    """Increments a second of the application while rows settle."""
    clean(url)
    server, port = redis()
    process = None
    if capture:
        process, _, _ = peer(capture, port, url)
        time.sleep(0.5)
    measured = blast(port, prepare(way, KEYS), SECONDS)
    for each in ([process] if process else []) + [server]:
        stop(each)
    return measured


def lost(url, capture, way):
    """Rows that differ from Redis in the end, when the peer is killed again and again."""
    clean(url)
    server, port = redis()
    process, status, command = peer(capture, port, url)
    chosen = random.Random(7)
    for round_ in range(20):
        blast(port, prepare(way, KEYS, seed=round_), chosen.uniform(0.1, 0.5))
        stop(process, signal.SIGKILL)
        process = start(command, f"again-{port}")
    if status:
        until(lambda: status().get("isBaselineDone"))
        flush(status)
    else:
        until(lambda: ask(port, "SCARD", "dirty") == "0")
        time.sleep(1)
    table = "counters" if status else "handmade"
    stored = subprocess.run(["psql", "-qAtF", " ", url, "-c", f"SELECT id, value FROM {table}"],
                            capture_output=True, text=True, check=True).stdout
    rows = dict(line.split() for line in stored.splitlines())
    names = [f"{number:012d}" for number in range(KEYS)]
    wrong, present = 0, 0
    for begin in range(0, KEYS, 10_000):
        part = names[begin:begin + 10_000]
        values = subprocess.run(
            ["redis-cli", "-p", str(port)], input="MGET " + " ".join("key:" + n for n in part),
            capture_output=True, text=True, check=True).stdout.split("\n")
        for name, value in zip(part, values):
            present += value != ""
            wrong += rows.get(name, "") != value
    for each in (process, server):
        stop(each)
    return wrong, present


def main():
    _, url = postgres()
    print(f"Increments of {KEYS:,} keys, {SECONDS} s each, settling in PostgreSQL; ratios to bare Redis\n")
    print("| capture | application's writes, to bare Redis | rows wrong after 20 SIGKILLs |\n"
          "| --- | --- | --- |")
    bare = None
    for name, capture, way in WAYS:
        rates = sorted(rate(url, capture, way) for _ in range(3))
        bare = bare or rates[1]
        wrong = "%d of %d" % lost(url, capture, way) if capture else "—"
        print(f"| {name} | {rates[1] / bare:.2f} ({rates[0] / bare:.2f} to {rates[2] / bare:.2f}) "
              f"| {wrong} |", flush=True)


run(main)
