"""A client that writes as fast as it can: pipelines of whole commands over some sockets."""
import random
import select
import socket
import time

DEPTH = 64
SOCKETS = 8


def encode(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


SCRIPT = "redis.call('SADD', 'dirty', KEYS[1]) return redis.call('INCRBY', KEYS[1], ARGV[1])"


def increment(way, key, now):
    """One increment of a key, and how many lines Redis answers it with."""
    if way == "function":
        return encode("FCALL", "sluice_write", 1, key, "INCRBY", key, 1), 1
    if way == "transaction":
        commands = (("MULTI",), ("INCRBY", key, 1), ("ZADD", "sluice:dirty", "LT", now, key), ("EXEC",))
        return b"".join(encode(*command) for command in commands), 6
    if way == "script":
        return encode("EVAL", SCRIPT, 1, key, 1), 1
    return encode("INCRBY", key, 1), 1


def prepare(way, keys, seed=1):
    """Pipelines of increments of random keys, each with the lines of its answer."""
    chosen = random.Random(seed)
    now = int(time.time() * 1000)
    prepared = []
    for _ in range(256):
        commands = [increment(way, f"key:{chosen.randrange(keys):012d}", now) for _ in range(DEPTH)]
        prepared.append((b"".join(c for c, _ in commands), sum(lines for _, lines in commands)))
    return prepared


def blast(port, prepared, seconds):
    """Writes for some seconds; increments a second."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(SOCKETS)]
    waiting, place, done = {}, 0, 0
    begin = time.time()
    while time.time() < begin + seconds:
        for each in sockets:
            if each not in waiting:
                data, lines = prepared[place % len(prepared)]
                place += 1
                each.sendall(data)
                waiting[each] = lines
        for each in select.select(list(waiting), [], [], 1)[0]:
            received = each.recv(1 << 18)
            if b"-ERR" in received or b"-NOPERM" in received:
                raise SystemExit(received[:200])
            waiting[each] -= received.count(b"\n")
            if waiting[each] <= 0:
                del waiting[each]
                done += DEPTH
    elapsed = time.time() - begin
    for each in sockets:
        each.close()
    return done / elapsed
