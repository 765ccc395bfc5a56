public import SluiceCore

/// Everything that `sluice.yaml` says.
public struct Configuration: Hashable, Sendable {
    /// The `redis` section.
    public struct Redis: Hashable, Sendable {
        /// The server: `redis://`, `rediss://` for TLS, or `unix://PATH`.
        public var url = "redis://127.0.0.1:6379/0"
        /// A file of certificate authorities to trust instead of the system's.
        public var caFile: String?
        /// Whether key events may be turned on at the server.
        public var configures = true
        /// How Redis says what changed.
        public var capture = Capture.replication
        /// Whether one byte less is acknowledged while another replica is attached, so that a
        /// FAILOVER without a target never takes this instance for the best one.
        public var holdsBack = false

        /// The number of the database that the address names, 0 if it names none.
        public var database: Int {
            let isSocket = url.hasPrefix("unix://")
            let parts = url.drop { $0 != ":" }.dropFirst(3).split(
                separator: "?", omittingEmptySubsequences: false)
            if isSocket {
                let query = parts.dropFirst().first?.split(separator: "&") ?? []
                return query.compactMap { $0.hasPrefix("db=") ? Int($0.dropFirst(3)) : nil }.first
                    ?? 0
            }
            // After a Sentinel's name of the master.
            let path = (parts.first ?? "").split(separator: "/", omittingEmptySubsequences: false)
            let place = url.contains("+sentinel://") ? 2 : 1
            return path.count > place ? Int(path[place]) ?? 0 : 0
        }
    }

    /// The kinds of databases.
    public enum Database: Hashable, Sendable {
        /// A SQLite file.
        case sqlite(path: String)
        /// PostgreSQL, with the address as libpq takes it.
        case postgres(url: String)
    }

    /// How often every key is read anew with `capture: tracking`.
    public var auditInterval = Duration.seconds(21_600)
    /// The name under which the position is stored in the database.
    public var name = "default"
    /// Where changes come from.
    public var redis = Redis()
    /// Where rows go.
    public var database = Database.sqlite(path: "sluice.db")
    /// Whether tables that are missing are made.
    public var createsTables = true
    /// How long an instance that is not heard of keeps others from writing.
    public var lease = Duration.seconds(10)
    /// How long a dead letter waits for its first retry; each further pause is twice as long, up to 64
    /// times.
    public var retryAfter = Duration.seconds(60)
    /// Limits.
    public var policy = PipelinePolicy()
    /// The host of the admin listener.
    public var adminHost = "127.0.0.1"
    /// The port of the admin listener; 0 takes any that is free.
    public var adminPort = 9187
    /// What whoever asks the admin listener must know, or nil for nothing.
    public var adminToken: String?
    /// The tables, in the file's order.
    public var tables: [TableMapping] = []
}

/// One mistake in a configuration.
public struct ConfigurationMistake: Hashable, Sendable, CustomStringConvertible {
    /// The line, or nil where the whole file is meant.
    public let line: Int?
    /// The setting, such as `tables.page_views.keys`.
    public let path: String
    /// What is wrong, and what was expected.
    public let message: String
    /// What to do about it.
    public let hint: String?

    /// The mistake as one line, after the file's name.
    public var description: String {
        let place = [line.map { "line \($0)" }, path.isEmpty ? nil : path].compactMap { $0 }
        let sentence = (place + [message]).joined(separator: ": ")
        return hint.map { "\(sentence)\n    hint: \($0)" } ?? sentence
    }
}

/// All mistakes of a configuration.
public struct ConfigurationError: Error, CustomStringConvertible {
    /// Where it was read from.
    public let file: String
    /// The mistakes, in the order of their lines.
    public let mistakes: [ConfigurationMistake]

    /// The mistakes, a line each, after the file's name.
    public var description: String {
        let count = mistakes.count == 1 ? "1 mistake" : "\(mistakes.count) mistakes"
        return "\(file): \(count)\n" + mistakes.map { "  \($0)" }.joined(separator: "\n")
    }
}
