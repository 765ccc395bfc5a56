public import Foundation

/// A child process that ends with its owner.
///
/// It is spawned by the system's own call, with no signal blocked: a child inherits the mask of the
/// thread that starts it, and those of the runtime block SIGTERM.
public final class ServerProcess: @unchecked Sendable {
    /// The process's number.
    public let pid: Int32
    // Unchecked: whoever waits first takes the lock, and keeps the exit code for the others.
    private let lock = NSLock()
    private var code: Int32?

    /// Whether it still runs.
    public var isRunning: Bool { poll() == nil }
    /// Its exit code, or the signal that ended it, negative; 0 while it runs.
    public var exitCode: Int32 { poll() ?? 0 }

    /// The time that processors spent on it, in seconds, from `/proc`; nil where there is none.
    public var processorSeconds: Double? {
        // The program's name may hold spaces; the fields after it do not. Source: proc(5), fields 14
        // and 15, in ticks of a hundredth of a second.
        let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
        let fields = stat?.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12])
        else { return nil }
        return (user + system) / 100
    }

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - arguments: The program, looked for on the path, and its arguments.
    ///   - log: Where its output goes.
    public init(_ arguments: [String], log: URL) throws {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        let mode = O_WRONLY | O_CREAT | O_APPEND
        unsafe posix_spawn_file_actions_addopen(&actions, 1, log.path, mode, 0o644)
        unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var texts = unsafe arguments.map { unsafe strdup($0) } + [nil]
        defer { unsafe texts.forEach { unsafe free($0) } }
        var pid: pid_t = 0
        let failure = unsafe posix_spawnp(
            &pid, arguments[0], &actions, &attributes, &texts, environ)
        guard failure == 0 else { throw POSIXError(POSIXErrorCode(rawValue: failure) ?? .ENOENT) }
        self.pid = pid
        Self.living.insert(pid)
    }

    deinit { end() }

    // A test that fails may leave owners behind; what they own ends with the program all the same.
    private static let living = Living()

    private final class Living: @unchecked Sendable {
        // Unchecked: the lock is held wherever the numbers are used.
        private let lock = NSLock()
        private var numbers: Set<pid_t> = []

        init() {
            atexit { ServerProcess.living.end() }
        }

        func insert(_ pid: pid_t) { lock.withLock { _ = numbers.insert(pid) } }

        func remove(_ pid: pid_t) { lock.withLock { _ = numbers.remove(pid) } }

        func end() { lock.withLock { for pid in numbers { _ = Foundation.kill(pid, SIGKILL) } } }
    }

    /// Sends a signal.
    public func kill(_ signal: Int32) {
        if poll() == nil { _ = Foundation.kill(pid, signal) }
    }

    /// Waits until the process has ended.
    public func wait() {
        while poll() == nil { usleep(2_000) }
    }

    /// Waits until the process has ended, and kills it when it takes too long.
    public func wait(atMost limit: Duration) {
        let end = ContinuousClock.now + limit
        while poll() == nil, ContinuousClock.now < end { usleep(2_000) }
        self.end()
    }

    /// Ends the process, by default at once, and waits.
    public func end(_ signal: Int32 = SIGKILL) {
        kill(signal)
        wait()
    }

    /// The exit code if it has ended.
    private func poll() -> Int32? {
        lock.withLock {
            if let code { return code }
            var status: Int32 = 0
            guard unsafe waitpid(pid, &status, WNOHANG) == pid else { return nil }
            Self.living.remove(pid)
            let signal = status & 0x7F
            code = signal == 0 ? (status >> 8) & 0xFF : -signal
            return code
        }
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
