import Foundation
import SluiceTesting
import Testing

/// `SLUICE_MEMBERS=1000000` makes the keys larger.
@Suite("Large keys", .serialized)
struct LargeKeyTests {
    static let members = Int(ProcessInfo.processInfo.environment["SLUICE_MEMBERS"] ?? "") ?? 200_000
    /// The longest that Redis may be busy with anything that Sluice asks, in microseconds.
    static let slowMicroseconds = 50_000

    static let tables = """
        buffer:
          max_memory: 32MB
        tables:
          scores:
            keys: "z:<board>"
            sorted_set: { member: player, score: points }
          tags:
            keys: "s:<name>"
            set: { member: tag }
          sessions:
            keys: "session:<id>"
            hash: { user_id: integer, last_seen: timestamp }
          queues:
            keys: "l:<name>"
            list: { items: json }
        """

    @Test("a large key is read in small parts while it changes, in bounded memory")
    func pages() async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.tables,
            redisOptions: ["--slowlog-log-slower-than", "\(Self.slowMicroseconds)"])
        let client = try await bench.redis.connect()
        try await fill(client)
        try await client.send("SLOWLOG", "RESET")
        let before = try await latencies(client, count: 5_000)
        try await bench.start()
        try bench.flush()
        let found = try bench.number("SELECT count(*) FROM scores") ?? 0
        let status = await bench.status() ?? [:]
        #expect(found == Self.members, "\(status)")

        // All of it changes at once, and goes on changing while it is read.
        let writer = Task {
            let writer = try await bench.redis.connect()
            var random = SplitMix64(seed: 9)
            while !Task.isCancelled {
                let player = "p\(random.pick(0..<Self.members))"
                try await writer.sendAll([
                    ["ZINCRBY", "z:new", "3", player],
                    ["ZREM", "z:new", "p\(random.pick(0..<999))"],
                    ["ZADD", "z:new", "5", "n\(random.pick(0..<9_999))"],
                    ["SADD", "s:new", "n\(random.pick(0..<9_999))"],
                    ["SREM", "s:new", "m\(random.pick(0..<999))"],
                ])
                try await Task.sleep(for: .milliseconds(2))
            }
        }
        try await client.send("RENAME", "z:old", "z:new")
        try await client.send("RENAME", "s:old", "s:new")
        try await client.send("HSET", "session:1", "user_id", "8")
        try await client.send("HDEL", "session:1", "f1")
        try await client.send("RENAME", "l:old", "l:new")
        let flushed = Task { try bench.flush() }
        let during = try await latencies(client, count: 5_000)
        try await flushed.value
        writer.cancel()
        _ = await writer.result
        try bench.flush()
        let slow = try await client.send("SLOWLOG", "GET", "10").compactMap { $0 }
            .filter { ["EXEC", "ZSCAN", "SSCAN", "HGETALL"].contains($0.uppercased()) }
        #expect(slow.isEmpty, "\(slow)")
        if Self.members <= 300_000 { try await bench.expectEqual() }
        let cards = try await [client.send("ZCARD", "z:new"), client.send("SCARD", "s:new")]
        #expect(
            try bench.query("SELECT count(*) FROM scores UNION ALL SELECT count(*) FROM tags")
                == cards)
        let sum =
            "local s = 0; local z = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'); "
            + "for i = 2, #z, 2 do s = s + z[i] end; return s"
        let total = try await client.send("EVAL_RO", sum, "1", "z:new").first ?? nil
        #expect(
            try bench.number("SELECT CAST(sum(points) AS INTEGER) FROM scores")
                == total.flatMap { Int($0) })
        #expect(try bench.number("SELECT count(*) FROM scores WHERE board = 'old'") == 0)
        let reads = await bench.counter("reads")
        let resident = bench.sluice.residentMegabytes ?? 0
        print(
            "\(Self.members) members: \(reads) reads; p99 of another client before and while: "
                + "\(before) and \(during) ms; \(resident) MB resident")
    }

    private func fill(_ client: RedisClient) async throws {
        for start in stride(from: 0, to: Self.members, by: 1_000) {
            let range = start..<min(Self.members, start + 1_000)
            try await client.sendAll([
                ["ZADD", "z:old"] + range.flatMap { ["\($0 % 777)", "p\($0)"] },
                ["SADD", "s:old"] + range.map { "m\($0)" },
                ["HSET", "session:1"] + range.flatMap { ["f\($0)", "\($0)"] },
                ["RPUSH", "l:old"] + range.filter { $0 < 100_000 }.map { "\($0)" } + ["end"],
            ])
        }
        try await client.send("HSET", "session:1", "user_id", "7")
    }

    // The 99th percentile of an answer's time, in milliseconds.
    private func latencies(
        _ client: RedisClient, count: Int,
    ) async throws -> Double {
        var times: [Duration] = []
        let clock = ContinuousClock()
        while times.count < count {
            times.append(try await clock.measure { _ = try await client.send("GET", "none") })
        }
        let duration = times.sorted()[times.count * 99 / 100]
        return Double(duration.components.attoseconds / 1_000_000_000_000) / 1_000
    }
}
