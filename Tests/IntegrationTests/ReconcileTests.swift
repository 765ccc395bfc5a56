import Foundation
import SluiceTesting
import Testing

@Suite("Reconcile and repair", .serialized)
struct ReconcileTests {
    private static let tables =
        CauseTests.tables + """

              archive:
                keys: "a:<id>"
                string: { value: text }
                on_delete: keep
            """

    @Test(
        "rows without a key are counted after a gap, and go when a person says so",
        arguments: DatabaseKind.allCases)
    func afterGap(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind, tables: Self.tables, redisOptions: ["--enable-debug-command", "yes"])
        try await bench.start()
        let client = try await bench.redis.connect()
        for index in 0..<1_200 {
            try await client.send("SET", "c:\(index)", "\(index)")
            try await client.send("HSET", "h:\(index)", "user", "1")
        }
        try await client.send("ZADD", "z:a", "1", "m", "2", "n")
        try await client.send("SET", "a:1", "kept by policy")
        try await client.send("SET", "c:expired", "7", "PX", "50")
        try bench.flush()
        try await Task.sleep(for: .milliseconds(100))
        _ = try await client.send("GET", "c:expired")
        try bench.flush()

        // Sluice does not see these go, and a new history begins.
        bench.sluice.stop()
        for index in 0..<50 { try await client.send("DEL", "c:\(index)") }
        for index in 0..<600 { try await client.send("DEL", "h:\(index)") }
        try await client.send("ZREM", "z:a", "m")
        try await client.send("DEL", "a:1")
        #expect(try await client.send("DEBUG", "CHANGE-REPL-ID") == ["OK"])
        try await bench.start()
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM counters") == 1_201)
        #expect(await bench.counter("missing") == 651, "what outlived its key is not missing")

        let counted = try bench.sluice.command("reconcile")
        #expect(counted.code == 0)
        for text in ["counters: 50 of 1201", "sessions: 600 of 1200", "scores: 1 of 2"] {
            #expect(counted.output.contains(text), "\(counted.output)")
        }
        #expect(!counted.output.contains("archive"), "\(counted.output)")

        let refused = try bench.sluice.command("reconcile", "--delete-missing")
        #expect(refused.code == 65)
        #expect(refused.output.contains("nothing is deleted"), "\(refused.output)")
        #expect(try bench.number("SELECT count(*) FROM counters") == 1_201)

        let done = try bench.sluice.command("reconcile", "--delete-missing", "--yes")
        #expect(done.code == 0, "\(done.output)")
        let (told, after) = (
            "counters: 50 of 1201 rows have no key", "50 of 1201 rows were deleted"
        )
        let order = [told, after].map { done.output.firstRange(of: $0)?.lowerBound }
        #expect(order[0].map { first in order[1].map { first < $0 } ?? false } == true, "\(order)")
        #expect(try bench.number("SELECT count(*) FROM counters") == 1_151)
        #expect(try bench.number("SELECT count(*) FROM sessions") == 600)
        #expect(try bench.number("SELECT count(*) FROM scores") == 1)
        #expect(try bench.number("SELECT count(*) FROM archive") == 1)
        #expect(
            try bench.number("SELECT value FROM counters WHERE id = 'expired'") == 7,
            "a row that outlived its key stays")
        #expect((await bench.status()?["strayTables"] as? [String])?.contains("counters") == false)
        #expect(try bench.sluice.command("verify").code == 0)
        // From here on adds need no read again, and a kept total goes on.
        let reads = await bench.counter("reads")
        try await client.send("INCR", "c:1100")
        try await client.send("INCR", "c:expired")
        try await client.send("INCR", "c:7")
        try bench.flush()
        #expect(await bench.counter("reads") == reads)
        #expect(try bench.number("SELECT value FROM counters WHERE id = '1100'") == 1_101)
        #expect(try bench.number("SELECT value FROM counters WHERE id = 'expired'") == 8)
        #expect(try bench.number("SELECT value FROM counters WHERE id = '7'") == 1)
    }

    @Test(
        "a Redis that comes back empty changes no row by itself", arguments: DatabaseKind.allCases)
    func emptyRedis(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<300).map { ["INCRBY", "c:\($0)", "5"] })
        try await client.sendAll((0..<40).map { ["HSET", "h:\($0)", "user", "1"] })
        try await client.sendAll((0..<30).map { ["ZADD", "z:a", "1.5", "p\($0)"] })
        try await client.send("XADD", "e:a", "1-1", "f", "v")
        try bench.flush()
        let counts =
            "SELECT (SELECT count(*) FROM counters), (SELECT count(*) FROM sessions), "
            + "(SELECT count(*) FROM scores), (SELECT count(*) FROM events)"
        // It has no AOF and no snapshot: all is lost.
        bench.redis.stop(SIGKILL)
        try await bench.redis.start()
        let isUp = await Eventually.holds(within: .seconds(30)) {
            (try? bench.sluice.command("flush"))?.code == 0
        }
        #expect(isUp, "\(bench.sluice.log)")
        #expect(try bench.query(counts) == [["300", "40", "30", "1"]])
        #expect(await bench.counter("missing") == 370)
        #expect(bench.sluice.log.contains("rows_without_key=370"), "\(bench.sluice.log)")
        let status = await bench.status()
        #expect(status?["strayTables"] as? [String] == ["counters", "scores", "sessions"])
        let refused = try bench.sluice.command("reconcile", "--delete-missing")
        #expect(refused.code == 65 && refused.output.contains("counters: 300 of 300"))
        #expect(try bench.query(counts) == [["300", "40", "30", "1"]])
        // What the application writes now is right, although the rows of before are there.
        let again = try await bench.redis.connect()
        try await again.send("INCR", "c:7")
        try await again.send("ZADD", "z:a", "9", "p3")
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = '7'") == 1)
        #expect(try bench.query(counts) == [["300", "40", "30", "1"]])
        // A trim has all of the key read, and still takes no row of before along.
        try await again.send("ZADD", "z:a", "1", "new", "2", "newer")
        try bench.flush()
        for _ in 0..<2 { try await again.send("ZPOPMIN", "z:a") }
        try bench.flush()
        let rows = try bench.query("SELECT * FROM scores ORDER BY 1, 2")
        #expect(try bench.query(counts) == [["300", "40", "30", "1"]], "\(rows)")
        try await again.send("ZADD", "z:b", "1", "m")
        try bench.flush()
        try await again.send("ZPOPMIN", "z:b")
        try bench.flush()
        #expect(try bench.query(counts) == [["300", "40", "30", "1"]])
        #expect(
            try bench.sluice.command("reconcile", "--delete-missing", "--yes").code == 0)
        #expect(try bench.query(counts) == [["1", "0", "1", "1"]])
        try await bench.expectEqual()
    }

    @Test("a key that became another type in a gap leaves a row that is found and goes")
    func otherType() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                tables:
                  strings: { keys: "<key>", string: { value: text } }
                  hashes: { keys: "<key>", hash: { f: text } }
                """, redisOptions: ["--enable-debug-command", "yes"])
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("HSET", "a", "f", "1")
        try await client.send("SET", "b", "1")
        try bench.flush()
        bench.sluice.stop()
        try await client.send("DEL", "a", "b")
        try await client.send("SET", "a", "2")
        try await client.send("HSET", "b", "f", "2")
        #expect(try await client.send("DEBUG", "CHANGE-REPL-ID") == ["OK"])
        try await bench.start()
        try bench.flush()
        #expect(try bench.query("SELECT key FROM hashes ORDER BY 1") == [["a"], ["b"]])
        #expect(await bench.counter("missing") == 2)
        let done = try bench.sluice.command("reconcile", "--delete-missing", "--yes")
        #expect(done.code == 0, "\(done.output)")
        #expect(try bench.query("SELECT key FROM hashes") == [["b"]])
        #expect(try bench.query("SELECT key FROM strings") == [["a"]])
        try await bench.expectEqual()
        #expect(try bench.sluice.command("verify").code == 0)
    }

    @Test("keys that come and go while rows are reconciled lose no row")
    func underTraffic() async throws {
        let seed = CrashTests.seed
        print("seed \(seed)")
        let bench = try await Bench(
            .sqlite, redisOptions: ["--enable-debug-command", "yes"], interval: "20ms")
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<2_000).map { ["SET", "c:\($0)", "1"] })
        try bench.flush()
        bench.sluice.stop()
        try await client.sendAll((0..<1_500).map { ["DEL", "c:\($0)"] })
        #expect(try await client.send("DEBUG", "CHANGE-REPL-ID") == ["OK"])
        try await bench.start()
        let writer = Task {
            var random = SplitMix64(seed: seed)
            let other = try await bench.redis.connect()
            while !Task.isCancelled {
                let key = "c:\(random.pick(0..<2_000))"
                switch random.pick(0..<4) {
                case 0: try await other.send("DEL", key)
                case 1: try await other.send("SET", key, "\(random.pick(0..<100))")
                default: try await other.send("INCR", key)
                }
            }
        }
        var code: Int32 = -1
        for _ in 0..<20 where code != 0 {
            try await Task.sleep(for: .milliseconds(50))
            code = try bench.sluice.command("reconcile", "--delete-missing", "--yes").code
        }
        writer.cancel()
        _ = await writer.result
        #expect(code == 0)
        try bench.flush()
        try await bench.expectEqual("seed \(seed)")
    }

    @Test("rows that stay in doubt go when a person says that they may")
    func doubtful() async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<100).map { ["INCR", "c:\($0)"] })
        try bench.flush()
        // Why these go is not seen: they might have expired.
        bench.sluice.stop()
        try await client.sendAll((0..<60).map { ["DEL", "c:\($0)"] })
        try await bench.start()
        try bench.flush()
        #expect(await bench.counter("doubtful") == 60)
        #expect(try bench.sluice.command("reconcile").output.contains("counters: 0 of 100"))
        let counted = try bench.sluice.command("reconcile", "--doubtful")
        #expect(counted.output.contains("counters: 60 of 100"), "\(counted.output)")
        let done = try bench.sluice.command(
            "reconcile", "--doubtful", "--delete-missing", "--yes", "--json")
        #expect(done.code == 0 && done.output.contains("\"missing\" : 60"), "\(done.output)")
        #expect(try bench.number("SELECT count(*) FROM counters") == 40)
        let kept = try bench.query("SELECT table_name, CAST(key AS TEXT), state FROM sluice_kept")
        #expect(kept == [])
    }

    @Test("verify --repair writes what differs anew", arguments: ["c", "z", "e"])
    func repair(kind: String) async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("SET", "c:a", "5")
        try await client.send("SET", "c:b", "6")
        try await client.send("ZADD", "z:a", "5", "m", "6", "n")
        try await client.send("HSET", "session:1", "user_id", "1", "other", "x")
        try await client.send("RPUSH", "l:a", "x", "y")
        try await client.send("XADD", "e:a", "1-1", "f", "v")
        try bench.flush()
        let harm =
            switch kind {
            case "c":
                """
                UPDATE counters SET value = -1 WHERE id = 'a'; DELETE FROM counters WHERE id = 'b';
                UPDATE sessions SET user_id = 9; DELETE FROM queues
                """
            case "z":
                """
                UPDATE scores SET points = 1 WHERE player = 'm'; DELETE FROM scores
                WHERE player = 'n'; INSERT INTO scores VALUES ('a', 'nobody', 3)
                """
            default: "DELETE FROM events"
            }
        try bench.tamper(harm)
        #expect(try bench.sluice.command("verify").code == 65)
        let repaired = try bench.sluice.command("verify", "--repair")
        #expect(repaired.code == 0, "\(repaired.output)")
        try await bench.expectEqual(repaired.output)
        // A row that nobody knows a key of is not for --repair to delete.
        try bench.tamper("INSERT INTO counters VALUES ('none', 3)")
        let extra = try bench.sluice.command("verify", "--repair")
        #expect(extra.code == 65 && extra.output.contains("reconcile"), "\(extra.output)")
        #expect(
            try bench.sluice.command("reconcile", "--delete-missing", "--share", "60%").code == 0)
        #expect(try bench.sluice.command("verify").code == 0)
    }

    @Test("a tenth of a table goes without --yes, and more does not", arguments: [8, 12])
    func share(percent: Int) async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.tables, redisOptions: ["--enable-debug-command", "yes"])
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<200).map { ["SET", "c:\($0)", "1"] })
        try await bench.start()
        bench.sluice.stop()
        let gone = 200 * percent / 100
        try await client.sendAll((0..<gone).map { ["DEL", "c:\($0)"] })
        try await client.send("DEBUG", "CHANGE-REPL-ID")
        try bench.sluice.start()
        // Until it hears of the gap, it says that the baseline is done.
        #expect(await Eventually.holds { await bench.counter("missing") == gone })
        let result = try bench.sluice.command("reconcile", "--delete-missing")
        let isAllowed = percent < 10
        #expect(result.code == (isAllowed ? 0 : 65), "\(result.output)")
        #expect(
            try bench.number("SELECT count(*) FROM counters") == (isAllowed ? 200 - gone : 200))
    }
}
