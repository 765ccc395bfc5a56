public import Foundation

/// A child process that ends with its owner.
public final class ServerProcess: @unchecked Sendable {
    // Unchecked: Process is safe to ask and signal from any thread.
    private let process = Process()

    /// The process's number.
    public var pid: Int32 { process.processIdentifier }
    /// Whether it still runs.
    public var isRunning: Bool { process.isRunning }
    /// Its exit code, once it has ended.
    public var exitCode: Int32 { process.terminationStatus }

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - arguments: The program, looked for on the path, and its arguments.
    ///   - log: Where its output goes.
    public init(
        _ arguments: [String], log: URL, environment: [String: String] = [:],
    ) throws {
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        if !FileManager.default.fileExists(atPath: log.path) {
            _ = FileManager.default.createFile(atPath: log.path, contents: nil)
        }
        let handle = try FileHandle(forWritingTo: log)
        try handle.seekToEnd()
        process.standardOutput = handle
        process.standardError = handle
        process.standardInput = FileHandle.nullDevice
        try process.run()
    }

    deinit { kill(SIGKILL) }

    /// Sends a signal.
    public func kill(_ signal: Int32) {
        if process.isRunning { _ = Foundation.kill(process.processIdentifier, signal) }
    }

    /// Waits until the process has ended.
    public func wait() {
        process.waitUntilExit()
    }

    /// Waits until the process has ended, and kills it when it takes too long.
    public func wait(atMost limit: Duration) {
        let end = ContinuousClock.now + limit
        while process.isRunning, ContinuousClock.now < end { usleep(5_000) }
        self.end()
    }

    /// Ends the process at once, and waits.
    public func end(_ signal: Int32 = SIGKILL) {
        kill(signal)
        wait()
    }
}

/// A folder that goes with its owner.
public final class TemporaryFolder: Sendable {
    /// Where it is.
    public let url: URL

    /// Makes a folder.
    public init(_ name: String = "sluice") throws {
        url = FileManager.default.temporaryDirectory
            .appending(path: "\(name)-\(UUID().uuidString.prefix(8).lowercased())")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }
}

/// Finds ports.
public enum FreePort {
    /// A port of the loopback address that nobody listens on at the moment.
    public static func find() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                guard unsafe bind(descriptor, address, length) == 0 else { return false }
                return unsafe getsockname(descriptor, address, &length) == 0
            }
        }
        guard bound else { throw CocoaError(.fileReadUnknown) }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}

/// Waits for something without sleeping longer than needed.
public enum Eventually {
    /// Asks again and again until the answer is yes.
    ///
    /// - Returns: Whether it came to be in time.
    public static func holds(
        within limit: Duration = .seconds(20), _ condition: () async throws -> Bool,
    ) async rethrows -> Bool {
        let end = ContinuousClock.now + limit
        while ContinuousClock.now < end {
            if try await condition() { return true }
            // The condition lies in another process, which tells nobody when it changes.
            try? await ContinuousClock().sleep(for: .milliseconds(20))
        }
        return false
    }
}
