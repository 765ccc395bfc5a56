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

    @Test("a command that does nothing removes no row of a key that went while nobody looked")
    func nothingDone() async throws {
        let marking = Marking.function
        let bench = try await Bench(
            .sqlite, tables: Self.counters, redisSettings: marking.setting)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll(marking.commands(["SET", "c:a", "7", "PX", "300"]))
        try bench.flush()
        bench.sluice.stop(SIGKILL)
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
}
