import Foundation
import Synchronization
import SluiceTesting
import Testing

@Suite("Verify", .serialized)
struct VerifyTests {
    @Test(
        "random commands of all types, with crashes, leave no difference",
        arguments: [ServerKind.supported[1], ServerKind.supported[2]], DatabaseKind.allCases)
    func randomCommands(server: ServerKind, database: DatabaseKind) async throws {
        let variables = ProcessInfo.processInfo.environment
        let seed = CrashTests.seed
        let steps = variables["SLUICE_STEPS"].flatMap { Int($0) } ?? 8_000
        let name = "\(server), \(database), seed \(seed)"
        print(name)
        let folder = try TemporaryFolder("sluice-random")
        let bench = try await Bench(
            database, tables: try ServerTests.mirror(folder.url),
            redisOptions: ["--maxmemory-policy", "allkeys-random"], interval: "20ms", server: server
        )
        try await bench.start()
        let operations = try await bench.redis.connect()
        let clients = try await RandomCommands.clients(bench.redis, count: 3, seed: seed)
        var random = SplitMix64(seed: seed)
        var kills = 0
        let rounds = 4
        for round in 0..<rounds {
            let isLast = round == rounds - 1
            let isDone = Mutex(false)
            let traffic = Task {
                defer { isDone.withLock { $0 = true } }
                try await RandomCommands.run(clients, steps: steps / rounds, round: round)
            }
            repeat {
                try await Task.sleep(for: .milliseconds(random.pick(20..<300)))
                bench.sluice.stop()
                kills += 1
                try bench.sluice.start()
                try await Self.evict(operations)
                // Every key is another one at once.
                if isLast { try await operations.send("SWAPDB", "0", "3") }
            } while !isDone.withLock { $0 }
            try await traffic.value
            // So that there is something to compare, however much was evicted.
            try await RandomCommands.run(clients, steps: 300, round: rounds + round)
            let isFlushed = await Eventually.holds(within: .seconds(60)) {
                (try? bench.sluice.command("flush"))?.code == 0
            }
            #expect(isFlushed, "\(name), round \(round) \(bench.sluice.log)")
            // The rows of keys that went to the other database stay, until a person says so.
            if isLast {
                let isGone = try bench.sluice.command("reconcile", "--delete-missing", "--yes")
                #expect(isGone.code == 0, "\(name) \(isGone.output)")
            }
            let result = try bench.report("verify", "--json")
            #expect(
                result.code == 0, "\(name), round \(round) \(result.output.prefix(2_000))")
            #expect(result.compared > 50, "\(name), round \(round)")
        }
        // An entry of a stream that was there before is all that a mirror can't take.
        let letters = try bench.query("SELECT code FROM sluice_dead_letters")
        #expect(letters.allSatisfy { $0 == ["stream.id_reused"] }, "\(name) \(letters)")
        #expect(letters.count <= steps / 400, "\(name): \(letters.count)")
        #expect(try bench.kept().isEmpty, "\(name): a mirror keeps nothing")
        print("\(name): \(kills) kills, \(letters.count) set aside")
        let evicted = try await operations.number("evicted_keys", in: "stats") ?? 0
        #expect(evicted > 0)
    }

    // Takes some memory away for a moment.
    private static func evict(_ client: RedisClient) async throws {
        let used = try #require(try await client.number("used_memory", in: "memory"))
        let spared = try #require(
            try await client.number("mem_not_counted_for_evict", in: "memory"))
        try await client.send("CONFIG", "SET", "maxmemory", "\(used - spared - 4_000)")
        try await Task.sleep(for: .milliseconds(20))
        try await client.send("CONFIG", "SET", "maxmemory", "0")
    }

    @Test(
        "rows that change all the time are compared, and what differs is found",
        arguments: DatabaseKind.allCases, ServerKind.supported)
    func live(kind: DatabaseKind, server: ServerKind) async throws {
        let bench = try await Bench(kind, server: server)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<50).map { ["SET", "c:\($0)", "1000"] })
        try await client.send("ZADD", "z:a", "5", "m", "6", "n")
        try bench.flush()
        // An instance that never knew the rows only adds to them.
        bench.sluice.stop(SIGTERM)
        try await bench.start()
        try bench.tamper("UPDATE counters SET value = value + 1 WHERE id IN ('7', '8')")
        let traffic = VerifyTraffic(bench.redis)
        try await Task.sleep(for: .milliseconds(300))
        for _ in 0..<3 {
            // Adds go on top of what was tampered with: those rows differ at every offset.
            let found = try bench.report("verify", "--json")
            #expect(found.differences.count == 2, "\(found.output)")
            for id in ["7", "8"] {
                let isFound = found.differences.contains {
                    $0.hasPrefix("counters \(id): different")
                }
                #expect(isFound, "\(found.output)")
            }
            // What had to be read at each look may be open: what is appended to, or loses fields.
            #expect(
                found.openRows.allSatisfy { $0.hasPrefix("texts ") || $0.hasPrefix("sessions ") },
                "\(found.output)")
        }
        let mended = try bench.report("verify", "--repair", "--json")
        // 75 says that some row could not be compared: those that lose fields all the time.
        let again = try bench.report("verify", "--json")
        for report in [mended, again] {
            #expect(report.differences.isEmpty, "\(report.output)")
            #expect(report.code == (report.open == 0 ? 0 : 75), "\(report.output)")
            #expect(
                report.openRows.allSatisfy { $0.hasPrefix("texts ") || $0.hasPrefix("sessions ") })
        }
        await traffic.stop()
        // The last short keys go by themselves.
        try await Task.sleep(for: .milliseconds(300))
        try bench.flush()
        try await bench.expectEqual()
        #expect(await bench.counter("resynchronisations") == 0)
    }

    @Test("what is missing and extra is found, by table and by sample")
    func kinds() async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("ZADD", "z:a", "5", "m", "6", "n")
        try bench.flush()
        try bench.tamper(
            """
            DELETE FROM scores WHERE player = 'm'; INSERT INTO tags VALUES ('a', 'nobody');
            INSERT INTO scores VALUES ('a', 'nobody', 3)
            """)
        let found = try bench.sluice.command("verify")
        #expect(found.code == 65)
        for text in ["scores a m: missing", "scores a nobody: extra", "tags a nobody: extra"] {
            #expect(found.output.contains(text), "\(found.output)")
        }
        #expect(try bench.sluice.command("verify", "--table", "sessions").code == 0)
        // The key of the tag is gone, so nothing says that its row may go.
        let mended = try bench.sluice.command("verify", "--repair")
        #expect(mended.code == 65 && mended.output.contains("1 differ"), "\(mended.output)")
        #expect(mended.output.contains("reconcile --delete-missing"), "\(mended.output)")
        // A share of the keys is the same share on both sides, and finds some of what differs.
        try await client.sendAll((0..<400).map { ["SET", "t:\($0)", "x"] })
        try bench.flush()
        try bench.tamper("UPDATE texts SET value = 'y'")
        let some = try bench.report("verify", "--table", "texts", "--sample", "25%", "--json")
        #expect(some.code == 65 && (50..<150).contains(some.differ), "\(some.output.suffix(200))")
        #expect(try bench.sluice.command("verify", "--sample", "0").code == 64)
    }

    @Test("a comparison that dies, and one beside another, hold up nothing for long")
    func holds() async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        let client = try await bench.redis.connect()
        let held = try await bench.post("/hold")
        #expect(held.status == 200)
        #expect(try await bench.post("/hold").status == 409)
        try await client.send("SET", "c:1", "5")
        // Beyond what Redis has, nothing is reached before the hold ends.
        let text = String(decoding: held.body, as: UTF8.self)
        #expect(try await bench.post("/advance", body: Data("{}".utf8)).status == 400)
        let start = ContinuousClock.now
        let beyond = text.replacing(/"offset":\d+/, with: "\"offset\":999999999999")
        #expect(try await bench.post("/advance", body: Data(beyond.utf8)).status == 409)
        #expect(ContinuousClock.now - start < .seconds(20))
        #expect(try await bench.post("/release", body: held.body).status == 409)
        let isThere = await Eventually.holds(within: .seconds(10)) {
            (try? bench.number("SELECT value FROM counters WHERE id = '1'")) == 5
        }
        #expect(isThere, "\(bench.sluice.log)")
        // A hold puts off no stop in good order.
        #expect(try await bench.post("/hold").status == 200)
        try await client.send("SET", "c:1", "6")
        let stopping = ContinuousClock.now
        #expect(bench.sluice.stop(SIGTERM) == 0)
        #expect(ContinuousClock.now - stopping < .seconds(5))
        try await bench.start()
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = '1'") == 6)
    }
}

extension Bench {
    /// What `verify --json` says.
    struct VerifyReport {
        let code: Int32
        let output: String
        let compared: Int
        let differ: Int
        let open: Int
        let differences: [String]
        let openRows: [String]
    }

    func report(_ arguments: String...) throws -> VerifyReport {
        let result = try sluice.command(arguments)
        let object = try? JSONSerialization.jsonObject(with: Data(result.output.utf8))
        let fields = object as? [String: Any] ?? [:]
        return VerifyReport(
            code: result.code, output: result.output, compared: fields["compared"] as? Int ?? -1,
            differ: fields["differ"] as? Int ?? -1, open: fields["open"] as? Int ?? -1,
            differences: fields["differences"] as? [String] ?? [],
            openRows: fields["openRows"] as? [String] ?? ["?"])
    }
}
