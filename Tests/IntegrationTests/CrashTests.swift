import Foundation
import SluiceTesting
import Testing

@Suite("Crashes", .serialized)
struct CrashTests {
    /// The seed of this run; `SLUICE_SEED` replays another's choices, though not its clock.
    static let seed =
        ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap(UInt64.init)
        ?? UInt64.random(in: 0..<1_000_000)

    /// Writes all four uses, as fast as can be, until it is told to stop.
    static func write(_ redis: RedisServer, client number: Int, until end: ContinuousClock.Instant)
        async throws -> Int
    {
        let client = try await redis.connect()
        defer { client.close() }
        var random = SplitMix64(seed: UInt64(number))
        var made = 0
        while ContinuousClock.now < end {
            var commands: [[String]] = []
            for _ in 0..<50 {
                made += 1
                switch random.pick(0..<8) {
                case 0:
                    commands.append([
                        "HSET", "session:\(random.pick(0..<200))", "user_id", "\(made)",
                        "note", "n\(made)",
                    ])
                case 1: commands.append(["EXPIRE", "session:\(random.pick(0..<200))", "9000"])
                case 2:
                    commands.append([
                        "ZADD", "z:\(random.pick(0..<4))", "\(made)", "p\(random.pick(0..<90))",
                    ])
                case 3:
                    commands.append([
                        "ZINCRBY", "z:\(random.pick(0..<4))", "0.1", "p\(random.pick(0..<90))",
                    ])
                case 4: commands.append(["XADD", "e:\(number)", "*", "n", "\(made)"])
                case 5 where random.oneIn(20):
                    commands.append(["DEL", "session:\(random.pick(0..<200))"])
                case 5 where random.oneIn(20):
                    commands.append(["HDEL", "session:\(random.pick(0..<200))", "note"])
                default:
                    commands.append([
                        "INCRBY", "c:\(random.pick(0..<500))", "\(random.pick(1..<9))",
                    ])
                }
            }
            try await client.sendAll(commands)
        }
        return made
    }

    @Test(
        "twenty SIGKILLs at random moments lose nothing and count nothing twice",
        arguments: DatabaseKind.allCases)
    func twentyKills(kind: DatabaseKind) async throws {
        print("seed \(Self.seed)")
        var random = SplitMix64(seed: Self.seed)
        let bench = try await Bench(kind, redisOptions: ["--repl-backlog-size", "200mb"])
        try await bench.start()
        let pauses = (0..<20).map { _ in random.pick(20..<700) }
        let end = ContinuousClock.now + .milliseconds(pauses.reduce(2_000, +) + 20 * 60)
        let writes = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<3 {
                group.addTask { try await Self.write(bench.redis, client: number, until: end) }
            }
            for pause in pauses {
                try await ContinuousClock().sleep(for: .milliseconds(pause))
                bench.sluice.stop(SIGKILL)
                try bench.sluice.start()
            }
            return try await group.reduce(0, +)
        }
        let isUp = await Eventually.holds {
            await bench.status()?["state"] as? String == "streaming"
        }
        #expect(isUp, "\(bench.sluice.log.suffix(2_000))")
        try bench.flush()
        try await bench.expectEqual("seed \(Self.seed), \(writes) writes")
        // Redis goes for good: what was received is committed all the same.
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<1_000).map { ["INCR", "c:\($0 % 500)"] })
        let sum = try await client.send(["MGET"] + (0..<500).map { "c:\($0)" })
            .reduce(0) { $0 + (Int($1 ?? "0") ?? 0) }
        let offset = try #require(
            try await client.number("master_repl_offset", in: "replication"))
        let hasReceived = await Eventually.holds {
            (await bench.status()?["processedOffset"] as? Int ?? 0) >= offset
        }
        #expect(hasReceived)
        bench.redis.stop(SIGKILL)
        #expect(bench.sluice.stop(SIGTERM) == 0, "\(bench.sluice.log.suffix(2_000))")
        #expect(try bench.number("SELECT sum(value) FROM counters") == sum)
    }

    @Test("the database away for some seconds loses nothing", arguments: [SIGQUIT, SIGSTOP])
    func databaseAway(signal: Int32) async throws {
        let bench = try await Bench(.postgres)
        try await bench.start()
        let end = ContinuousClock.now + .seconds(6)
        async let writes = Self.write(bench.redis, client: 0, until: end)
        try await ContinuousClock().sleep(for: .seconds(1))
        if signal == SIGSTOP { bench.postgres?.signal(SIGSTOP) } else { bench.postgres?.stop() }
        try await ContinuousClock().sleep(for: .seconds(3))
        if signal == SIGSTOP {
            bench.postgres?.signal(SIGCONT)
        } else {
            try await bench.postgres?.start()
        }
        _ = try await writes
        try bench.flush()
        try await bench.expectEqual()
        let warnings = bench.sluice.log.split(separator: "\n").count {
            $0.contains("does not take")
        }
        #expect(warnings <= 1, "it is said once")
    }

    @Test(
        "Redis killed and restarted from its AOF: nothing lost, rows follow",
        arguments: DatabaseKind.allCases)
    func redisRestarts(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind, redisOptions: ["--appendonly", "yes", "--appendfsync", "always"])
        try await bench.start()
        for round in 0..<3 {
            let client = try await bench.redis.connect()
            try await client.sendAll(
                (0..<2_000).map { ["INCRBY", "c:\($0 % 300)", "\(round + 1)"] })
            try await client.sendAll(
                (0..<300).map { ["HSET", "session:\($0)", "user_id", "\($0)"] })
            bench.redis.stop(round == 1 ? SIGTERM : SIGKILL)
            try await bench.redis.start()
        }
        let isUp = await Eventually.holds(within: .seconds(40)) {
            let status = await bench.status()
            return status?["state"] as? String == "streaming"
                && status?["isBaselineDone"] as? Bool == true
        }
        #expect(isUp, "\(bench.sluice.log.suffix(2_000))")
        try bench.flush()
        try await bench.expectEqual()
    }

    @Test(
        "a Redis that comes back older is followed, and the rows that went back are counted",
        arguments: DatabaseKind.allCases)
    func olderRedis(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<200).map { ["INCRBY", "c:\($0)", "5"] })
        try await client.sendAll(
            (0..<50).map { ["HSET", "session:\($0)", "user_id", "1", "x", "y"] })
        try await client.sendAll((0..<20).map { ["ZADD", "z:a", "1.5", "p\($0)"] })
        // While a replica is being attached, a server saves nothing else.
        let isSaved = await Eventually.holds { (try? await client.send("SAVE")) == ["OK"] }
        #expect(isSaved)
        // What comes now is lost by Redis, but not before the database has it.
        try await client.sendAll((0..<7).map { ["INCR", "c:\($0)"] })
        try await client.send("HSET", "session:3", "x", "z")
        try await client.send("ZINCRBY", "z:a", "1", "p4")
        try bench.flush()
        bench.redis.stop(SIGKILL)
        try await bench.redis.start()
        let isUp = await Eventually.holds(within: .seconds(30)) {
            (try? bench.sluice.command("flush"))?.code == 0
        }
        #expect(isUp, "\(bench.sluice.log)")
        try await bench.expectEqual()
        #expect(await bench.counter("baselineChanges") == 9)
        #expect(bench.sluice.log.contains("rows_changed=9"), "\(bench.sluice.log)")
    }

    @Test(
        "a stop in good order commits everything and exits with 0", arguments: DatabaseKind.allCases
    )
    func drain(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, interval: "30s")
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<5_000).map { ["INCR", "c:\($0 % 70)"] })
        let hasReceived = await Eventually.holds { await bench.counter("commands") >= 5_000 }
        #expect(hasReceived)
        #expect(bench.sluice.stop(SIGTERM) == 0, "\(bench.sluice.log)")
        try await bench.expectEqual()
    }

    @Test(
        "a second instance stands by, and takes over when the first is gone",
        arguments: DatabaseKind.allCases)
    func standby(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let text = try String(
            contentsOf: bench.folder.url.appending(path: "sluice.yaml"), encoding: .utf8)
        let other = try TemporaryFolder()
        let second = try SluiceProcess(
            in: other.url, configuration: text.components(separatedBy: "\nadmin:")[0])
        try second.start()
        let waits = await Eventually.holds { second.log.contains("another instance writes") }
        #expect(waits, "\(second.log)")
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<1_000).map { ["INCR", "c:\($0 % 70)"] })
        bench.sluice.stop(SIGKILL)
        let takesOver = await Eventually.holds { second.log.contains("Following") }
        #expect(takesOver, "\(second.log)")
        try await client.sendAll((0..<1_000).map { ["INCR", "c:\($0 % 70)"] })
        #expect(try second.command("flush").code == 0)
        try await bench.expectEqual()
        second.stop(SIGTERM)
    }
}
