"""The worker that people write by hand: SPOP of dirty keys, MGET, one upsert by unnest.

Usage: handmade.py REDIS-PORT POSTGRES-URL
"""
import sys
import time

import psycopg2
import redis

client = redis.Redis(port=int(sys.argv[1]))
database = psycopg2.connect(sys.argv[2])
cursor = database.cursor()
cursor.execute("CREATE TABLE IF NOT EXISTS handmade (id text COLLATE \"C\" PRIMARY KEY, value bigint)")
database.commit()
while True:
    keys = client.spop("dirty", 10_000)
    if not keys:
        time.sleep(0.1)
        continue
    # A process that is killed from here on has taken the marks with it.
    rows = [(key[4:].decode(), int(value)) for key, value in zip(keys, client.mget(keys)) if value]
    rows.sort()
    cursor.execute(
        "INSERT INTO handmade SELECT * FROM unnest(%s::text[], %s::bigint[]) "
        "ON CONFLICT (id) DO UPDATE SET value = excluded.value",
        ([row[0] for row in rows], [row[1] for row in rows]))
    database.commit()
