import Foundation
import SluiceTesting
import Testing

@Suite("The page of commands", .serialized)
struct CommandPage {
    static let page = "docs/commands.md"

    @Test("every command that has a case stands on the page")
    func isComplete() throws {
        let folder = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: folder.appending(path: Self.page), encoding: .utf8)
        for name in try Set(ServerTests.cases().compactMap { Self.name($0) }) {
            #expect(text.contains("| `\(name)` |"), "\(name) is missing; see CONTRIBUTING.md")
        }
    }

    /// Measures, for each command and server, whether rows were read back, and writes the page.
    @Test(
        "the page is written",
        .enabled(if: ProcessInfo.processInfo.environment["SLUICE_WRITE_DOCS"] != nil))
    func write() async throws {
        var ways: [String: [String: Set<String>]] = [:]
        for name in try ServerTests.cases().compactMap({ Self.name($0) }) { ways[name] = [:] }
        for kind in ServerKind.supported {
            for (name, way) in try await measure(kind) {
                ways[name, default: [:]][kind.description, default: []].insert(way)
            }
        }
        let kinds = ServerKind.supported.map(\.description)
        var text = """
            # Commands

            How each write command reaches the rows, measured by a test that runs it on every server, with tables that
            mirror a whole database (`sluice schema --mirror`). *stream*: the change is taken from Redis's stream, and
            nothing is read back. *read*: the row is read back at an exact offset before it is committed. *both*: it
            depends on the arguments or on what is known of the row. A dash: the server does not have the command.

            The mirror is the hardest case: any key may be any table's, and its strings are bytes, so it reads after `INCR`. On
            an `integer` column the INCR family is taken from the stream. A command that does not stand here is read, by
            the server's own description of it; and where that says of which type its keys are (most do), in the table of that
            type alone.

            | command | \(kinds.joined(separator: " | ")) |
            | --- |\(kinds.map { _ in " --- |" }.joined())

            """
        for name in ways.keys.sorted() {
            let cells = kinds.map { kind -> String in
                let found = ways[name]?[kind] ?? []
                return found.count > 1 ? "both" : found.first ?? "—"
            }
            text += "| `\(name)` | \(cells.joined(separator: " | ")) |\n"
        }
        try text.write(toFile: Self.page, atomically: true, encoding: .utf8)
    }

    private func measure(_ kind: ServerKind) async throws -> [(String, String)] {
        let folder = try TemporaryFolder("sluice-page")
        let bench = try await Bench(
            .sqlite, tables: try ServerTests.mirror(folder.url), interval: "10ms", server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        var ways: [(String, String)] = []
        for line in try ServerTests.cases() {
            guard let name = Self.name(line) else { continue }
            let parts = line.components(separatedBy: "[after ")
            let before = parts.count > 1 ? parts[1].dropLast().components(separatedBy: " | ") : []
            try await client.send("FLUSHALL")
            for command in before { try await client.send(ServerTests.words(command)) }
            try bench.flush()
            let reads = await bench.counter("reads")
            let reply = try await client.send(ServerTests.words(parts[0]))
            if reply.first??.hasPrefix("ERROR") == true { continue }
            try bench.flush()
            ways.append((name, await bench.counter("reads") > reads ? "read" : "stream"))
        }
        return ways
    }

    private static func name(_ line: String) -> String? {
        let words = ServerTests.words(line)
        guard let first = words.first else { return nil }
        return first == "XGROUP" || first == "SCRIPT" ? "\(first) \(words[1])" : first
    }
}
