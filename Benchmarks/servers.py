"""Private servers for the benchmarks: on loopback, in a temporary folder, ended by their process ids."""
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


def sluice(redis_port, database, interval="1s", rows=50000, capture="replication", until_ready=True):
    admin = free_port()
    path = os.path.join(ROOT, f"sluice-{admin}.yaml")
    with open(path, "w") as file:
        file.write(f"""
redis: {{ url: "redis://127.0.0.1:{redis_port}/0", capture: {capture} }}
database: {{ url: "{database}" }}
sync: {{ interval: {interval}, max_rows: {rows} }}
admin: {{ listen: "127.0.0.1:{admin}" }}
tables:
  counters:
    keys: "key:<id>"
    string: {{ value: integer }}
""")
    command = [PROGRAM, "run", "--config", path]
    process = start(command, f"sluice-{admin}")

    def status():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/status", timeout=5) as reply:
                return json.load(reply)
        except OSError:
            return {}
    status.url = f"http://127.0.0.1:{admin}"
    status.command = command
    if until_ready:
        until(lambda: status().get("isBaselineDone"))
    return process, status


def flush(status):
    """Waits until the database has everything."""
    request = urllib.request.Request(status.url + "/flush", method="POST")
    urllib.request.urlopen(request, timeout=300).close()


def run(main):
    """Runs a benchmark, and ends every server after it."""
    try:
        main()
    finally:
        for process in list(started):
            process.kill()
            process.wait()
        shutil.rmtree(ROOT, ignore_errors=True)
