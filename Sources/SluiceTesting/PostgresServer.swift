public import Foundation

/// A PostgreSQL cluster of one's own, on a socket in a temporary folder and a free port.
///
/// PostgreSQL refuses to run as root, so it runs as the user `postgres` then.
public final class PostgresServer: Sendable {
    /// The address of its database.
    public var url: String {
        "postgres://postgres@127.0.0.1:\(port)/postgres"
    }
    /// The port.
    public let port: Int
    private let folder: URL
    private let box = Box()

    private final class Box: @unchecked Sendable {
        // Unchecked: a test starts and kills its server from one task at a time.
        var process: ServerProcess?
    }

    /// Makes a cluster and starts it.
    public init(in folder: URL) async throws {
        port = try FreePort.find()
        self.folder = folder.appending(path: "postgres")
        try FileManager.default.createDirectory(at: self.folder, withIntermediateDirectories: true)
        let log = folder.appending(path: "postgres.log")
        if getuid() == 0 {
            for path in [folder, self.folder] {
                try ServerProcess(["chown", "postgres", path.path], log: log).wait()
            }
        }
        let make = try ServerProcess(
            Self.asPostgres(
                "initdb", "-D", self.folder.path, "-U", "postgres", "-A", "trust",
                "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"), log: log)
        make.wait()
        try await start()
    }

    /// Starts the server again with the same data.
    public func start() async throws {
        let log = folder.deletingLastPathComponent().appending(path: "postgres.log")
        box.process = try ServerProcess(
            Self.asPostgres(
                "postgres", "-D", folder.path, "-p", "\(port)", "-k", folder.path,
                "-c", "listen_addresses=127.0.0.1"), log: log)
        let isUp = try await Eventually.holds(within: .seconds(30)) {
            let ready = try ServerProcess(
                [Self.program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", "\(port)"], log: log)
            ready.wait()
            return ready.exitCode == 0
        }
        guard isUp else { throw CocoaError(.executableLoad) }
    }

    /// Ends the server, by default as a crash does.
    public func stop(_ signal: Int32 = SIGQUIT) {
        box.process?.end(signal)
        box.process = nil
    }

    /// Whether the server runs.
    public var isRunning: Bool { box.process?.isRunning ?? false }

    /// Sends a signal to the server.
    public func signal(_ signal: Int32) { box.process?.kill(signal) }

    deinit { stop() }

    private static func asPostgres(_ name: String, _ arguments: String...) -> [String] {
        let user =
            getuid() == 0
            ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : []
        return user + [program(name)] + arguments
    }

    /// Where a program of PostgreSQL lies: Debian keeps the servers off the path.
    public static func program(_ name: String) -> String {
        let root = "/usr/lib/postgresql"
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        let newest = versions.sorted { (Int($0) ?? 0) > (Int($1) ?? 0) }.first
        return newest.map { "\(root)/\($0)/bin/\(name)" } ?? name
    }
}
