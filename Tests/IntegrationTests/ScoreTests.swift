import Foundation
import SluiceTesting
import Testing

/// Points that players get while their leaderboard expires and comes back, again and again.
@Suite("Scores that outlive their key", .serialized)
struct ScoreTests {
    @Test(
        "every point of every player is in the row, however the key's expiry falls among them",
        arguments: DatabaseKind.allCases)
    func total(kind: DatabaseKind) async throws {
        let seed = CrashTests.seed
        print("\(kind): seed \(seed)")
        var random = SplitMix64(seed: seed)
        let tables = """
            tables:
              scores:
                keys: "z:<board>"
                sorted_set: { member: player, score: points }
            """
        let bench = try await Bench(kind, tables: tables, interval: "200ms")
        try await bench.start()
        let client = try await bench.redis.connect()
        var points: [String: Int] = [:]
        var expired = 0
        var round = 0
        // How many expiries a round has hangs on chance and on the machine: on until there are some.
        while round < 12 || expired <= 10 {
            try #require(round < 200, "\(kind): seed \(seed), \(expired) expiries")
            if round % 4 == 3 {
                // A new instance knows no row. While it is away, nobody could say why a key went.
                try await client.send("PERSIST", "z:a")
                try bench.flush()
                bench.sluice.stop()
                try await bench.start()
            }
            for _ in 0..<60 {
                let player = "p\(random.pick(0..<8))"
                for _ in 0..<random.pick(1..<4) {
                    let number = random.pick(1..<9)
                    try await client.send("ZINCRBY", "z:a", "\(number)", player)
                    points[player, default: 0] += number
                }
                if random.oneIn(20) { try await client.send("PEXPIRE", "z:a", "3") }
                guard random.oneIn(15) else { continue }
                try await Task.sleep(for: .milliseconds(random.pick(1..<90)))
            }
            round += 1
            expired = try await client.number("expired_keys", in: "stats") ?? 0
        }
        print("\(kind): \(expired) expiries in \(round) rounds")
        try await client.send("PERSIST", "z:a")
        try bench.flush()
        let rows = try bench.query("SELECT player, CAST(points AS INTEGER) FROM scores")
        let found = Dictionary(uniqueKeysWithValues: rows.map { ($0[0] ?? "", Int($0[1] ?? "")) })
        #expect(found == points, "\(kind): seed \(seed), \(expired) expiries")
        #expect(await bench.counter("vanished") == 0)
        #expect(await bench.counter("doubtful") == 0)
        #expect(try bench.deadLetters().isEmpty)
    }
}
