import SluiceTesting
import Testing

@Suite("Names that change hands", .serialized)
struct NameTests {
    @Test(
        "a row that outlived its key stays when the name is another type's",
        arguments: DatabaseKind.allCases, [true, false])
    func otherType(kind: DatabaseKind, isAtOnce: Bool) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  strings: { keys: "<key>", string: { value: text } }
                  hashes: { keys: "<key>", hash: { n: integer } }
                  sets: { keys: "<key>", set: { member: member } }
                  scores: { keys: "<key>", sorted_set: { member: member, score: score } }
                """, redisOptions: ["--enable-debug-command", "yes"],
            interval: isAtOnce ? "10s" : "50ms")
        try await bench.start()
        let client = try await bench.redis.connect()
        func write(_ suffix: String) async throws {
            try await client.sendAll([
                ["SET", "c\(suffix)", "5"], ["HSET", "h\(suffix)", "n", "7"],
                ["SADD", "s\(suffix)", "m"], ["ZADD", "z\(suffix)", "1", "m"],
            ])
        }
        for suffix in ["kept", "back", "live"] { try await write(suffix) }
        if !isAtOnce { try bench.flush() }
        for suffix in ["kept", "back"] {
            for key in ["c", "h", "s", "z"] {
                try await client.send("PEXPIRE", key + suffix, "20")
            }
        }
        let isGone = await Eventually.holds { (try? await client.send("DBSIZE")) == ["4"] }
        #expect(isGone)
        if !isAtOnce { try bench.flush() }
        try await client.sendAll([
            ["HINCRBY", "hback", "n", "1"], ["SADD", "sback", "m"], ["ZINCRBY", "zback", "1", "m"],
        ])
        if !isAtOnce { try bench.flush() }
        for suffix in ["kept", "back", "live"] {
            for key in ["h", "s", "z"] { try await client.send("SET", key + suffix, "x") }
            if suffix == "back" { continue }
            try await client.sendAll([["DEL", "clive"], ["HSET", "c\(suffix)", "n", "8"]])
        }
        func expect(_ comment: String) throws {
            try bench.flush()
            let rows = [
                "SELECT key, value FROM strings ORDER BY key": [
                    ["cback", "5"], ["ckept", "5"], ["hback", "x"], ["hkept", "x"], ["hlive", "x"],
                    ["sback", "x"], ["skept", "x"], ["slive", "x"], ["zback", "x"], ["zkept", "x"],
                    ["zlive", "x"],
                ],
                "SELECT key, n FROM hashes ORDER BY key": [
                    ["ckept", "8"], ["clive", "8"], ["hkept", "7"],
                ],
                "SELECT key, member FROM sets": [["skept", "m"]],
                "SELECT key, member FROM scores": [["zkept", "m"]],
            ]
            for (sql, expected) in rows { #expect(try bench.query(sql) == expected, "\(comment)") }
        }
        try expect("from the stream")
        #expect(await bench.counter("setAside") == 0)
        bench.sluice.stop()
        #expect(try await client.send("DEBUG", "CHANGE-REPL-ID") == ["OK"])
        try await bench.start()
        try expect("after a baseline")
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
