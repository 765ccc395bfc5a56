import Foundation
import SluiceTesting

/// The writes of one client of the demo: one of the four uses each.
struct DemoTraffic {
    /// Commands that are sent at once; the next are sent when these are answered.
    private static let pipelined = 100

    private let number: Int
    private var random: SplitMix64
    private var made = 0

    init(number: Int) {
        self.number = number
        random = SplitMix64(seed: UInt64(number + 1))
    }

    /// Writes until a time, and counts the writes that Redis acknowledged.
    mutating func write(to server: RedisServer, until end: ContinuousClock.Instant) async throws
        -> Int
    {
        let client = try await server.connect()
        defer { client.close() }
        var writes = 0
        while ContinuousClock.now < end {
            var commands: [[String]] = []
            for _ in 0..<Self.pipelined { commands.append(command()) }
            writes += try await client.sendAll(commands)
            // Sessions, scores and events come at a person's pace, counters as fast as can be.
            if number > 0 { try await ContinuousClock().sleep(for: .milliseconds(10)) }
        }
        return writes
    }

    private mutating func command() -> [String] {
        made += 1
        switch number {
        case 0:
            // Few pages get most of the views.
            let page = min(random.pick(0..<2_000), random.pick(0..<2_000))
            return ["INCR", "views:page-\(page)"]
        case 1:
            let id = "session:\(random.pick(0..<500))"
            if made % 3 == 0 { return ["EXPIRE", id, "\(random.pick(1_000..<9_000))"] }
            return [
                "HSET", id, "user_id", "\(random.pick(1..<100_000))", "last_seen",
                "\(1_700_000_000 + made)", "cart", "[\(random.pick(0..<9))]", "theme",
                ["dark", "light"][random.pick(0..<2)],
            ]
        case 2:
            let score = Double(random.pick(0..<100_000)) / 10
            return [
                "ZADD", "leaderboard:\(random.pick(0..<5))", "\(score)",
                "player-\(random.pick(0..<400))",
            ]
        default:
            guard made % 20 == 0 else {
                return ["INCRBY", "views:event-pages", "1"]
            }
            return [
                "XADD", "events:clicks", "*", "page", "\(random.pick(0..<2_000))", "n", "\(made)",
            ]
        }
    }
}
