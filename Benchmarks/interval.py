"""Measures what sync.interval costs the database, and writes docs/interval.svg.

Usage: interval.py PROGRAM SECONDS SVG. See README.md in this folder.
"""
import math
import random
import select
import socket
import sys
import time

from pipeline import increment
from servers import cpu, postgres, redis, run, sluice, stop

SECONDS = int(sys.argv[2])
KEYS = 2_000
RATE = 5_000
INTERVALS = [("50ms", 0.05), ("100ms", 0.1), ("250ms", 0.25), ("500ms", 0.5), ("1s", 1), ("2s", 2), ("5s", 5)]


def write(port, seconds, status):
    """A steady load; the longest lag that the status said."""
    connection = socket.create_connection(("127.0.0.1", port))
    chosen = random.Random(1)
    begin, sent, lag = time.time(), 0, 0.0
    while (elapsed := time.time() - begin) < seconds:
        count = int(elapsed * RATE) - sent
        sent += count
        connection.sendall(b"".join(
            increment("function", f"key:{chosen.randrange(KEYS):012d}", 0)[0] for _ in range(count)))
        # Answers are not looked at, but must not fill the connection.
        while select.select([connection], [], [], 0)[0] and connection.recv(1 << 20):
            pass
        lag = max(lag, status().get("lagSeconds", 0))
        time.sleep(0.02)
    connection.close()
    return lag


def measure(interval, url):
    server, port = redis()
    process, status = sluice(port, url, interval=interval, capture="dirty-set")
    write(port, 2, status)
    before = status()["counters"]
    begin = time.time()
    lag = write(port, SECONDS, status)
    after, elapsed = status()["counters"], time.time() - begin
    for each in (process, server):
        stop(each)
    return ((after["commits"] - before["commits"]) / elapsed,
            (after["rows"] - before["rows"]) / elapsed, lag)


def plot(points, path):
    """Two lines over the interval, both axes by powers of ten."""
    width, height, left, bottom = 640, 320, 60, 40
    xs = [math.log10(seconds) for _, seconds, *_ in points]
    series = [("rows written a second", [p[3] for p in points], "#1f6feb"),
              ("transactions a second", [p[2] for p in points], "#d1242f"),
              ("longest lag, ms", [max(1, p[4] * 1000) for p in points], "#1a7f37")]
    top = max(math.log10(max(values)) for _, values, _ in series) + 0.2
    low = min(0, min(math.log10(max(0.05, min(values))) for _, values, _ in series))

    def place(x, value):
        return (left + (x - xs[0]) / (xs[-1] - xs[0]) * (width - left - 150),
                height - bottom - (math.log10(max(0.05, value)) - low) / (top - low) * (height - bottom - 20))

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             f'font-family="sans-serif" font-size="11"><rect width="{width}" height="{height}" fill="white"/>']
    for power in range(math.ceil(low), math.floor(top) + 1):
        y = place(xs[0], 10 ** power)[1]
        parts.append(f'<path d="M{left} {y:.1f}H{width - 150}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10 ** power:,g}</text>')
    for (name, *_), x in zip(points, xs):
        parts.append(f'<text x="{place(x, 1)[0]:.1f}" y="{height - 20}" text-anchor="middle">{name}</text>')
    parts.append(f'<text x="{left + 180}" y="{height - 4}" text-anchor="middle">sync.interval</text>')
    for number, (name, values, colour) in enumerate(series):
        line = " ".join("%.1f,%.1f" % place(x, value) for x, value in zip(xs, values))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{width - 140}" y="{40 + 18 * number}" fill="{colour}">{name}</text>')
    with open(path, "w") as file:
        file.write("\n".join(parts) + "\n</svg>\n")


def main():
    _, url = postgres()
    print(f"{RATE:,} increments a second of {KEYS:,} keys, dirty-set, PostgreSQL, {SECONDS} s each\n")
    print("| sync.interval | transactions a second | rows a second | longest lag |\n| --- | --- | --- | --- |")
    points = []
    for name, seconds in INTERVALS:
        points.append((name, seconds, *measure(name, url)))
        _, _, commits, rows, lag = points[-1]
        print(f"| {name} | {commits:.1f} | {rows:,.0f} | {lag:.2f} s |", flush=True)
    plot(points, sys.argv[3])


run(main)
