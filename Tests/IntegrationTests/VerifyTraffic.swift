import Foundation
import SluiceTesting

/// Commands of all kinds on a few rows, as fast as Redis takes them.
final class VerifyTraffic: Sendable {
    private let task: Task<Void, Never>

    init(_ redis: RedisServer) {
        task = Task {
            guard let client = try? await redis.connect() else { return }
            defer { client.close() }
            var random = SplitMix64(seed: 5)
            while !Task.isCancelled {
                var commands: [[String]] = []
                for index in 0..<50 {
                    commands.append(["INCR", "c:\(index)"])
                    commands.append(["ZINCRBY", "z:a", "1", "p\(index)"])
                }
                let number = "\(random.pick(0..<9))"
                commands += [
                    ["HINCRBY", "session:1", "user_id", "1"], ["APPEND", "t:busy", "x"],
                    ["SET", "t:short\(number)", "v", "PX", "2"],
                    ["XADD", "e:a", "MAXLEN", "~", "1000", "*", "n", number],
                    ["HSET", "session:\(number)", "cart", "{}", "extra", number],
                    ["HPEXPIRE", "session:\(number)", "2", "FIELDS", "1", "extra"],
                    ["SADD", "s:a", number], ["SPOP", "s:a"], ["RPUSH", "l:b", number],
                    ["LTRIM", "l:b", "0", "20"], ["SET", "t:busy", ""],
                ]
                _ = try? await client.sendAll(commands)
                try? await Task.sleep(for: .milliseconds(1))
            }
        }
    }

    func stop() async {
        task.cancel()
        await task.value
    }
}

/// Sends commands of the conformance cases at random.
final class RandomCommands: Sendable {
    private let client: RedisClient
    private let commands: [[String]]
    private let seed: UInt64

    static func clients(
        _ redis: RedisServer, count: Int, seed: UInt64,
    ) async throws -> [RandomCommands] {
        // Commands that wait would hold up the test, a flush leaves little to compare, and after two
        // databases were swapped rows are missing that stay.
        let unwanted = [
            "BL", "BR", "BZ", "FLUSH", "PUBLISH", "SPUBLISH", "SCRIPT", "FUNCTION", "SWAPDB",
            "SELECT",
            "MIGRATE",
        ]
        let cases = try CommandCase.all()
        // What FCALL calls.
        for words in cases.flatMap(\.before) where words[0] == "FUNCTION" {
            try await redis.connect().send(words)
        }
        let commands = cases.flatMap { [$0.command] + $0.before }.filter { words in
            !unwanted.contains { words[0].hasPrefix($0) }
        }
        var clients: [RandomCommands] = []
        for index in 0..<count {
            clients.append(
                RandomCommands(
                    client: try await redis.connect(), commands: commands,
                    seed: seed &+ UInt64(index)))
        }
        return clients
    }

    private init(client: RedisClient, commands: [[String]], seed: UInt64) {
        self.client = client
        self.commands = commands
        self.seed = seed
    }

    /// Each client sends commands: the same for the same round.
    static func run(_ clients: [RandomCommands], steps: Int, round: Int) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for client in clients {
                group.addTask { try await client.run(steps: steps, round: round) }
            }
            try await group.waitForAll()
        }
    }

    private func run(steps: Int, round: Int) async throws {
        var random = SplitMix64(seed: seed &+ UInt64(round) << 32)
        for step in 0..<steps {
            if step % 10 == 9 {
                let key = Self.another(["k", "h", "l", "s", "z", "d"][random.pick(0..<6)], &random)
                try await client.send("PEXPIRE", key, "\(random.pick(1..<40))")
            }
            let count = random.oneIn(5) ? random.pick(2..<6) : 1
            var chosen = (0..<count).map { _ in
                commands[random.pick(0..<commands.count)].map { Self.another($0, &random) }
            }
            if count > 1 { chosen = [["MULTI"]] + chosen + [["EXEC"]] }
            try await client.sendAll(chosen)
        }
    }

    // In the place of a case's key, perhaps another one.
    private static func another(_ word: String, _ random: inout SplitMix64) -> String {
        keys.contains(word) && !random.oneIn(3) ? "\(word):\(random.pick(0..<4))" : word
    }

    // What the cases call their keys. Where one is a value, it may be another value as well.
    private static let keys: Set = [
        "k", "k2", "h", "l", "l2", "s", "s1", "s2", "z", "d", "x", "g", "p", "v", "c",
    ]
}
