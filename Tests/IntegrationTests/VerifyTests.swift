import Foundation
import SluiceTesting
import Testing

@Suite("Verify", .serialized)
struct VerifyTests {
    @Test(
        "random commands of all types, with crashes, leave no difference",
        arguments: [ServerKind.supported[1], ServerKind.supported[2]])
    func randomCommands(kind: ServerKind) async throws {
        let variables = ProcessInfo.processInfo.environment
        let seed = variables["SLUICE_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        let steps = variables["SLUICE_STEPS"].flatMap { Int($0) } ?? 2_500
        print("\(kind): seed \(seed)")
        let folder = try TemporaryFolder("sluice-random")
        let bench = try await Bench(
            .sqlite, tables: try ServerTests.mirror(folder.url), interval: "20ms", server: kind)
        try await bench.start()
        let clients = try await RandomCommands.clients(bench.redis, count: 3, seed: seed)
        var random = SplitMix64(seed: seed)
        for round in 0..<4 {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for client in clients {
                    group.addTask { try await client.run(steps: steps / 4) }
                }
                try await Task.sleep(for: .milliseconds(random.pick(20..<300)))
                bench.sluice.stop()
                try bench.sluice.start()
                try await group.waitForAll()
            }
            let isFlushed = await Eventually.holds(within: .seconds(60)) {
                (try? bench.sluice.command("flush"))?.code == 0
            }
            #expect(isFlushed, "\(kind): seed \(seed), round \(round) \(bench.sluice.log)")
            let result = try bench.sluice.command("verify")
            #expect(
                result.code == 0,
                "\(kind): seed \(seed), round \(round) \(result.output.prefix(2_000))")
        }
    }

    @Test("rows in flight are no false alarm, and what differs is found")
    func live() async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        let client = try await bench.redis.connect()
        let writer = Task {
            let other = try await bench.redis.connect()
            while !Task.isCancelled {
                for index in 0..<50 { try await other.send("INCR", "c:\(index)") }
                try await other.send("HINCRBY", "session:1", "user_id", "1")
            }
        }
        try await Task.sleep(for: .milliseconds(300))
        let quiet = try bench.sluice.command("verify")
        #expect(quiet.code == 0, "\(quiet.output)")
        writer.cancel()
        _ = await writer.result
        try await client.send("ZADD", "z:a", "5", "m", "6", "n")
        try bench.flush()
        try bench.tamper(
            """
            UPDATE counters SET value = -1 WHERE id = '7'; DELETE FROM scores WHERE player = 'm';
            INSERT INTO tags VALUES ('a', 'nobody')
            """)
        let found = try bench.sluice.command("verify")
        #expect(found.code == 65)
        for text in ["counters 7: different", "scores a m: missing", "tags a nobody: extra"] {
            #expect(found.output.contains(text), "\(found.output)")
        }
        #expect(try bench.sluice.command("verify", "--table", "sessions").code == 0)
        // A share of the keys is the same share on both sides, and finds some of what differs.
        try await client.sendAll((0..<400).map { ["SET", "t:\($0)", "x"] })
        try bench.flush()
        try bench.tamper("UPDATE texts SET value = 'y'")
        let some = try bench.sluice.command(
            "verify", "--table", "texts", "--sample", "25%", "--json")
        let report = try JSONSerialization.jsonObject(with: Data(some.output.utf8))
        let differ = (report as? [String: Any])?["differ"] as? Int ?? 0
        #expect(some.code == 65 && (50..<150).contains(differ), "\(some.output.suffix(200))")
        #expect(try bench.sluice.command("verify", "--sample", "0").code == 64)
    }
}

/// Sends commands of the conformance cases at random.
final class RandomCommands: Sendable {
    private let client: RedisClient
    private let commands: [String]
    private let seed: UInt64

    static func clients(
        _ redis: RedisServer, count: Int, seed: UInt64,
    ) async throws -> [RandomCommands] {
        // Commands that wait would hold up the test, and a flush leaves little to compare.
        let unwanted = ["BL", "BR", "BZ", "FLUSH", "PUBLISH", "SPUBLISH", "SCRIPT"]
        let commands = try ServerTests.cases().flatMap { line in
            line.replacing("]", with: "").components(separatedBy: "[after ")
                .flatMap { $0.components(separatedBy: " | ") }
        }.filter { command in !unwanted.contains { command.hasPrefix($0) } }
        var clients: [RandomCommands] = []
        for index in 0..<count {
            clients.append(
                RandomCommands(
                    client: try await redis.connect(), commands: commands,
                    seed: seed &+ UInt64(index)))
        }
        return clients
    }

    private init(client: RedisClient, commands: [String], seed: UInt64) {
        self.client = client
        self.commands = commands
        self.seed = seed
    }

    func run(steps: Int) async throws {
        var random = SplitMix64(seed: seed)
        for step in 0..<steps {
            if step % 10 == 9 {
                let key = ["k", "h", "l", "s", "z", "d"][random.pick(0..<6)]
                try await client.send("PEXPIRE", key, "\(random.pick(1..<40))")
            }
            let count = random.oneIn(5) ? random.pick(2..<6) : 1
            var chosen = (0..<count).map { _ in
                ServerTests.words(commands[random.pick(0..<commands.count)])
            }
            if count > 1 { chosen = [["MULTI"]] + chosen + [["EXEC"]] }
            try await client.sendAll(chosen)
        }
    }
}
