public import Foundation

/// A `sluice run` of one's own.
public final class SluiceProcess: @unchecked Sendable {
    // Unchecked: a test starts and kills it from one task at a time.
    private var process: ServerProcess?
    private let program: String
    private let folder: URL
    private let config: URL
    /// The port of its admin listener.
    public let adminPort: Int

    /// Prepares a process with a configuration; the admin listener is added to it.
    ///
    /// - Parameters:
    ///   - folder: Where its configuration and log go.
    ///   - program: The program; by default the one that was built with the tests.
    ///   - configuration: The text of `sluice.yaml`.
    ///   - token: The admin listener's token, or nil for none.
    public init(
        in folder: URL, program: String = SluiceProcess.built, configuration: String,
        token: String? = nil,
    ) throws {
        adminPort = try FreePort.find()
        self.folder = folder
        self.program = program
        config = folder.appending(path: "sluice.yaml")
        let listen =
            token.map { "127.0.0.1:\(adminPort)\n  token: \($0)" } ?? "127.0.0.1:\(adminPort)"
        let text = configuration + "\nadmin:\n  listen: \(listen)\n"
        try text.write(to: config, atomically: true, encoding: .utf8)
    }

    /// The program that was built with the tests.
    public static var built: String {
        if let chosen = ProcessInfo.processInfo.environment["SLUICE_PROGRAM"] { return chosen }
        let bundle = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
        return bundle.appending(path: "sluice").path
    }

    /// The log's text.
    public var log: String {
        (try? String(contentsOf: folder.appending(path: "sluice.log"), encoding: .utf8)) ?? ""
    }

    /// The process's number.
    public var pid: Int32 { process?.pid ?? 0 }
    /// Whether it runs.
    public var isRunning: Bool { process?.isRunning ?? false }

    /// The memory that the process has resident, from `/proc`; nil where there is none.
    public var residentMegabytes: Int? { megabytes("VmRSS:") }

    /// The most memory that the process ever had resident.
    public var peakMegabytes: Int? { megabytes("VmHWM:") }

    private func megabytes(_ name: String) -> Int? {
        let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        let line = status?.split(separator: "\n").first { $0.hasPrefix(name) }
        return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 / 1_024 }
    }

    /// Starts the process.
    public func start() throws {
        process = try ServerProcess(
            [program, "run", "--config", config.path], log: folder.appending(path: "sluice.log"))
    }

    /// Ends the process, by default as a crash does, and returns its exit code.
    @discardableResult
    public func stop(_ signal: Int32 = SIGKILL) -> Int32 {
        process?.kill(signal)
        process?.wait(atMost: .seconds(60))
        defer { process = nil }
        return process?.exitCode ?? 0
    }

    /// Sends a signal to the process.
    public func signal(_ signal: Int32) { process?.kill(signal) }

    /// Waits until the process has ended by itself.
    public func wait() -> Int32 {
        process?.wait()
        return process?.exitCode ?? 0
    }

    /// Runs another command on the same configuration.
    public func command(_ arguments: String...) throws -> (code: Int32, output: String) {
        try command(arguments)
    }

    /// Runs another command on the same configuration.
    public func command(_ arguments: [String]) throws -> (code: Int32, output: String) {
        try Self.run(arguments + ["--config", config.path], program: program, in: folder)
    }

    /// Starts another command on the same configuration, and does not wait for it.
    public func begin(_ arguments: String...) throws -> ServerProcess {
        try ServerProcess(
            [program] + arguments + ["--config", config.path],
            log: folder.appending(path: "begun.log"))
    }

    /// Runs the program.
    public static func run(
        _ arguments: [String], program: String = SluiceProcess.built, in folder: URL,
    ) throws -> (code: Int32, output: String) {
        let log = folder.appending(path: "command-\(UUID().uuidString.prefix(8)).log")
        let process = try ServerProcess([program] + arguments, log: log)
        process.wait(atMost: .seconds(60))
        return (process.exitCode, try String(contentsOf: log, encoding: .utf8))
    }
}
