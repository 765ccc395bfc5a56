#!/usr/bin/env python3
"""Writes to Redis and marks what was written, for Sluice with capture: dirty-set.

Usage: mark.py PORT; needs the package redis.
"""
import sys
import time

import redis

client = redis.Redis(port=int(sys.argv[1]))


def write(key, *command):
    """Runs a write command and marks its key, by the function that Sluice loads."""
    return client.execute_command("FCALL", "sluice_write", 1, key, *command)


def write_in_transaction(*commands):
    """Runs write commands and marks their first arguments, with nothing loaded."""
    with client.pipeline(transaction=True) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        now = int(time.time() * 1000)
        pipeline.zadd("sluice:dirty", {command[1]: now for command in commands}, lt=True)
        return pipeline.execute()


if __name__ == "__main__":
    print(write("c:python", "INCRBY", "c:python", 5))
    print(write_in_transaction(("INCRBY", "c:python", 2), ("HSET", "session:python", "user_id", 1)))
