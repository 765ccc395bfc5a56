import Foundation
import SluiceTesting
import Testing

@Suite("Names that change hands", .serialized)
struct NameTests {
    /// Keys of one letter for their type: of the first three endings each expires and its row is kept;
    /// then `back` comes back, a string takes the names of all, and in the end all are deleted.
    @Test(
        "a row that outlived its key stays when the name is another type's",
        arguments: DatabaseKind.allCases, [true, false])
    func otherType(kind: DatabaseKind, isAtOnce: Bool) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  strings: { keys: "<key>", string: { value: text } }
                  hashes: { keys: "<key>", hash: { n: integer }, expires_at: until }
                  sets: { keys: "<key>", set: { member: member } }
                  scores: { keys: "<key>", sorted_set: { member: member, score: score } }
                """, redisOptions: ["--enable-debug-command", "yes"],
            interval: isAtOnce ? "10s" : "50ms")
        try await bench.start()
        let client = try await bench.redis.connect()
        func settle() throws { if !isAtOnce { try bench.flush() } }
        let expiring = ["back", "kept", "moved"]
        for suffix in expiring + ["live"] {
            try await client.sendAll([
                ["SET", "c\(suffix)", "5"], ["HSET", "h\(suffix)", "n", "7"],
                ["SADD", "s\(suffix)", "m"], ["ZADD", "z\(suffix)", "1", "m"],
            ])
        }
        try settle()
        for key in expiring.flatMap({ suffix in ["c", "h", "s", "z"].map { $0 + suffix } }) {
            try await client.send("PEXPIRE", key, "20")
        }
        let isGone = await Eventually.holds { (try? await client.send("DBSIZE")) == ["4"] }
        #expect(isGone)
        try settle()
        try await client.sendAll([
            ["HINCRBY", "hback", "n", "1"], ["SADD", "sback", "m"], ["ZINCRBY", "zback", "1", "m"],
        ])
        try settle()
        for key in ["h", "s", "z"] {
            for suffix in ["kept", "back", "live"] {
                try await client.send("SET", key + suffix, "x", "EX", "9999")
            }
            try await client.sendAll([["SET", "x", "x"], ["RENAME", "x", key + "moved"]])
        }
        try await client.sendAll([
            ["DEL", "clive"], ["HSET", "clive", "n", "8"], ["HSET", "ckept", "n", "8"],
        ])
        // Its deadline is not the row's that has the name.
        try settle()
        let until = "SELECT until FROM hashes WHERE key = 'hkept'"
        let ended = isAtOnce ? nil : try bench.query(until)
        try await client.send("EXPIRE", "hkept", "5000")
        let kept = [["cback", "5"], ["ckept", "5"], ["cmoved", "5"]]
        let strings = ["h", "s", "z"].flatMap { key in
            ["back", "kept", "live", "moved"].map { [key + $0, "x"] }
        }
        // Its last state was not read before a string was moved to the name, which a letter says.
        let moved = isAtOnce ? [] : ["moved"]
        func expect(_ comment: String, _ strings: [[String]], _ hashes: [[String]]) throws {
            try bench.flush()
            #expect(
                try bench.query("SELECT key, value FROM strings ORDER BY key") == strings,
                "\(comment)")
            let own = (["kept"] + moved).map { ["h" + $0, "7"] }
            #expect(
                try bench.query("SELECT key, n FROM hashes ORDER BY key") == hashes + own,
                "\(comment)")
            for (table, letter) in [("sets", "s"), ("scores", "z")] {
                let own = (["kept"] + moved).map { [letter + $0, "m"] }
                #expect(
                    try bench.query("SELECT key, member FROM \(table) ORDER BY key") == own,
                    "\(comment)")
            }
        }
        let hashes = [["ckept", "8"], ["clive", "8"]]
        try expect("from the stream", kept + strings, hashes)
        let letters = try bench.query(
            "SELECT table_name, code FROM sluice_dead_letters ORDER BY table_name")
        let vanished = ["hashes", "scores", "sets"].map { [$0, "key.vanished"] }
        #expect(letters == (isAtOnce ? vanished : []))
        if let ended { #expect(try bench.query(until) == ended) }
        bench.sluice.stop()
        #expect(try await client.send("DEBUG", "CHANGE-REPL-ID") == ["OK"])
        try await bench.start()
        try expect("after a baseline", kept + strings, hashes)
        let keys = try await client.send("KEYS", "*").compactMap { $0 }
        try await client.send(["DEL"] + keys)
        try expect("deleted", kept, [])
    }

    @Test(
        "what the application removes goes, whatever was before", arguments: DatabaseKind.allCases)
    func removed(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  counters: { keys: "c:<id>", string: { value: integer } }
                  tags: { keys: "s:<id>", set: { member: tag } }
                  texts: { keys: "m:<id>", string: { value: text } }
                  hashes: { keys: "m:<id>", hash: { n: integer } }
                  sets: { keys: "m:<id>", set: { member: member } }
                  numbers: { keys: "n:<id>", string: { value: integer } }
                  fields: { keys: "n:<id>", hash: { f: integer } }
                """, interval: "10s")
        try await bench.start()
        let client = try await bench.redis.connect()
        func send(_ lines: String...) async throws {
            try await client.sendAll(lines.map(CommandCase.words))
            try bench.flush()
        }
        func restart() async throws {
            #expect(bench.sluice.stop(SIGTERM) == 0)
            try await bench.start()
        }
        try await send(
            "SET n:a 10", "SET m:k 5", "SET c:a 5", "SET m:a 5", "SET m:b 5", "SADD m:c x",
            "SADD m:source x y")
        let kept = ["n:a", "m:k", "c:a", "m:a", "m:b", "m:c"]
        for key in kept { try await client.send("PEXPIRE", key, "20") }
        let isGone = await Eventually.holds {
            (try? await client.send(["EXISTS"] + kept)) == ["0"]
        }
        #expect(isGone)
        try await send("INCR c:a")
        #expect(try bench.number("SELECT value FROM counters WHERE id = 'a'") == 6)
        // They came back with these, and go with them.
        try await send(
            "DEL c:a", "INCR c:a", "INCR m:a", "DEL m:a", "SET m:b 6", "DEL m:b", "HSET m:h n 1",
            "RENAME m:h m:b", "SADD m:c z", "SUNIONSTORE m:c m:source", "DEL m:c",
            "SUNIONSTORE m:d m:source", "DEL m:d", "SUNIONSTORE m:d m:source", "DEL m:d")
        #expect(try bench.number("SELECT value FROM counters WHERE id = 'a'") == 1)
        #expect(try bench.query("SELECT id FROM texts") == [["k"]])
        #expect(try bench.query("SELECT id, n FROM hashes") == [["b", "1"]])
        #expect(try bench.query("SELECT DISTINCT id FROM sets") == [["source"]])
        #expect(await bench.counter("setAside") == 0)

        // Another type's key is no end of it, nor is a mistake: its total goes on.
        try await send("HSET n:a f 1", "DEL n:a", "INCR n:a", "LPUSH m:k v")
        #expect(try bench.query("SELECT value FROM numbers") == [["11"]])
        #expect(try bench.query("SELECT count(*) FROM sluice_dead_letters") == [["1"]])
        try await send("DEL m:k")
        #expect(try bench.query("SELECT id, value FROM texts") == [["k", "5"]])
        #expect(try bench.query("SELECT count(*) FROM sluice_dead_letters") == [["0"]])

        // What came and went within one batch is gone, whatever was there before it.
        try await send("SADD m:g b")
        try await restart()
        try await send("DEL m:g", "SADD m:g a", "PEXPIRE m:g 20")
        let hasExpired = await Eventually.holds {
            (try? await client.send("EXISTS", "m:g")) == ["0"]
        }
        #expect(hasExpired)
        try bench.flush()
        #expect(try bench.query("SELECT member FROM sets WHERE id = 'g'") == [["a"]])

        try await send("SET c:b 5", "SET n:b 5", "SADD s:b a", "SADD m:e a")
        try await restart()
        try await send("DEL c:b n:b", "FLUSHALL", "INCR c:b", "INCR n:b")
        #expect(try bench.number("SELECT value FROM numbers WHERE id = 'b'") == 1)
        #expect(try bench.number("SELECT value FROM counters WHERE id = 'b'") == 1)
        try await send("SADD s:c a", "SADD m:f a")
        try await restart()
        try await send("DEL s:c m:f", "SADD s:c b", "SADD m:f b")
        try await restart()
        try await send("DEL s:c m:f")
        #expect(try bench.query("SELECT id, tag FROM tags") == [["b", "a"]])
        #expect(try bench.query("SELECT id FROM sets WHERE id IN ('e', 'f')") == [["e"]])
        #expect(try bench.query("SELECT count(*) FROM sluice_dead_letters") == [["0"]])
    }

    @Test(
        "a key that goes before it is read leaves a dead letter in the table of its type alone",
        arguments: ServerKind.supported)
    func unread(kind: ServerKind) async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                tables:
                  strings: { keys: "<key>", string: { value: text } }
                  hashes: { keys: "<key>", hash: { n: text }, rest: fields }
                  lists: { keys: "<key>", list: { items: json } }
                  sets: { keys: "<key>", set: { member: member } }
                  scores: { keys: "<key>", sorted_set: { member: member, score: score } }
                """, interval: "10s", server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll([["SADD", "source", "1", "2"], ["SET", "stay", "x"]])
        try bench.flush()
        let changes = [
            "APPEND strings:1 x", "SETBIT strings:2 7 1", "PFADD strings:3 x", "LPUSH lists:1 x",
            "SORT source STORE lists:2", "SUNIONSTORE sets:1 source", "ZADD scores:1 GT 1 x",
            "GEOADD scores:2 NX 1 1 x", "ZUNIONSTORE scores:3 1 source", "HSET hashes:1 n 1",
            "HDEL hashes:1 other",
        ].map(CommandCase.words)
        let keys = Set(changes.map { $0[0] == "SORT" ? $0[3] : $0[1] }).sorted()
        try await client.sendAll(changes + keys.map { ["PEXPIRE", $0, "50"] })
        let isGone = await Eventually.holds { (try? await client.send("DBSIZE")) == ["2"] }
        #expect(isGone)
        try bench.flush()
        let letters = try bench.query(
            "SELECT table_name, CAST(key AS TEXT) FROM sluice_dead_letters ORDER BY key")
        // The hash was known to have a field.
        let expected = keys.filter { !$0.hasPrefix("hashes") }.map { key in
            [String(key.prefix { $0 != ":" }), key]
        }
        #expect(letters == expected, "\(kind)")
        #expect(try bench.query("SELECT key, n FROM hashes") == [["hashes:1", "1"]], "\(kind)")
        #expect(try bench.query("SELECT key FROM strings") == [["stay"]], "\(kind)")
        let large = String(repeating: "x", count: 70 << 20)
        try await client.send("SET", "large", large)
        try bench.flush()
        let tables = "SELECT table_name FROM sluice_dead_letters WHERE CAST(key AS TEXT) = 'large'"
        #expect(try bench.query(tables) == [["strings"]], "\(kind)")
    }

    @Test(
        "the dead letter of a row that outlived its key stays, whatever has its name and goes",
        arguments: DatabaseKind.allCases, [true, false])
    func letters(kind: DatabaseKind, isAtOnce: Bool) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  strings: { keys: "<key>", string: { value: text } }
                  lists: { keys: "<key>", list: { items: json } }
                  sets: { keys: "<key>", set: { member: member } }
                  scores: { keys: "<key>", sorted_set: { member: member, score: score } }
                """, interval: "10s")
        try await bench.start()
        let client = try await bench.redis.connect()
        func settle() throws { if !isAtOnce { try bench.flush() } }
        func expect(_ letters: [[String]], _ comment: String) throws {
            try bench.flush()
            // PostgreSQL has both as bytes, which SQLite shows as text.
            let key = kind == .sqlite ? "CAST(key AS TEXT)" : "convert_from(key, 'UTF8')"
            #expect(
                try bench.query(
                    "SELECT table_name, \(key) FROM sluice_dead_letters ORDER BY 2, 1") == letters,
                "\(comment)")
        }
        try await client.sendAll([["SADD", "source", "1", "2"], ["SADD", "moved", "1"]])
        try settle()
        let names = ["list", "scores", "set", "target"]
        try await client.sendAll([
            ["RPUSH", "list", "x"], ["SUNIONSTORE", "set", "source"],
            ["ZADD", "scores", "GT", "1", "x"], ["RENAME", "moved", "target"],
        ])
        try await client.sendAll(names.map { ["PEXPIRE", $0, "50"] })
        let isGone = await Eventually.holds { (try? await client.send("DBSIZE")) == ["1"] }
        #expect(isGone)
        try settle()
        // Of what type the target was, nobody says.
        let kept = [
            ["lists", "list"], ["scores", "scores"], ["sets", "set"], ["lists", "target"],
            ["scores", "target"], ["sets", "target"],
        ]
        if !isAtOnce { try expect(kept + [["strings", "target"]], "unread") }
        for command in ["SET", "APPEND"] {
            try await client.sendAll(names.map { [command, $0, "x"] })
            try settle()
            try await client.send(["DEL"] + names)
            try expect(kept, "\(command), DEL")
        }
        try await client.sendAll([
            ["RPUSH", "list", "y"], ["SADD", "set", "y"], ["ZADD", "scores", "1", "y"],
            ["SADD", "target", "1"],
        ])
        // A key's letter ends with the key.
        try await client.send(["DEL"] + names)
        try expect([["lists", "target"], ["scores", "target"]], "back and gone")
    }

    @Test("a key that is renamed takes its rows along", arguments: ServerKind.supported)
    func renamed(kind: ServerKind) async throws {
        let bench = try await Bench(.sqlite, tables: CauseTests.tables, server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        func write(_ id: String) async throws {
            try await client.sendAll([
                ["SET", "c:\(id)", "5"], ["HSET", "h:\(id)", "user", "7", "x", "y"],
                ["ZADD", "z:\(id)", "1", "m"], ["SADD", "s:\(id)", "m"],
            ])
        }
        func rename(_ command: String, _ old: String, _ new: String) async throws {
            try await client.sendAll(
                ["c", "h", "z", "s"].map { [command, "\($0):\(old)", "\($0):\(new)"] })
        }
        // From here on a hash that is not there may have been emptied by deadlines of its fields.
        let restore = "redis.call('RESTORE', KEYS[2], 0, redis.call('DUMP', KEYS[1]))"
        try await client.sendAll([["SET", "o:a", "1"], ["EVAL", restore, "2", "o:a", "o:b"]])
        #expect(try await client.send("GET", "o:b") == ["1"])
        // What is in the database, and what is not yet; over what is there, and over nothing.
        for id in ["a", "b", "target"] { try await write(id) }
        try bench.flush()
        try await rename("RENAME", "a", "target")
        try await rename("RENAMENX", "b", "free")
        try await rename("RENAMENX", "target", "free")
        try await write("new")
        try await rename("RENAME", "new", "other")
        try bench.flush()
        for table in ["counters", "sessions", "scores", "tags"] {
            let ids = try bench.query("SELECT id FROM \(table) ORDER BY id")
            #expect(ids == [["free"], ["other"], ["target"]], "\(kind), \(table)")
        }
        try await bench.expectEqual("\(kind)")
        #expect(await bench.counter("setAside") == 0)
        #expect(await bench.counter("doubtful") == 0)
    }
}
