"""Measures Sluice beside bare Redis, a stock replica and psql. See README.md in this folder."""
import os
import re
import subprocess
import sys
import time

from servers import ROOT, ask, cpu, flush, offset, postgres, redis, run, sluice, started, stop, until

SECONDS = int(sys.argv[2])


def load(port, keys, count):
    """Runs redis-benchmark with INCRBY, and returns its requests per second."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-P", "64", "-c", "20", "-n", str(count), "-r",
         str(keys), "-q", "INCRBY", "key:__rand_int__", "1"], capture_output=True, text=True)
    found = re.findall(r"([\d.]+) requests per second", done.stdout.replace("\r", "\n"))
    return float(found[-1])


def captured(keys, count):
    """CPU per command of Sluice and of a stock replica, and what each costs Redis."""
    rows = {}
    for kind in ("bare", "sluice", "replica"):
        master, port = redis()
        peer, status = None, None
        if kind == "sluice":
            # Nothing is settled meanwhile: it is the capture alone that a replica is compared with.
            peer, status = sluice(port, f"sqlite:{ROOT}/capture-{keys}.db", interval="1h",
                                  rows=10_000_000)
        elif kind == "replica":
            peer, other = redis("--replicaof", "127.0.0.1", str(port))
            until(lambda: "master_link_status:up" in ask(other, "INFO", "replication"))
        before = cpu(peer) if peer else 0
        rate = load(port, keys, count)
        if kind == "sluice":
            until(lambda: status()["processedOffset"] >= offset(port))
        elif kind == "replica":
            until(lambda: int(re.search(r"slave_repl_offset:(\d+)", ask(other, "INFO", "replication"))
                              .group(1)) >= offset(port))
        rows[kind] = (rate, (cpu(peer) - before) / count * 1e6 if peer else 0)
        for process in ([peer] if peer else []) + [master]:
            stop(process)
    return rows


def keeps_up(keys, url):
    """Bytes behind while redis-benchmark runs at full speed and rows settle in PostgreSQL."""
    master, port = redis()
    peer, status = sluice(port, url)
    bench = subprocess.Popen(
        ["redis-benchmark", "-p", str(port), "-P", "64", "-c", "20", "-n", "1000000000", "-r",
         str(keys), "-q", "INCRBY", "key:__rand_int__", "1"], stdout=subprocess.DEVNULL)
    started.append(bench)
    behind, end = [], time.time() + SECONDS
    while time.time() < end:
        time.sleep(max(1, SECONDS / 12))
        behind.append(offset(port) - status()["processedOffset"])
    final = status()
    stop(bench)
    for process in (peer, master):
        stop(process)
    return behind, final["counters"]


def settle(url, rows):
    """Rows per second of one batch of new and one of known rows, beside psql with COPY and a merge."""
    subprocess.run(["psql", "-q", url, "-c", "DROP TABLE IF EXISTS counters, sluice_position, "
                    "sluice_loose, sluice_dead_letters"], check=True, stderr=subprocess.DEVNULL)
    master, port = redis()
    peer, status = sluice(port, url, interval="1h", rows=10_000_000)
    rates = {}
    for label in ("new", "known"):
        commands = "".join(f"INCRBY key:{n:012d} 1\r\n" for n in range(rows))
        subprocess.run(["redis-cli", "-p", str(port), "--pipe"], input=commands, text=True,
                       stdout=subprocess.DEVNULL, check=True)
        until(lambda: status()["processedOffset"] >= offset(port))
        begin = time.time()
        flush(status)
        rates[label] = rows / (time.time() - begin)
    for process in (peer, master):
        stop(process)
    data = os.path.join(ROOT, "rows.tsv")
    with open(data, "w") as file:
        for n in range(rows):
            file.write(f"{n:012d}\t1\n")
    subprocess.run(["psql", "-q", url, "-c", "DROP TABLE IF EXISTS plain; CREATE TABLE plain "
                    "(id text COLLATE \"C\" PRIMARY KEY, value bigint)"], check=True,
                   stderr=subprocess.DEVNULL)
    merge = f"""BEGIN; CREATE TEMP TABLE batch (id text, value bigint) ON COMMIT DROP;
\\copy batch FROM '{data}'
INSERT INTO plain SELECT id, value FROM batch ORDER BY id COLLATE "C"
ON CONFLICT (id) DO UPDATE SET value = coalesce(plain.value, 0) + excluded.value;
COMMIT;"""
    for label in ("new", "known"):
        begin = time.time()
        subprocess.run(["psql", "-q", url], input=merge, text=True, check=True)
        rates["psql " + label] = rows / (time.time() - begin)
    return rates


def main():
    print("INCRBY by redis-benchmark -P 64 -c 20; ratios of runs side by side\n")
    print("| keys | Redis with Sluice / bare | with a replica / bare | "
          "CPU per command: Sluice / replica |\n| --- | --- | --- | --- |")
    for keys, count in ((10_000, 3_000_000), (1_000_000, 3_000_000)):
        rows = captured(keys, count)
        bare = rows["bare"][0]
        print(f"| {keys:,} | {rows['sluice'][0] / bare:.2f} | {rows['replica'][0] / bare:.2f} | "
              f"{rows['sluice'][1]:.2f} / {rows['replica'][1]:.2f} µs = "
              f"{rows['sluice'][1] / rows['replica'][1]:.2f} |", flush=True)
    server, url = postgres()
    print("\n| rows a batch | new rows: Sluice / psql COPY and merge | known rows |\n"
          "| --- | --- | --- |")
    for rows in (1_000, 10_000, 50_000):
        rates = settle(url, rows)
        print(f"| {rows:,} | {rates['new']:,.0f} / {rates['psql new']:,.0f} rows/s = "
              f"{rates['new'] / rates['psql new']:.2f} | {rates['known']:,.0f} / "
              f"{rates['psql known']:,.0f} rows/s = {rates['known'] / rates['psql known']:.2f} |",
              flush=True)
    print(f"\nBytes of the stream not yet processed, during {SECONDS} s at full speed, settling in "
          "PostgreSQL meanwhile:\n")
    for keys in (10_000, 1_000_000):
        subprocess.run(["psql", "-q", url, "-c", "DROP TABLE IF EXISTS counters, sluice_position, "
                        "sluice_loose, sluice_dead_letters"], check=True,
                       stderr=subprocess.DEVNULL)
        behind, counters = keeps_up(keys, url)
        print(f"- {keys:,} keys: {', '.join(f'{b / 1e6:.1f}' for b in behind)} MB; "
              f"{counters['commands']:,} commands became {counters['rows']:,} rows in "
              f"{counters['commits']} transactions", flush=True)


run(main)
