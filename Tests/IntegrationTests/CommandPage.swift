import Foundation
import SluiceTesting
import Testing

/// The page that says of each command how it is taken, which is measured.
@Suite("The page of commands", .serialized)
struct CommandPage {
    /// What stands there for a command that a server does not have.
    static let none = "—"

    private static let path = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "docs/commands.md")

    /// What the page says of a server: each command's way.
    static func read(_ kind: ServerKind) throws -> [String: String] {
        let rows = try String(contentsOf: path, encoding: .utf8).split(separator: "\n")
            .filter { $0.hasPrefix("| ") }
            .map { row in
                row.split(separator: "|").map { $0.trimmingCharacters(in: [" ", "`"]) }
            }
        let column = try #require(rows.first?.firstIndex(of: kind.description))
        return Dictionary(uniqueKeysWithValues: rows.dropFirst(2).map { ($0[0], $0[column]) })
    }

    @Test(
        "the page is written",
        .enabled(if: ProcessInfo.processInfo.environment["SLUICE_WRITE_DOCS"] != nil))
    func write() async throws {
        let kinds = ServerKind.every.map(\.description).sorted()
        var ways: [String: [String: String]] = [:]
        for kind in ServerKind.every {
            for (name, way) in try await Self.measure(kind) {
                ways[name, default: [:]][kind.description] = way
            }
        }
        var text = """
            # Commands

            How each write command reaches the rows, measured by a test that runs it on every server, with tables that
            mirror a whole database (`sluice schema --mirror`). *stream*: the change is taken from Redis's stream, and
            nothing is read back. *read*: the row is read back at an exact offset before it is committed. *both*: it
            depends on the arguments or on what is known of the row. A dash: the server does not have the command.

            The mirror is the hardest case: any key may be any table's, and its strings are bytes, so it reads after `INCR`. On
            an `integer` column the INCR family is taken from the stream. A command that does not stand here is read, by
            the server's own description of it; and where that says of which type its keys are (most do), in the table of that
            type alone. Functions and scripts arrive as the commands that they ran. After `SWAPDB` of a database that a
            table maps, a baseline reads all of it.

            | command | \(kinds.joined(separator: " | ")) |
            | --- |\(kinds.map { _ in " --- |" }.joined())

            """
        for (name, found) in ways.sorted(by: { $0.key < $1.key }) {
            let cells = kinds.map { found[$0] ?? Self.none }
            text += "| `\(name)` | \(cells.joined(separator: " | ")) |\n"
        }
        try text.write(to: Self.path, atomically: true, encoding: .utf8)
    }

    /// Runs each case with tables that mirror the database, and expects the rows to equal Redis after it.
    ///
    /// - Returns: The way of each command that the server has: whether rows were read back for it.
    static func measure(_ kind: ServerKind) async throws -> [String: String] {
        let folder = try TemporaryFolder("sluice-page")
        let bench = try await Bench(
            .sqlite, tables: try ServerTests.mirror(folder.url), interval: "10ms", server: kind)
        let target = try await RedisServer(in: folder.url, program: [kind.program])
        defer { target.stop() }
        try await bench.start()
        let client = try await bench.redis.connect()
        var ways: [String: Set<String>] = [:]
        var ran = 0
        for line in try CommandCase.all() {
            try await line.prepare(client, port: target.port)
            // So that nothing but the command itself is to be settled after it.
            try await client.send("WAIT", "1", "20000")
            let before = await reads(bench)
            let (isKnown, isDone) = try await line.run(client, port: target.port)
            guard isKnown else { continue }
            ran += 1
            #expect(try await bench.post("/flush").status == 200, "\(kind): \(line)")
            let isRead = await reads(bench) != before
            if isDone { ways[line.name, default: []].insert(isRead ? "read" : "stream") }
            try await bench.expectEqual("\(kind): \(line)")
        }
        print("\(kind): \(ran) cases")
        #expect(ran > 200)
        #expect(await bench.counter("setAside") == 0, "\(bench.sluice.log.suffix(2_000))")
        return ways.mapValues { $0.count > 1 ? "both" : $0.first ?? none }
    }

    // How many rows were read, for the stream and by baselines.
    private static func reads(_ bench: Bench) async -> [Int] {
        [await bench.counter("reads"), await bench.counter("baselineReads")]
    }
}
