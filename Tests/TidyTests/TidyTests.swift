import Foundation
import Testing

/// Checks properties of the source text that neither the compiler nor the formatter checks.
@Suite("Tidy")
struct TidyTests {
    static let bans: [(word: String, why: String, allowed: Set<String>)] = [
        (" Task {", "start child tasks in a group, so that they end with their parent", []),
        ("Task.detached", "a detached task outlives its owner", []),
        ("Task.sleep", "wait for what you wait for, or on a clock", []),
        ("try!", "handle the error or let it travel", []),
        (" as!", "match with `as?` and say what to do otherwise", []),
        ("print(", "log, with metadata", ["sluice"]),
        ("FIXME", "fix it before it lands", []),
        ("TODO", "do it, or write it into an issue", []),
        (
            "import Foundation", "the core has no clock, file or formatter",
            [
                "SluiceSQL", "SluiceSQLite", "SluiceAdmin", "SluiceTesting", "SluiceVerify",
                "sluice",
            ]
        ),
    ]

    @Test("no banned word is in the sources", arguments: try sources())
    func bannedWords(_ source: SourceFile) {
        for (number, line) in source.lines.enumerated() where !line.contains("//") {
            for ban in Self.bans
            where line.contains(ban.word) && !ban.allowed.contains(source.module) {
                Issue.record("\(source.path):\(number + 1): '\(ban.word)' is banned: \(ban.why)")
            }
        }
    }

    @Test("no source file is longer than 400 lines", arguments: try sources())
    func length(_ source: SourceFile) {
        #expect(source.lines.count <= 401, "\(source.path)")
    }

    @Test("arrows point toward the core")
    func arrows() throws {
        let allowed: [String: Set<String>] = [
            "SluiceCore": [], "RESPWire": [], "SluiceSQL": ["SluiceCore"],
            "SluiceRedis": ["SluiceCore", "RESPWire"],
            "SluiceSQLite": ["SluiceCore", "SluiceSQL"],
            "SluicePostgres": ["SluiceCore", "SluiceSQL"],
            "SluiceConfiguration": ["SluiceCore"],
            "SluiceEngine": ["SluiceCore", "SluiceRedis", "RESPWire"],
            "SluiceAdmin": ["SluiceCore", "SluiceEngine"],
            "SluiceVerify": ["SluiceCore", "SluiceRedis", "SluiceSQL", "RESPWire"],
        ]
        for source in try Self.sources() {
            guard let allowed = allowed[source.module] else { continue }
            for line in source.lines where line.contains("import ") && !line.contains("//") {
                let name = line.split(separator: " ").last.map(String.init) ?? ""
                guard name.hasPrefix("Sluice") || name == "RESPWire" else { continue }
                #expect(allowed.contains(name), "\(source.path) imports \(name)")
            }
        }
    }

    static func sources() throws -> [SourceFile] {
        let root = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Sources")
        let files = FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil)
        return try (files?.compactMap { $0 as? URL } ?? [])
            .filter { $0.pathExtension == "swift" }
            .map { try SourceFile(url: $0.standardizedFileURL, root: root.standardizedFileURL) }
            .sorted { $0.path < $1.path }
    }
}

struct SourceFile: Sendable, CustomTestStringConvertible {
    let path: String
    let lines: [Substring]
    var module: String { path.split(separator: "/").first.map(String.init) ?? "" }
    var testDescription: String { path }

    init(url: URL, root: URL) throws {
        path = String(url.path().dropFirst(root.path().count))
        lines = try String(contentsOf: url, encoding: .utf8)
            .split(separator: "\n", omittingEmptySubsequences: false)
    }
}
