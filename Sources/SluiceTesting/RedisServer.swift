public import Foundation
internal import NIOPosix
internal import RESPWire
public import SluiceRedis

/// A redis-server of one's own, on a free port of the loopback address.
public final class RedisServer: Sendable {
    /// The port.
    public let port: Int
    private let folder: URL
    private let program: [String]
    private let options: [String]
    private let box = Box()

    private final class Box: @unchecked Sendable {
        // Unchecked: a test starts and kills its server from one task at a time.
        var process: ServerProcess?
    }

    /// Starts a server and waits until it answers.
    ///
    /// - Parameters:
    ///   - folder: Where its data and log go.
    ///   - program: The program and arguments before the options.
    ///   - options: Further options, such as `--appendonly yes`.
    public init(
        in folder: URL, program: [String] = [ServerKind.standard.program], options: [String] = [],
    ) async throws {
        port = try FreePort.find()
        self.folder = folder
        self.program = program
        self.options = options
        try await start()
    }

    /// Starts the server again with the same data.
    public func start() async throws {
        box.process = try ServerProcess(
            program + [
                "--port", "\(port)", "--bind", "127.0.0.1", "--dir", folder.path, "--save", "",
                "--repl-diskless-sync-delay", "0", "--daemonize", "no",
            ] + options, log: folder.appending(path: "redis-\(port).log"))
        let isUp = await Eventually.holds(within: .seconds(10)) {
            guard let client = try? await connect() else { return false }
            defer { client.close() }
            return (try? await client.send("PING"))?.first == "PONG"
        }
        guard isUp else { throw CocoaError(.executableLoad) }
    }

    /// The server's address.
    public func endpoint(database: Int = 0) -> RedisEndpoint {
        RedisEndpoint(address: .tcp(host: "127.0.0.1", port: port), database: database)
    }

    /// The process's number.
    public var pid: Int32 { box.process?.pid ?? 0 }

    /// Ends the server.
    public func stop(_ signal: Int32 = SIGKILL) {
        box.process?.end(signal)
        box.process = nil
    }

    /// A client.
    public func connect(database: Int = 0) async throws -> RedisClient {
        try await RedisClient(to: endpoint(database: database))
    }
}

/// A client for tests and the demo: sends commands of texts, many at once.
public final class RedisClient: Sendable {
    private let connection: RedisConnection

    /// Connects.
    public init(to endpoint: RedisEndpoint) async throws {
        connection = try await RedisConnection.connect(
            to: endpoint, on: MultiThreadedEventLoopGroup.singleton.next(), name: "client")
    }

    /// Sends one command; its reply as texts, nil for none.
    @discardableResult
    public func send(_ command: String...) async throws -> [String?] {
        try await send(command)
    }

    /// Sends one command; its reply as texts, nil for none.
    @discardableResult
    public func send(_ command: [String]) async throws -> [String?] {
        Self.texts(try await connection.send(command))
    }

    /// Sends many commands at once, and counts the replies that are no errors.
    @discardableResult
    public func sendAll(_ commands: [[String]]) async throws -> Int {
        let replies = try await connection.send(commands.map { $0.map { Array($0.utf8) } })
        return replies.count { reply in if case .error = reply { false } else { true } }
    }

    /// Sends one command of bytes.
    @discardableResult
    public func send(bytes command: [[UInt8]]) async throws -> [String?] {
        Self.texts(try await connection.send([command])[0])
    }

    /// A number that a section of INFO has, or nil when it has none of that name.
    public func number(_ name: String, in section: String) async throws -> Int? {
        let info = try await send("INFO", section).first ?? nil
        return (info ?? "").split(whereSeparator: \.isNewline)
            .first { $0.hasPrefix(name + ":") }
            .flatMap { Int($0.dropFirst(name.count + 1)) }
    }

    /// Closes the connection.
    public func close() { connection.close() }

    private static func texts(_ value: RESPValue) -> [String?] {
        switch value {
        case .error(let text): ["ERROR " + text]
        case .array(let elements): elements.flatMap(texts)
        default: [value.text]
        }
    }
}
