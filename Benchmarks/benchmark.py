"""Measures Sluice beside bare Redis, a stock replica and psql. See README.md in this folder.

Every server is private, on loopback, and ended by its process id.
"""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PROGRAM = sys.argv[1]
SECONDS = int(sys.argv[2])
ROOT = tempfile.mkdtemp(prefix="sluice-bench-")
TICKS = os.sysconf("SC_CLK_TCK")
started = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(arguments, name):
    log = open(os.path.join(ROOT, name + ".log"), "ab")
    process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    started.append(process)
    return process


def stop(process, how=signal.SIGKILL):
    process.send_signal(how)
    process.wait()
    started.remove(process)


def cpu(process):
    """Seconds of processor time that a process has used."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def redis(*options):
    port = free_port()
    process = start(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                     "--dir", ROOT, "--repl-diskless-sync-delay", "0", "--dbfilename", f"{port}.rdb",
                     "--repl-backlog-size", "256mb",
                     "--client-output-buffer-limit", "replica 2gb 2gb 0", *options], f"redis-{port}")
    until(lambda: ask(port, "PING") == "PONG")
    return process, port


def ask(port, *command):
    done = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, text=True)
    return done.stdout.strip()


def until(condition, limit=60):
    end = time.time() + limit
    while not condition():
        if time.time() > end:
            raise SystemExit(f"gave up waiting; the logs are in {ROOT}")
        time.sleep(0.05)


def offset(port):
    return int(re.search(r"master_repl_offset:(\d+)", ask(port, "INFO", "replication")).group(1))


def postgres():
    folder = os.path.join(ROOT, "postgres")
    os.makedirs(folder, exist_ok=True)
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    user = []
    if os.getuid() == 0:
        shutil.chown(ROOT, "postgres")
        shutil.chown(folder, "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(user + [f"{binaries}/initdb", "-D", folder, "-U", "postgres", "-A", "trust",
                           "--no-sync"], check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    process = start(user + [f"{binaries}/postgres", "-D", folder, "-p", str(port), "-k", folder,
                            "-c", "listen_addresses=127.0.0.1"], "postgres")
    url = f"postgres://postgres@127.0.0.1:{port}/postgres"
    until(lambda: subprocess.run([f"{binaries}/pg_isready", "-q", "-d", url]).returncode == 0)
    return process, url


def sluice(redis_port, database, interval="1s", rows=50000):
    admin = free_port()
    path = os.path.join(ROOT, f"sluice-{admin}.yaml")
    with open(path, "w") as file:
        file.write(f"""
redis: {{ url: "redis://127.0.0.1:{redis_port}/0" }}
database: {{ url: "{database}" }}
sync: {{ interval: {interval}, max_rows: {rows} }}
admin: {{ listen: "127.0.0.1:{admin}" }}
tables:
  counters:
    keys: "key:<id>"
    string: {{ value: integer }}
""")
    process = start([PROGRAM, "run", "--config", path], f"sluice-{admin}")

    def status():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/status", timeout=5) as reply:
                return json.load(reply)
        except OSError:
            return {}
    status.url = f"http://127.0.0.1:{admin}"
    until(lambda: status().get("isBaselineDone"))
    return process, status


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
        urllib.request.urlopen(urllib.request.Request(status.url + "/flush", method="POST"),
                               timeout=300).close()
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


try:
    main()
finally:
    for process in list(started):
        process.kill()
        process.wait()
    shutil.rmtree(ROOT, ignore_errors=True)
