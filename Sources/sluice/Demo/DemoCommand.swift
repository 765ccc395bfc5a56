import ArgumentParser
import Foundation
import SluiceConfiguration
import SluiceCore
import SluiceEngine
import SluiceSQL
import SluiceSQLite
import SluiceTesting
import SluiceVerify

struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "See it work: live traffic on a private Redis, settled in a SQLite file.",
        discussion: """
            Starts a redis-server on a free port and `sluice run` on a file in a temporary folder, \
            writes counters, sessions, scores and events, kills Sluice once with SIGKILL and starts \
            it again, and then compares every row with Redis. Exits with 0 only if nothing differs.
            """)

    @Option(help: "How long to write, in seconds.") var seconds = 10
    @Flag(help: "Keep the folder with the database and logs.") var keep = false

    static let yaml = """
        tables:
          page_views:
            keys: "views:<page>"
            string: { views: integer }
          sessions:
            keys: "session:<id>"
            hash: { user_id: integer, last_seen: timestamp, cart: json }
            rest: extra
            expires_at: expires_at
          scores:
            keys: "leaderboard:<board>"
            sorted_set: { member: player, score: points }
          events:
            keys: "events:<topic>"
            stream: { id: event_id, fields: payload }
        """

    func run() async throws {
        guard seconds >= 2 else { throw ValidationError("--seconds is at least 2") }
        let folder = try TemporaryFolder("sluice-demo")
        do {
            try await run(in: folder.url)
        } catch let code as ExitCode {
            throw code
        } catch {
            Terminal.complain(
                "the demo could not run: \(error)", hint: "is redis-server on the path?")
            throw Sysexits.unavailable
        }
        if keep {
            let kept = URL(filePath: "sluice-demo")
            try? FileManager.default.removeItem(at: kept)
            try FileManager.default.moveItem(at: folder.url, to: kept)
            print("Kept in \(kept.path)")
        }
    }

    private func run(in folder: URL) async throws {
        print("Starting a private redis-server, and Sluice on a SQLite file, in \(folder.path)")
        let server = try await RedisServer(in: folder)
        defer { server.stop() }
        let path = folder.appending(path: "demo.db").path
        let yaml = """
            redis:
              url: redis://127.0.0.1:\(server.port)/0
            database:
              url: sqlite:\(path)

            """ + Self.yaml
        let sluice = try SluiceProcess(
            in: folder, program: CommandLine.arguments[0], configuration: yaml)
        try sluice.start()
        let configuration = try ConfigurationReader(environment: [:])
            .read(yaml, file: "demo")
        let watch = DemoWatch(adminPort: sluice.adminPort, path: path)
        guard await Eventually.holds({ await watch.status() != nil }) else {
            Terminal.complain("Sluice did not start:\n\(sluice.log)")
            throw Sysexits.software
        }
        let writes = try await write(to: server, sluice, watch)
        print("Waiting until everything is in the database …")
        let flush = try sluice.command("flush")
        guard flush.code == 0 else {
            Terminal.complain("\(flush.output)\n\(sluice.log)")
            throw Sysexits.software
        }
        let rows = try await watch.rowsWritten()
        sluice.stop(SIGTERM)
        try await compare(configuration, server, path, writes: writes, rows: rows)
    }

    // MARK: Writing

    private func write(
        to server: RedisServer, _ sluice: SluiceProcess, _ watch: DemoWatch,
    ) async throws -> Int {
        let end = ContinuousClock.now + .seconds(seconds)
        return try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<4 {
                group.addTask {
                    var traffic = DemoTraffic(number: number)
                    return try await traffic.write(to: server, until: end)
                }
            }
            group.addTask {
                try await watch.show(until: end, killing: sluice)
                return 0
            }
            return try await group.reduce(0, +)
        }
    }

    // MARK: Comparing

    private func compare(
        _ configuration: Configuration, _ server: RedisServer, _ path: String, writes: Int,
        rows: Int,
    ) async throws {
        print("Comparing every row with Redis …")
        let query = try SQLiteQuery(path: path)
        let verification = Verification(
            mappings: configuration.tables, dialect: .sqlite, source: configuration.name,
            endpoint: server.endpoint(), query: query.rows)
        let outcome = try await verification.run()
        for difference in outcome.differences.prefix(10) { print("  differs: \(difference)") }
        let ratio = Double(writes) / Double(max(1, rows))
        print(
            "\(Self.grouped(writes)) writes became \(Self.grouped(rows)) row writes "
                + "(\(String(format: "%.1f", ratio)) to 1); "
                + "\(Self.grouped(outcome.compared)) rows compared, "
                + "\(outcome.differ) differ")
        guard outcome.differences.isEmpty, outcome.compared > 0 else { throw Sysexits.data }
    }

    /// A number with its thousands apart.
    static func grouped(_ number: Int) -> String {
        var digits = Array("\(number)")
        var index = digits.count - 3
        while index > 0 {
            digits.insert(",", at: index)
            index -= 3
        }
        return String(digits)
    }
}
