import Foundation
import MarkExample
import SluiceTesting
import SluiceVerify
import Testing

@Suite("What capture without a stream needs and knows", .serialized)
struct CaptureTests {
    static let counters = """
        tables:
          counters:
            keys: "c:<id>"
            string: { value: integer }
        """

    // MARK: Why keys went

    @Test(
        "rows of expired keys stay, those that the application removed go",
        arguments: [Marking.function, .tracking])
    func causes(marking: Marking) async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.counters, redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        func write(_ command: String...) async throws {
            try await client.sendAll(marking.commands(command))
        }
        for id in 0..<4 { try await write("INCRBY", "c:\(id)", "7") }
        // The first round after the start is the one from which on events are complete.
        try bench.flush()
        try bench.flush()
        try await write("DEL", "c:0")
        try await client.send("PEXPIRE", "c:1", "20")
        try bench.flush()
        // Removed after it came back, while its end is not looked at yet.
        try await write("PEXPIRE", "c:2", "20")
        let isGone = await Eventually.holds {
            (try? await client.send("EXISTS", "c:1", "c:2")) == ["0"]
        }
        #expect(isGone)
        try bench.flush()
        let found = try bench.query("SELECT id FROM counters ORDER BY id")
        #expect(found == [["1"], ["2"], ["3"]], "\(bench.sluice.log)")
        // What comes back starts afresh.
        try await write("INCRBY", "c:1", "2")
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = '1'") == 2)
        try await write("DEL", "c:1")
        try bench.flush()
        #expect(try bench.query("SELECT id FROM counters ORDER BY id") == [["2"], ["3"]])
    }

    @Test("where nobody says why a key went, on_missing decides", arguments: ["keep", "delete"])
    func missing(policy: String) async throws {
        let marking = Marking.transaction
        let bench = try await Bench(
            .sqlite, tables: Self.counters + "\n    on_missing: \(policy)",
            redisSettings: marking.setting + "\n  configure: false")
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll(marking.commands(["INCRBY", "c:a", "7"]))
        try bench.flush()
        try await client.sendAll(marking.commands(["DEL", "c:a"]))
        try bench.flush()
        let count = policy == "keep" ? 1 : 0
        #expect(try bench.number("SELECT count(*) FROM counters") == count)
        #expect(await bench.counter("doubtful") == count)
        // Without `configure`, no function is loaded, and MULTI needs none.
        #expect(try await client.send("FUNCTION", "LIST") == [])
    }

    // MARK: Permissions and servers

    @Test(
        "a user with exactly the documented permissions suffices",
        arguments: [Marking.transaction, .tracking])
    func permissions(marking: Marking) async throws {
        let bench = try await Bench(.sqlite, redisSettings: marking.setting)
        let admin = try await bench.redis.connect()
        let page = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/capture.md")
        let lines = try String(contentsOf: page, encoding: .utf8).split(separator: "\n")
            .filter { $0.hasPrefix("ACL SETUSER sluice on") }
        try #require(lines.count == 2)
        let line = lines[marking == .tracking ? 1 : 0].replacing(">PASSWORD", with: ">secret")
        for forbidden in ["psync", "replconf", "+config"] {
            #expect(!line.contains(forbidden))
        }
        let words = line.split(separator: " ").map(String.init)
        try #require(try await admin.send(words) == ["OK"])
        let other = try bench.another {
            $0.replacing("redis://127", with: "redis://sluice:secret@127")
        }
        // Every type, before it starts and after.
        var random = SplitMix64(seed: 3)
        let traffic = MarkedTraffic(marking: marking)
        try await admin.sendAll(traffic.commands(600, &random))
        try other.start()
        let isReady = await Eventually.holds {
            await bench.status(of: other)?["isBaselineDone"] as? Bool == true
        }
        try #require(isReady, "\(other.log)")
        for _ in 0..<5 {
            try await admin.sendAll(traffic.commands(200, &random))
            #expect(try other.command("flush").code == 0, "\(other.log)")
        }
        if marking == .transaction { try await expectApplicationSuffices(bench, admin) }
        #expect(try other.command("flush").code == 0)
        // Rows of keys that went stay, because these permissions do not say why.
        let wrong = try await bench.differences().filter { $0.expected != nil }
        #expect(wrong.isEmpty, "\(wrong.prefix(5)) \(other.log)")
        #expect(!other.log.contains("secret"))
        #expect(other.stop(SIGTERM) == 0)
    }

    // An application with just what the page says of it.
    private func expectApplicationSuffices(_ bench: Bench, _ admin: RedisClient) async throws {
        let loaded = try bench.sluice.command("functions", "--load")
        #expect(loaded.code == 0, "\(loaded.output)")
        try await admin.send(
            "ACL", "SETUSER", "function", "on", ">pw", "resetkeys", "~c:*", "~sluice:dirty",
            "-@all", "+incrby", "+fcall", "+zadd", "+zscore", "+time")
        try await admin.send(
            "ACL", "SETUSER", "transaction", "on", ">pw", "resetkeys", "~c:*", "~sluice:dirty",
            "-@all", "+incrby", "+multi", "+exec", "+zadd")
        for marking in [Marking.function, .transaction] {
            let client = try await bench.redis.connect()
            defer { client.close() }
            try await client.send("AUTH", marking.rawValue, "pw")
            let key = "c:\(marking)"
            var last: [String?] = []
            for command in marking.commands(["INCRBY", key, "5"]) {
                last = try await client.send(command)
            }
            #expect(last.first == "5", "\(marking) \(last)")
        }
    }

    @Test(
        "Redis 6.2 is followed, with a script for what later servers have functions for",
        arguments: [Marking.transaction, .tracking])
    func old(marking: Marking) async throws {
        let bench = try await Bench(.sqlite, server: .tooOld, redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let loaded = try bench.sluice.command("functions", "--load").output
        let digest = String(loaded.split(separator: " ").last ?? "").trimmingCharacters(
            in: .newlines)
        #expect(
            try await client.send(
                "EVALSHA", digest, "1", "c:a", "sluice_write", "INCRBY", "c:a", "7") == ["7"],
            "\(loaded)")
        let deadline = Int(Date().timeIntervalSince1970 * 1_000) + 60_000
        try await client.sendAll(
            marking.commands(["HSET", "session:a", "user_id", "9", "x", "y"])
                + marking.commands(["PEXPIREAT", "session:a", "\(deadline)"])
                + marking.commands(["ZADD", "z:a", "1.5", "m"])
                + marking.commands(["XADD", "e:a", "*", "n", "1"]))
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters") == 7)
        #expect(try bench.query("SELECT user_id, extra FROM sessions") == [["9", "{\"x\":\"y\"}"]])
        #expect(try bench.query("SELECT player, points FROM scores") == [["m", "1.5"]])
        #expect(try bench.number("SELECT count(*) FROM events") == 1)
        // PTTL and TIME are a moment apart.
        let found =
            try bench.number(
                "SELECT CAST(round((julianday(expires_at) - 2440587.5) * 86400000) AS INTEGER) "
                    + "FROM sessions") ?? 0
        #expect(abs(found - deadline) <= 50)
    }

    @Test("a server that might evict the marks is refused, and check says so")
    func eviction() async throws {
        let bench = try await Bench(
            .sqlite, redisOptions: ["--maxmemory-policy", "allkeys-lru"],
            redisSettings: Marking.function.setting)
        for command in ["run", "check"] {
            let result = try bench.sluice.command(command)
            #expect(result.code != 0)
            #expect(result.output.contains("may evict the marks"), "\(result.output)")
            #expect(result.output.contains("noeviction"), "\(result.output)")
        }
    }

    @Test("check says which modes the server permits, and recommends one")
    func check() async throws {
        let bench = try await Bench(.sqlite)
        let client = try await bench.redis.connect()
        let all = try bench.sluice.command("check").output
        #expect(all.contains("permits replication, dirty-set, tracking"), "\(all)")
        #expect(all.contains("replication is recommended"), "\(all)")
        try await client.send(
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-psync", "-client|tracking")
        let other = try bench.another { $0.replacing("redis://127", with: "redis://app:pw@127") }
        let some = try other.command("check")
        #expect(some.code == 69, "\(some.output)")
        #expect(some.output.contains("permits dirty-set;"), "\(some.output)")
        #expect(some.output.contains("capture: dirty-set"), "\(some.output)")
    }

    // MARK: One writer

    @Test("a Sluice with another database does not take the same marks")
    func twoDatabases() async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.counters, redisSettings: Marking.function.setting)
        try await bench.start()
        let other = try bench.another { $0.replacing("test.db", with: "other.db") }
        try other.start()
        #expect(other.wait() == 69)
        #expect(other.log.contains("taken by a Sluice with another database"), "\(other.log)")
        let client = try await bench.redis.connect()
        try await client.sendAll(Marking.function.commands(["INCRBY", "c:a", "7"]))
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters") == 7)
    }

    @Test("an instance that hangs can neither take nor clear marks when it wakes up")
    func hangs() async throws {
        let marking = Marking.function
        let bench = try await Bench(
            .postgres, databaseOptions: "\n  lease: 1s", redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let second = try bench.another { $0 }
        try second.start()
        let stands = await Eventually.holds { second.log.contains("another instance writes") }
        #expect(stands, "\(second.log)")
        var random = SplitMix64(seed: 5)
        for round in 0..<3 {
            let (active, standby) =
                round % 2 == 0 ? (bench.sluice, second) : (second, bench.sluice)
            try await client.sendAll(
                (0..<500).flatMap { _ in
                    marking.commands(["INCR", "c:\(random.pick(0..<100))"])
                })
            active.signal(SIGSTOP)
            try await client.sendAll(
                (0..<500).flatMap { _ in
                    marking.commands(["INCR", "c:\(random.pick(0..<100))"])
                })
            let takesOver = await Eventually.holds(within: .seconds(20)) {
                (try? standby.command("flush"))?.code == 0
            }
            #expect(takesOver, "round \(round) \(standby.log.suffix(1_000))")
            active.signal(SIGCONT)
            try await client.sendAll(
                (0..<500).flatMap { _ in
                    marking.commands(["INCR", "c:\(random.pick(0..<100))"])
                })
            let isSettled = await Eventually.holds(within: .seconds(20)) {
                guard (try? standby.command("flush"))?.code == 0 else { return false }
                return (try? await bench.differences())?.isEmpty == true
            }
            #expect(isSettled, "round \(round) \(standby.log.suffix(1_000))")
            let isStandby = await Eventually.holds(within: .seconds(20)) {
                await bench.status(of: active)?["state"] as? String == "opening"
            }
            #expect(isStandby, "round \(round) \(active.log.suffix(1_000))")
        }
    }

    // MARK: Examples

    @Test("the examples of docs/capture.md write and mark")
    func examples() async throws {
        let bench = try await Bench(.sqlite, redisSettings: Marking.function.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let folder = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Examples/dirty-set").standardizedFileURL
        let log = bench.folder.url.appending(path: "examples.log")
        let programs = [
            ["/usr/bin/python3", folder.appending(path: "mark.py").path],
            ["env", "NODE_PATH=/usr/share/nodejs", "node", folder.appending(path: "mark.js").path],
        ]
        for program in programs {
            let process = try ServerProcess(program + ["\(bench.redis.port)"], log: log)
            process.wait(atMost: .seconds(30))
            let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
            #expect(process.exitCode == 0, "\(program) \(text)")
        }
        #expect(
            try await client.send(Marked.write("c:swift", ["INCRBY", "c:swift", "5"])) == ["5"])
        try await client.sendAll(
            Marked.transaction([
                ["INCRBY", "c:swift", "2"], ["HSET", "session:swift", "user_id", "3"],
            ]))
        try bench.flush()
        #expect(
            try bench.query("SELECT id, value FROM counters ORDER BY id")
                == [["javascript", "7"], ["python", "7"], ["swift", "7"]])
        #expect(try bench.number("SELECT count(*) FROM sessions") == 3)
    }
}
