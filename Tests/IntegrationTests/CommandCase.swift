import Foundation
import SluiceTesting

/// A case of `Resources/commands.txt`: a command on mapped keys, and what runs before it.
struct CommandCase: CustomStringConvertible, Sendable {
    /// The line.
    let description: String
    let command: [String]
    let before: [[String]]
    /// The command's name on the page of commands.
    let name: String

    /// The line's form: `COMMAND`, then perhaps `[as NAME]`, then perhaps `[after COMMAND | COMMAND]`.
    init?(_ line: String) {
        let parts = line.components(separatedBy: "[after ")
        let names = parts[0].components(separatedBy: "[as ")
        description = line
        command = Self.words(names[0])
        guard let first = command.first else { return nil }
        before =
            parts.count > 1
            ? parts[1].dropLast().components(separatedBy: " | ").map(Self.words) : []
        if names.count > 1 {
            name = String(names[1].prefix { $0 != "]" })
        } else {
            let hasParts = ["XGROUP", "SCRIPT", "FUNCTION"].contains(first)
            name = hasParts ? "\(first) \(command[1])" : first
        }
    }

    static func all() throws -> [CommandCase] {
        guard
            let file = Bundle.module.url(
                forResource: "commands", withExtension: "txt", subdirectory: "Resources")
        else { throw CocoaError(.fileNoSuchFile) }
        return try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
            .filter { !$0.hasPrefix("#") }
            .compactMap { CommandCase($0.trimmingCharacters(in: .whitespaces)) }
    }

    /// A command's words: `""` is an empty one, `\s` a space and `\n` a new line.
    static func words(_ text: String) -> [String] {
        text.split(separator: " ").map { word in
            word == "\"\""
                ? "" : String(word).replacing("\\s", with: " ").replacing("\\n", with: "\n")
        }
    }

    /// Runs what comes before the command; `{port}` in a command is where another server listens.
    func prepare(_ client: RedisClient, port: Int) async throws {
        try await client.send("FLUSHALL")
        for words in before { try await client.send(at(port, words)) }
    }

    /// Runs the command, and looks at what it names: a key past its deadline is there until somebody
    /// looks, or Redis comes across it.
    ///
    /// - Returns: Whether the server has the command, and whether it did what it was told.
    func run(_ client: RedisClient, port: Int) async throws -> (isKnown: Bool, isDone: Bool) {
        let words = at(port, command)
        let reply = try await client.send(words).first ?? nil
        guard reply?.hasPrefix("ERROR ERR unknown command") != true else { return (false, false) }
        try await client.send(["EXISTS"] + words)
        return (true, reply?.hasPrefix("ERROR") != true)
    }

    private func at(_ port: Int, _ words: [String]) -> [String] {
        words.map { $0 == "{port}" ? "\(port)" : $0 }
    }
}
