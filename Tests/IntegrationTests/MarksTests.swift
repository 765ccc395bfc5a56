import Foundation
import SluiceCore
import SluiceTesting
import Testing

/// Ways of writing with `capture: dirty-set` and `tracking`.
enum Marking: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case function, transaction, tracking
    var testDescription: String { rawValue }

    var capture: String { self == .tracking ? "tracking" : "dirty-set" }

    /// The setting, for a test's configuration.
    var setting: String { "\n  capture: \(capture)" }

    /// The commands that write and mark in one step.
    func commands(_ command: [String], keys: [String]? = nil) -> [[String]] {
        let keys = keys ?? [command[1]]
        switch self {
        case .tracking: return [command]
        case .function: return [["FCALL", "sluice_write", "\(keys.count)"] + keys + command]
        case .transaction:
            let now = "\(Int(Date().timeIntervalSince1970 * 1_000))"
            return [
                ["MULTI"], command, ["ZADD", "sluice:dirty", "LT"] + keys.flatMap { [now, $0] },
                ["EXEC"],
            ]
        }
    }
}

/// Writes random commands to a few keys, each marked.
struct MarkedTraffic: Sendable {
    let marking: Marking

    func commands(_ count: Int, _ random: inout SplitMix64) -> [[String]] {
        (0..<count).flatMap { _ -> [[String]] in
            let (command, keys) = Self.command(&random)
            return marking.commands(command, keys: keys)
        }
    }

    private static func command(_ random: inout SplitMix64) -> ([String], [String]?) {
        let number = "\(random.pick(0..<1_000))"
        let session = "session:\(random.pick(0..<60))"
        switch random.pick(0..<14) {
        case 0: return (["HSET", session, "user_id", number, "note", "n" + number], nil)
        case 1: return (["EXPIRE", session, "9000"], nil)
        case 2: return (["HDEL", session, "note"], nil)
        case 3: return (["ZADD", "z:\(random.pick(0..<3))", number, "p\(number)"], nil)
        case 4: return (["ZINCRBY", "z:\(random.pick(0..<3))", "0.1", "p\(number)"], nil)
        case 5: return (["XADD", "e:\(random.pick(0..<3))", "*", "n", number], nil)
        case 6: return (["SADD", "s:\(random.pick(0..<3))", "m\(number)"], nil)
        case 7: return (["SREM", "s:\(random.pick(0..<3))", "m\(number)"], nil)
        case 8: return (["RPUSH", "l:\(random.pick(0..<3))", number], nil)
        case 9: return (["LPOP", "l:\(random.pick(0..<3))"], nil)
        case 10 where random.oneIn(4):
            let key = ["c:\(random.pick(0..<100))", session, "z:1", "s:1"][random.pick(0..<4)]
            return (["DEL", key], nil)
        case 11 where random.oneIn(3):
            let keys = ["c:\(random.pick(0..<100))", "c:\(random.pick(0..<100))"]
            return (["RENAME", keys[0], keys[1]], keys)
        case 12: return (["APPEND", "t:\(random.pick(0..<20))", "x"], nil)
        default: return (["INCRBY", "c:\(random.pick(0..<100))", "\(random.pick(1..<9))"], nil)
        }
    }
}

/// Something that is set once, for tasks to see.
final class Flag: @unchecked Sendable {
    // Unchecked: guarded by the lock.
    private let lock = NSLock()
    private var value = false

    var isSet: Bool { lock.withLock { value } }
    func set() { lock.withLock { value = true } }
}

@Suite("Capture without a stream", .serialized)
struct MarksTests {
    /// What went while nobody listened goes too, so that the database can be compared.
    static let tables = Bench.tables.replacing(
        "on_evict: delete", with: "on_evict: delete\n    on_missing: delete")

    @Test(
        "twenty SIGKILLs at random moments lose no write",
        arguments: Marking.allCases, DatabaseKind.allCases)
    func twentyKills(marking: Marking, kind: DatabaseKind) async throws {
        print("\(marking), \(kind): seed \(CrashTests.seed)")
        var random = SplitMix64(seed: CrashTests.seed)
        let bench = try await Bench(kind, tables: Self.tables, redisSettings: marking.setting)
        try await bench.start()
        let end = ContinuousClock.now + .seconds(11)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<2 {
                group.addTask {
                    let client = try await bench.redis.connect()
                    var random = SplitMix64(seed: CrashTests.seed &+ UInt64(number))
                    while ContinuousClock.now < end {
                        try await client.sendAll(
                            MarkedTraffic(marking: marking).commands(30, &random))
                    }
                }
            }
            for _ in 0..<20 {
                try await ContinuousClock().sleep(for: .milliseconds(random.pick(100..<800)))
                bench.sluice.stop(SIGKILL)
                try bench.sluice.start()
            }
            try await group.waitForAll()
        }
        let isFlushed = await Eventually.holds(within: .seconds(60)) {
            (try? bench.sluice.command("flush"))?.code == 0
        }
        #expect(isFlushed, "\(bench.sluice.log.suffix(2_000))")
        if marking == .tracking { try await reconcile(bench) }
        try await bench.expectEqual("\(marking), \(kind): seed \(CrashTests.seed)")
        #expect(bench.sluice.stop(SIGTERM) == 0)
        guard marking != .tracking else { return }
        let client = try await bench.redis.connect()
        let left = try await client.send("KEYS", "sluice:[di]*")
        #expect(left.isEmpty, "no mark is left after a stop in good order: \(left)")
    }

    @Test(
        "Redis, PostgreSQL and Sluice killed in turn lose no write that Redis has",
        arguments: [Marking.function, .tracking])
    func everybody(marking: Marking) async throws {
        let seed = CrashTests.seed
        print("\(marking): seed \(seed)")
        var random = SplitMix64(seed: seed)
        let bench = try await Bench(
            .postgres, tables: Self.tables,
            redisOptions: ["--appendonly", "yes", "--appendfsync", "always"],
            redisSettings: marking.setting)
        try await bench.start()
        let isDone = Flag()
        async let traffic: Void = Self.write(bench.redis, marking, seed: seed &+ 1, until: isDone)
        for _ in 0..<9 {
            try await ContinuousClock().sleep(for: .milliseconds(random.pick(300..<1_200)))
            switch random.pick(0..<3) {
            case 0:
                bench.redis.stop(SIGKILL)
                try await bench.redis.start()
            case 1:
                bench.postgres?.stop()
                try await ContinuousClock().sleep(for: .milliseconds(random.pick(10..<900)))
                try await bench.postgres?.start()
            default:
                bench.sluice.stop(SIGKILL)
                try bench.sluice.start()
            }
        }
        isDone.set()
        await traffic
        let isFlushed = await Eventually.holds(within: .seconds(60)) {
            (try? bench.sluice.command("flush"))?.code == 0
        }
        #expect(isFlushed, "\(bench.sluice.log.suffix(2_000))")
        try await reconcile(bench)
        try await bench.expectEqual("\(marking): seed \(seed)")
    }

    private static func write(
        _ redis: RedisServer, _ marking: Marking, seed: UInt64, until isDone: Flag,
    ) async {
        var random = SplitMix64(seed: seed)
        while !isDone.isSet {
            // A server that is away is looked for again.
            guard let client = try? await redis.connect() else { continue }
            defer { client.close() }
            while !isDone.isSet {
                let commands = MarkedTraffic(marking: marking).commands(20, &random)
                guard (try? await client.sendAll(commands)) != nil else { break }
            }
        }
    }

    // Rows whose keys went while nobody listened have no key, and a person says that they go.
    private func reconcile(_ bench: Bench) async throws {
        let isReady = await Eventually.holds(within: .seconds(60)) {
            let status = await bench.status()
            return status?["isBaselineDone"] as? Bool == true
                && (try? bench.sluice.command(
                    "reconcile", "--delete-missing", "--doubtful", "--yes"))?.code == 0
        }
        #expect(isReady, "\(bench.sluice.log.suffix(2_000))")
    }

    @Test(
        "the same keys, written all the time while their marks are cleared, end with their last values",
        arguments: Marking.allCases)
    func race(marking: Marking) async throws {
        let seeds = Int(ProcessInfo.processInfo.environment["SLUICE_RACE_SEEDS"] ?? "") ?? 50
        let bench = try await Bench(
            .sqlite, tables: Self.tables, interval: "10ms", redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        for seed in 0..<UInt64(seeds) {
            var random = SplitMix64(seed: CrashTests.seed &+ seed)
            let end = ContinuousClock.now + .milliseconds(random.pick(20..<120))
            while ContinuousClock.now < end {
                let count = random.pick(1..<20)
                try await client.sendAll(
                    (0..<count).flatMap { _ in
                        marking.commands([
                            "SET", "c:\(random.pick(0..<100))", "\(random.pick(0..<1_000_000))",
                        ])
                    })
            }
            // No flush: an interval must do, and some more for a busy machine.
            let expected = try await client.send(["MGET"] + (0..<100).map { "c:\($0)" })
            let isEqual = await Eventually.holds(within: .seconds(5)) {
                (try? stored(bench)) == expected
            }
            #expect(isEqual, "seed \(CrashTests.seed &+ seed)")
        }
    }

    private func stored(_ bench: Bench) throws -> [String?] {
        let rows = try bench.query("SELECT id, value FROM counters")
        let values = Dictionary(uniqueKeysWithValues: rows.map { ($0[0] ?? "", $0[1]) })
        return (0..<100).map { values["\($0)"] ?? nil }
    }

    @Test(
        "several commands are written and marked at once; a stream that starts again is read anew",
        arguments: ServerKind.supported)
    func functions(server: ServerKind) async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.tables, server: server,
            redisSettings: Marking.function.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let replies = try await client.send([
            "FCALL", "sluice_write_all", "2", "c:a", "session:a", "3", "INCRBY", "c:a", "7",
            "4", "HSET", "session:a", "user_id", "9",
        ])
        #expect(replies == ["7", "1"])
        let refused = try await client.send([
            "FCALL", "sluice_write_all", "1", "c:a", "5", "INCR", "c:a",
        ])
        #expect(refused[0]?.contains("number of words") == true)
        for id in ["5-1", "5-2", "900-1"] {
            try await client.send("FCALL", "sluice_write", "1", "e:a", "XADD", "e:a", id, "n", id)
        }
        try bench.flush()
        try await bench.expectEqual()
        #expect(try bench.number("SELECT count(*) FROM events") == 3)
        // A new process learns from the database how far it has come.
        bench.sluice.stop(SIGKILL)
        try bench.sluice.start()
        try await client.send("FCALL", "sluice_write", "1", "e:a", "XADD", "e:a", "901-0", "n", "4")
        let isUp = await Eventually.holds { (try? bench.sluice.command("flush"))?.code == 0 }
        #expect(isUp)
        #expect(try bench.number("SELECT count(*) FROM events") == 4)
        try await client.send("FCALL", "sluice_write", "1", "e:a", "DEL", "e:a")
        try await client.send("FCALL", "sluice_write", "1", "e:a", "XADD", "e:a", "7-0", "n", "5")
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM events") == 5)
        #expect(try bench.number("SELECT count(*) FROM events WHERE event_id = '7-0'") == 1)
    }

    @Test("members that outlived their key go when the key comes back, as configuration.md says")
    func outlived() async throws {
        let bench = try await Bench(
            .sqlite, tables: CauseTests.tables, redisSettings: Marking.function.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let tags = "SELECT tag FROM tags ORDER BY tag"
        try await client.send("FCALL", "sluice_write", "1", "s:a", "SADD", "s:a", "x")
        try bench.flush()
        try await client.send("PEXPIRE", "s:a", "20")
        let isGone = await Eventually.holds { (try? await client.send("EXISTS", "s:a")) == ["0"] }
        #expect(isGone)
        try bench.flush()
        #expect(try bench.query(tags) == [["x"]])
        try await client.send("FCALL", "sluice_write", "1", "s:a", "SADD", "s:a", "y")
        try bench.flush()
        #expect(try bench.query(tags) == [["y"]])
    }
}
