import Foundation
import SluiceTesting
import Testing

@Suite("Why keys go", .serialized)
struct CauseTests {
    static let tables = """
        tables:
          counters:
            keys: "c:<id>"
            string: { value: integer }
          sessions:
            keys: "h:<id>"
            hash: { user: integer }
            rest: extra
            expires_at: expires_at
          scores:
            keys: "z:<id>"
            sorted_set: { member: player, score: points }
          tags:
            keys: "s:<id>"
            set: { member: tag }
          events:
            keys: "e:<id>"
            stream: { id: event_id, fields: payload }
        """

    /// A server, how it evicts, and where rows go.
    struct Setting: CustomTestStringConvertible, Sendable {
        let server: ServerKind
        let policy: String
        let database: DatabaseKind

        var testDescription: String { "\(server), \(policy), \(database.rawValue)" }

        static let all = [
            Setting(server: ServerKind.supported[0], policy: "allkeys-random", database: .sqlite),
            Setting(server: ServerKind.supported[0], policy: "allkeys-lru", database: .postgres),
            Setting(server: ServerKind.supported[1], policy: "volatile-ttl", database: .postgres),
            Setting(server: ServerKind.supported[2], policy: "allkeys-lru", database: .sqlite),
        ]
    }

    @Test(
        "rows of expired and evicted keys stay, those that the application removed go",
        arguments: Setting.all)
    func mixed(setting: Setting) async throws {
        let seed = CrashTests.seed
        print("\(setting.testDescription): seed \(seed)")
        var random = SplitMix64(seed: seed)
        let bench = try await Bench(
            setting.database, tables: Self.tables,
            redisOptions: ["--maxmemory-policy", setting.policy], server: setting.server)
        try await bench.start()
        let client = try await bench.redis.connect()
        // Once the stream flows, so that causes are asked for while it is short.
        try await client.send("SET", "other", "v")
        try bench.flush()
        var traffic = CauseTraffic(client: client)
        var evicted = 0
        for step in 0..<3_000 {
            try await traffic.step(&random)
            guard step % 1_000 == 500 else { continue }
            evicted += try await Self.evict(bench, client) {
                for _ in 0..<5 { try await traffic.step(&random) }
            }
        }
        try await Task.sleep(for: .milliseconds(300))
        try bench.flush()
        let wrong = try Self.wrongRows(bench, traffic)
        let missing = wrong.filter { $0.hasSuffix("is missing") }
        #expect(missing.isEmpty, "seed \(seed): \(missing.prefix(5)) \(bench.sluice.log)")
        // A key that expired and was deleted between two questions is in doubt, and its row stays.
        let doubtful = await bench.counter("doubtful")
        #expect(wrong.count <= doubtful, "seed \(seed): \(wrong.prefix(5))")
        #expect(doubtful < 60, "seed \(seed)")
        // Entries stay, whatever becomes of them or of their stream.
        #expect(try bench.number("SELECT count(*) FROM events") == traffic.entries, "seed \(seed)")
        #expect(await bench.counter("reads") == 0)
        print("\(setting.testDescription): \(evicted) mapped keys were evicted")
        #expect(evicted > 20, "seed \(seed)")
    }

    @Test("while nobody can say why a key went, its row stays")
    func doubt() async throws {
        let seed = CrashTests.seed
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        let bench = try await Bench(.sqlite, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        var traffic = CauseTraffic(client: client)
        for step in 0..<2_000 {
            try await traffic.step(&random)
            if step % 400 == 100 { try await client.send("CLIENT", "KILL", "TYPE", "pubsub") }
            if step % 400 == 300 {
                try await client.send("CONFIG", "SET", "notify-keyspace-events", "")
            }
        }
        try await Task.sleep(for: .milliseconds(300))
        try bench.flush()
        let wrong = try Self.wrongRows(bench, traffic).filter { $0.hasSuffix("is missing") }
        #expect(wrong.isEmpty, "seed \(seed): \(wrong.prefix(5))")
        #expect(await bench.counter("doubtful") > 0)
    }

    @Test("a counter's total survives its expiry, and a flush")
    func totals() async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        for _ in 0..<5 {
            try await client.send("INCRBY", "c:a", "7")
            try await client.send("PEXPIRE", "c:a", "20")
            try await Task.sleep(for: .milliseconds(150))
        }
        try await client.send("INCRBY", "c:a", "7")
        try await client.send("FLUSHALL")
        try await client.send("INCRBY", "c:a", "1")
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = 'a'") == 43)
        #expect(
            bench.sluice.log.contains("FLUSHALL or FLUSHDB: what was written before is settled"))
    }

    @Test(
        "a leaderboard that is trimmed leaves the rows of the one before",
        arguments: DatabaseKind.allCases, [ServerKind.supported[0], ServerKind.supported[2]])
    func trimmed(database: DatabaseKind, server: ServerKind) async throws {
        let bench = try await Bench(database, tables: Self.tables, server: server)
        try await bench.start()
        let client = try await bench.redis.connect()
        let players = "SELECT player FROM scores ORDER BY player"
        func expire(_ key: String) async throws {
            try await client.send("PEXPIRE", key, "20")
            let isGone = await Eventually.holds { (try? await client.send("EXISTS", key)) == ["0"] }
            #expect(isGone)
            try bench.flush()
        }
        try await client.send("ZADD", "z:w", "1", "a", "2", "b", "3", "c")
        try await client.send("SADD", "s:w", "a", "b")
        try bench.flush()
        for key in ["z:w", "s:w"] { try await expire(key) }
        // The next week: what is trimmed by rank, by score or by chance goes, and nothing else.
        try await client.send("ZADD", "z:w", "1", "d", "2", "e", "3", "f", "4", "g", "5", "h")
        try await client.send("SADD", "s:w", "c", "d")
        try bench.flush()
        try await client.send("ZREMRANGEBYRANK", "z:w", "0", "0")
        try await client.send("SMOVE", "s:w", "s:x", "c")
        try bench.flush()
        #expect(try bench.query(players).map { $0[0] } == ["a", "b", "c", "e", "f", "g", "h"])
        #expect(
            try bench.query("SELECT id, tag FROM tags ORDER BY id, tag")
                == [["w", "a"], ["w", "b"], ["w", "d"], ["x", "c"]])
        bench.sluice.stop()
        try await client.send("ZREMRANGEBYSCORE", "z:w", "-inf", "2")
        try await bench.start()
        try await client.send("ZPOPMIN", "z:w")
        try bench.flush()
        #expect(try bench.query(players).map { $0[0] } == ["a", "b", "c", "g", "h"])
        // It expires too, and of the week after that all goes.
        try await expire("z:w")
        try await client.send("ZADD", "z:w", "1", "i")
        try await client.send("ZPOPMIN", "z:w")
        try bench.flush()
        #expect(try bench.query(players).map { $0[0] } == ["a", "b", "c", "g", "h"])
        // More of them than are looked up at a time.
        for start in stride(from: 0, to: 12_000, by: 1_000) {
            try await client.send(
                ["ZADD", "z:w"] + (start..<start + 1_000).flatMap { ["\($0)", "p\($0)"] })
        }
        try bench.flush()
        try await client.send("ZREMRANGEBYRANK", "z:w", "0", "-2")
        try bench.flush()
        #expect(
            try bench.query(players).map { $0[0] } == ["a", "b", "c", "g", "h", "p11999"])
        try await client.send("DEL", "z:w")
        try bench.flush()
        #expect(try bench.query(players).isEmpty)
    }

    @Test(
        "of a leaderboard that is trimmed only what it had itself is marked",
        arguments: DatabaseKind.allCases)
    func trimmedMarks(database: DatabaseKind) async throws {
        let bench = try await Bench(
            database,
            tables: """
                tables:
                  scores:
                    keys: "z:<id>"
                    sorted_set: { member: player, score: points }
                    on_delete: { mark: gone_at }
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("ZADD", "z:w", "1", "a")
        try bench.flush()
        try await client.send("PEXPIRE", "z:w", "20")
        let isGone = await Eventually.holds { (try? await client.send("EXISTS", "z:w")) == ["0"] }
        #expect(isGone)
        try bench.flush()
        try await client.send("ZADD", "z:w", "1", "b", "2", "c")
        try bench.flush()
        try await client.send("ZPOPMIN", "z:w")
        try bench.flush()
        #expect(
            try bench.query("SELECT player FROM scores WHERE gone_at IS NULL ORDER BY player")
                == [["a"], ["c"]])
        #expect(try bench.query("SELECT player FROM scores WHERE gone_at IS NOT NULL") == [["b"]])
    }

    @Test("a row of a key that went is marked; when the key comes back it starts afresh")
    func marked() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                tables:
                  counters:
                    keys: "c:<id>"
                    string: { value: integer }
                    on_expire: { mark: gone_at }
                    on_delete: { mark: gone_at }
                  sessions:
                    keys: "h:<id>"
                    hash: { user: integer, name: text }
                    on_expire: { mark: gone_at }
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        for (key, value) in [("c:a", "7"), ("c:b", "8"), ("c:c", "9")] {
            try await client.send("SET", key, value)
        }
        try await client.send("HSET", "h:a", "user", "5", "name", "Ada")
        try bench.flush()
        for key in ["c:a", "h:a"] { try await client.send("PEXPIRE", key, "20") }
        try await client.send("DEL", "c:b")
        let isGone = await Eventually.holds { (try? await client.send("DBSIZE")) == ["1"] }
        #expect(isGone)
        try bench.flush()
        let counters = "SELECT id, value, gone_at IS NOT NULL FROM counters ORDER BY id"
        let sessions = "SELECT user, name, gone_at IS NOT NULL FROM sessions"
        #expect(
            try bench.query(counters) == [["a", "7", "1"], ["b", "8", "1"], ["c", "9", "0"]])
        #expect(try bench.query(sessions) == [["5", "Ada", "1"]])
        try await client.send("INCRBY", "c:a", "2")
        try bench.flush()
        // What is not known any more is told by the database.
        bench.sluice.stop()
        try await bench.start()
        for key in ["c:b", "c:c"] { try await client.send("INCRBY", key, "2") }
        try await client.send("HSET", "h:a", "user", "6")
        try bench.flush()
        #expect(
            try bench.query(counters) == [["a", "2", "0"], ["b", "2", "0"], ["c", "11", "0"]])
        #expect(try bench.query(sessions) == [["6", nil, "0"]])
        try await bench.expectEqual()
    }

    @Test(
        "a hash that its fields' deadlines emptied keeps its row; the application's HDEL removes it",
        arguments: [ServerKind.supported[1], ServerKind.supported[2]])
    func fields(kind: ServerKind) async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables, server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("HSET", "h:a", "user", "5")
        try await client.send("HSET", "h:b", "user", "5", "x", "1")
        try bench.flush()
        try await client.send("HDEL", "h:a", "user")
        try bench.flush()
        #expect(try bench.query("SELECT id FROM sessions") == [["b"]])
        try await client.send("HPEXPIRE", "h:b", "50", "FIELDS", "2", "user", "x")
        let isGone = await Eventually.holds {
            (try? await client.send("EXISTS", "h:b")) == ["0"]
        }
        #expect(isGone)
        try bench.flush()
        #expect(try bench.query("SELECT id FROM sessions") == [["b"]])
        #expect(await bench.counter("doubtful") > 0)
    }

    @Test("events that are turned off for a moment make doubt, and the row stays")
    func hidden() async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<3).map { ["SET", "c:\($0)", "1"] })
        try bench.flush()
        try await client.send("DEL", "c:0")
        try bench.flush()
        #expect(await bench.status()?["hearsCauses"] as? Bool == true)
        try await client.send("CONFIG", "SET", "notify-keyspace-events", "")
        try await client.send("PEXPIRE", "c:1", "20")
        let isGone = await Eventually.holds { (try? await client.send("EXISTS", "c:1")) == ["0"] }
        #expect(isGone)
        try await client.send("CONFIG", "SET", "notify-keyspace-events", "Exe")
        try bench.flush()
        #expect(try bench.query("SELECT id FROM counters ORDER BY id") == [["1"], ["2"]])
        #expect(await bench.counter("doubtful") == 1)
        try await client.send("CONFIG", "SET", "notify-keyspace-events", "")
        try await client.send("DEL", "c:2")
        try bench.flush()
        #expect(await bench.status()?["hearsCauses"] as? Bool == false)
    }

    @Test("what goes while the subscriber is cut off stays, and is counted; what goes later goes")
    func cutOff() async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<5).map { ["SET", "c:\($0)", "1"] })
        try bench.flush()
        // Sluice hears of nothing until its subscriber is gone, and with it what was to be said.
        bench.sluice.signal(SIGSTOP)
        let killed = try await client.send("CLIENT", "KILL", "TYPE", "pubsub")
        #expect(killed == ["1"])
        try await client.send("PEXPIRE", "c:1", "20")
        let isGone = await Eventually.holds { (try? await client.send("EXISTS", "c:1")) == ["0"] }
        #expect(isGone)
        try await client.send("DEL", "c:2")
        bench.sluice.signal(SIGCONT)
        try bench.flush()
        let ids = "SELECT id FROM counters ORDER BY id"
        #expect(try bench.query(ids) == [["0"], ["1"], ["2"], ["3"], ["4"]])
        #expect(await bench.counter("doubtful") == 2, "nobody can say of either why it went")
        // Once there is a subscriber again, what it says is enough.
        #expect(await bench.hearsCauses(), "\(bench.sluice.log)")
        try await client.send("DEL", "c:3")
        try await client.send("PEXPIRE", "c:4", "1")
        try await Task.sleep(for: .milliseconds(20))
        #expect(try await client.send("EXISTS", "c:4") == ["0"])
        try bench.flush()
        #expect(try bench.query(ids) == [["0"], ["1"], ["2"], ["4"]])
        #expect(await bench.counter("doubtful") == 2)
    }

    // A setting that is changed makes doubt up to the next question, so that one is asked before.
    //
    // Returns how many keys were evicted that tables map.
    private static func evict(
        _ bench: Bench, _ client: RedisClient, beside traffic: () async throws -> Void,
    ) async throws -> Int {
        // What is about to expire has gone by then.
        try await Task.sleep(for: .milliseconds(200))
        try bench.flush()
        let before = try #require(try await client.number("evicted_keys", in: "stats"))
        let used = try #require(try await client.number("used_memory", in: "memory"))
        try await client.send("CONFIG", "SET", "maxmemory", "\(used + 300_000)")
        for key in ["c:probe", "c:probe2"] {
            try await client.send("SET", key, "1")
            try await client.send("DEL", key)
            try bench.flush()
        }
        let value = String(repeating: "v", count: 10_000)
        let others = (0..<80).map { "other:\($0)" }
        let there = try await client.send(["EXISTS"] + others).first.flatMap {
            $0.flatMap { Int($0) }
        }
        var written = 0
        for other in others {
            let isNew = try await client.send("EXISTS", other) == ["0"]
            if try await client.send("SET", other, value, "EX", "10000") == ["OK"], isNew {
                written += 1
            }
            try await traffic()
        }
        try bench.flush()
        let after = try #require(try await client.number("evicted_keys", in: "stats"))
        let left = try await client.send(["EXISTS"] + others).first.flatMap {
            $0.flatMap { Int($0) }
        }
        try await client.send("CONFIG", "SET", "maxmemory", "0")
        return after - before - ((there ?? 0) + written - (left ?? 0))
    }

    private static func wrongRows(_ bench: Bench, _ traffic: CauseTraffic) throws -> [String] {
        var present: Set<String> = []
        for (table, prefix) in [
            ("counters", "c:"), ("sessions", "h:"), ("scores", "z:"), ("tags", "s:"),
        ] {
            for row in try bench.query("SELECT id FROM \(table)") {
                present.insert(prefix + (row[0] ?? ""))
            }
        }
        return traffic.isRemoved.compactMap { key, isRemoved in
            if isRemoved == present.contains(key) {
                return isRemoved ? "\(key) is still there" : "\(key) is missing"
            }
            return nil
        }
    }
}
