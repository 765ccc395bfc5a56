import Foundation
import SluiceTesting
import Testing

/// What a review once broke.
@Suite("Marks at the edge", .serialized)
struct MarkEdgeTests {
    private static let counters = CaptureTests.counters

    @Test("a flush removes no row, though its keys were changed and not read yet")
    func flushed() async throws {
        let marking = Marking.function
        let bench = try await Bench(
            .sqlite, tables: Self.counters, interval: "1s", redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        for round in 0..<3 {
            try await client.sendAll(
                (0..<200).flatMap { marking.commands(["INCRBY", "c:\($0)", "7"]) })
            try bench.flush()
            try await client.sendAll(
                (0..<200).flatMap { marking.commands(["INCRBY", "c:\($0)", "1"]) })
            try await client.send(round == 1 ? ["FLUSHALL"] : ["FLUSHDB"])
            try await client.sendAll(
                (0..<200).flatMap { marking.commands(["EXPIRE", "c:\($0)", "100"]) })
            try bench.flush()
            #expect(try bench.number("SELECT count(*) FROM counters") == 200)
        }
    }

    @Test("a flush between the taking of marks and the reading of their keys removes no row")
    func flushedMeanwhile() async throws {
        let marking = Marking.function
        let bench = try await Bench(
            .sqlite, tables: Self.counters, interval: "20ms", redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let keys = 0..<50
        try await client.sendAll(keys.flatMap { marking.commands(["SET", "c:\($0)", "1"]) })
        try bench.flush()
        // Hundreds of them wait in Redis: the first one after the marks were taken flushes, before Sluice
        // has had its answer.
        let flush = """
            if redis.call('EXISTS', 'sluice:dirty') == 0 then redis.call('FLUSHDB') end
            """
        let flushes = Array(repeating: ["EVAL", flush, "1", "sluice:dirty"], count: 200)
        for _ in 0..<10 {
            // Whether keys went by themselves is known again some rounds after a flush.
            try await Task.sleep(for: .milliseconds(300))
            #expect(try bench.number("SELECT count(*) FROM counters") == keys.count)
            try await client.sendAll(keys.flatMap { marking.commands(["INCR", "c:\($0)"]) })
            repeat {
                try await client.sendAll(flushes)
            } while try await client.send("EXISTS", "c:0") == ["1"]
        }
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM counters") == keys.count)
    }

    @Test("a command that does nothing removes no row of a key that went while nobody looked")
    func nothingDone() async throws {
        let marking = Marking.function
        let bench = try await Bench(
            .sqlite, tables: Self.counters, redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll(marking.commands(["SET", "c:a", "7", "PX", "300"]))
        try bench.flush()
        // In good order, so that no mark is left that tells of the key.
        bench.sluice.stop(SIGTERM)
        let isGone = await Eventually.holds { (try? await client.send("EXISTS", "c:a")) == ["0"] }
        #expect(isGone)
        try bench.sluice.start()
        let isUp = await Eventually.holds { (try? bench.sluice.command("flush"))?.code == 0 }
        #expect(isUp)
        try await client.sendAll(marking.commands(["EXPIRE", "c:a", "3600"]))
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters") == 7)
    }

    @Test("marks of any score are taken, and a flush waits for all of them")
    func scores() async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.counters, interval: "5s",
            redisSettings: Marking.transaction.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let far = "\(Int(Date().timeIntervalSince1970 * 1_000) + 3_600_000)"
        try await client.sendAll(
            (0..<3_000).flatMap { number in
                [
                    ["SET", "c:\(number)", "1"],
                    ["ZADD", "sluice:dirty", "LT", far, "c:\(number)"],
                ]
            })
        for (key, score) in [("c:low", "-9223372036854775808"), ("c:inf", "inf")] {
            try await client.send("SET", key, "1")
            try await client.send("ZADD", "sluice:dirty", score, key)
        }
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM counters") == 3_002)
    }

    @Test(
        "a Redis without memory goes on being followed, and takes what makes room",
        arguments: [ServerKind.supported[0], .tooOld])
    func full(server: ServerKind) async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.counters, server: server,
            redisSettings: Marking.transaction.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll(
            (0..<500).flatMap { Marking.transaction.commands(["SET", "c:\($0)", "\($0)"]) })
        try await client.send("CONFIG", "SET", "maxmemory", "1000000")
        #expect(try await client.send("SET", "other", "v")[0]?.contains("OOM") == true)
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM counters") == 500)
        bench.sluice.stop(SIGKILL)
        try bench.sluice.start()
        let isUp = await Eventually.holds { (try? bench.sluice.command("flush"))?.code == 0 }
        #expect(isUp, "\(bench.sluice.log)")
        guard server != .tooOld else { return }
        try await client.send("CONFIG", "SET", "maxmemory", "0")
        try await client.sendAll(Marking.transaction.commands(["SET", "c:1", "5"]))
        try bench.flush()
        try await client.send("CONFIG", "SET", "maxmemory", "1000000")
        #expect(
            try await client.send("FCALL", "sluice_remove", "1", "c:1", "DEL", "c:1") == ["1"])
        let refused = try await client.send("FCALL", "sluice_remove", "1", "c:2", "INCR", "c:2")
        #expect(refused[0]?.contains("use sluice_write") == true)
    }

    @Test("a database that is older than the cleared marks has every key read")
    func restored() async throws {
        let marking = Marking.function
        let bench = try await Bench(
            .sqlite, tables: Self.counters, redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll(marking.commands(["SET", "c:a", "1"]))
        try bench.flush()
        #expect(bench.sluice.stop(SIGTERM) == 0)
        let database = bench.folder.url.appending(path: "test.db")
        let backup = bench.folder.url.appending(path: "backup.db")
        try FileManager.default.copyItem(at: database, to: backup)
        try bench.sluice.start()
        let isUp = await Eventually.holds { (try? bench.sluice.command("flush"))?.code == 0 }
        #expect(isUp)
        try await client.sendAll(marking.commands(["SET", "c:b", "2"]))
        try bench.flush()
        #expect(bench.sluice.stop(SIGTERM) == 0)
        for suffix in ["", "-wal", "-shm"] {
            try? FileManager.default.removeItem(
                at: bench.folder.url.appending(path: "test.db" + suffix))
        }
        try FileManager.default.copyItem(at: backup, to: database)
        try bench.sluice.start()
        let isBack = await Eventually.holds { (try? bench.sluice.command("flush"))?.code == 0 }
        #expect(isBack)
        #expect(try bench.number("SELECT sum(value) FROM counters") == 3, "\(bench.sluice.log)")
    }

    @Test("the documented permissions suffice on Redis 6.2 as the page writes them for it")
    func oldPermissions() async throws {
        let bench = try await Bench(
            .sqlite, server: .tooOld, redisSettings: Marking.transaction.setting)
        let admin = try await bench.redis.connect()
        let page = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/capture.md")
        let line =
            try String(contentsOf: page, encoding: .utf8).split(separator: "\n")
            .first { $0.hasPrefix("ACL SETUSER sluice on") } ?? ""
        let old = line.replacing(">PASSWORD", with: ">secret").replacing(
            "%R~* ~sluice:*", with: "~*"
        )
        .replacing("+pexpiretime", with: "+pttl +time")
        #expect(try await admin.send(old.split(separator: " ").map(String.init)) == ["OK"])
        // Two tables that share keys ask for their type.
        let twins = "\n  twins: { keys: \"z:<id>\", set: { member: member } }"
        let other = try bench.another {
            $0.replacing("redis://127", with: "redis://sluice:secret@127")
                .replacing("\nadmin:", with: "\(twins)\nadmin:")
        }
        try other.start()
        let isUp = await Eventually.holds { (try? other.command("flush"))?.code == 0 }
        #expect(isUp, "\(other.log)")
        try await admin.sendAll(
            [
                ["SET", "c:a", "1"], ["HSET", "session:a", "user_id", "1", "x", "y"],
                ["PEXPIRE", "session:a", "60000"], ["ZADD", "z:a", "1", "m"], ["SADD", "s:a", "m"],
                ["RPUSH", "l:a", "i"], ["XADD", "e:a", "*", "n", "1"],
            ].flatMap { Marking.transaction.commands($0) })
        #expect(try other.command("flush").code == 0, "\(other.log)")
        for table in ["counters", "sessions", "scores", "tags", "queues", "events"] {
            #expect(try bench.number("SELECT count(*) FROM \(table)") == 1, "\(table)")
        }
        #expect(other.stop(SIGTERM) == 0)
    }

    @Test("a key that expires, which nobody marks, takes its row along where all causes delete")
    func expires() async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.counters + "\n    on_expire: delete\n    on_evict: delete",
            redisSettings: Marking.function.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll(Marking.function.commands(["SET", "c:a", "7", "PX", "400"]))
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM counters") == 1)
        let isGone = await Eventually.holds {
            (try? bench.number("SELECT count(*) FROM counters")) == 0
        }
        #expect(isGone, "\(bench.sluice.log)")
    }

    @Test("what tracking does not say, such as SWAPDB, is found when every key is read anew")
    func audit() async throws {
        let bench = try await Bench(
            .sqlite, tables: "tracking: { audit_interval: 1s }\n" + Self.counters,
            redisSettings: Marking.tracking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        let other = try await bench.redis.connect(database: 1)
        try await client.send("SET", "c:a", "1")
        try await other.send("SET", "c:a", "2")
        try await other.send("SET", "c:b", "3")
        try bench.flush()
        try await client.send("SWAPDB", "0", "1")
        let isFound = await Eventually.holds {
            (try? bench.query("SELECT id, value FROM counters ORDER BY id"))
                == [["a", "2"], ["b", "3"]]
        }
        #expect(isFound, "\(bench.sluice.log)")
    }

    @Test("one member of a large set costs no other row, not even for a moment")
    func largeSet() async throws {
        let members = 120_000
        let bench = try await Bench(
            .sqlite,
            tables: """
                buffer:
                  max_memory: 16MB
                tables:
                  tags:
                    keys: "s:<name>"
                    set: { member: tag }
                """, redisSettings: Marking.transaction.setting)
        let client = try await bench.redis.connect()
        for start in stride(from: 0, to: members, by: 1_000) {
            try await client.send(["SADD", "s:a"] + (start..<start + 1_000).map { "m\($0)" })
        }
        try await bench.start()
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM tags") == members)
        let isFlushed = Flag()
        async let fewest = Self.fewest(bench, until: isFlushed)
        try await client.sendAll(Marking.transaction.commands(["SADD", "s:a", "new"]))
        try bench.flush()
        isFlushed.set()
        let seen = try await fewest
        print("fewest rows: \(seen) of \(members); \(await bench.counter("commits")) commits")
        #expect(seen >= members)
        #expect(try bench.number("SELECT count(*) FROM tags") == members + 1)
    }

    private static func fewest(_ bench: Bench, until isDone: Flag) async throws -> Int {
        var fewest = Int.max
        while !isDone.isSet {
            fewest = min(fewest, try bench.number("SELECT count(*) FROM tags") ?? 0)
            try await Task.sleep(for: .milliseconds(10))
        }
        return fewest
    }
}
