/// How a source says what changed.
public enum Capture: String, Hashable, Sendable, CaseIterable, Codable {
    /// The server's replication stream: every change with its value, in order, at an offset.
    case replication
    /// Marks of keys that the application sets with each write.
    case dirtySet = "dirty-set"
    /// Names of keys that the server pushes when they changed.
    case tracking

    /// Whether changes come with their values and offsets; else a key that changed is read.
    public var isExact: Bool { self == .replication }
}

/// A key that changed, in a source that says no more than that.
public struct Mark: Hashable, Sendable {
    /// The key.
    public let key: Bytes
    /// The number of its database.
    public let database: Int
    /// When it was first changed since it was read last, in milliseconds since 1970 as the server
    /// counts, or nil when nobody says.
    public let since: Int64?

    /// Creates a mark.
    public init(key: Bytes, database: Int, since: Int64? = nil) {
        self.key = key
        self.database = database
        self.since = since
    }
}

/// Which marks were taken, and which of them are in the database and may be cleared.
///
/// Marks are taken in rounds; each round ends at an offset of its own. A mark that is taken once more
/// before it was cleared belongs to the later round, so that a write which came after the first one was
/// read is never cleared with it.
public struct MarkLedger {
    private var rounds: [Mark.Name: Int64] = [:]

    /// Creates a ledger without marks.
    public init() {}

    /// How many marks are not cleared yet.
    public var count: Int { rounds.count }

    /// Notes that marks were taken in a round that ends at an offset.
    public mutating func taken(_ marks: some Sequence<Mark>, at offset: Int64) {
        for mark in marks { rounds[mark.name] = offset }
    }

    /// Forgets marks, because what they stand for was not taken in.
    public mutating func forget(_ marks: some Sequence<Mark>) {
        for mark in marks { rounds[mark.name] = nil }
    }

    /// Takes out the marks of a database that may be cleared, because the database has what they stand
    /// for up to an offset; at most `limit`.
    public mutating func settled(upTo offset: Int64, in database: Int, limit: Int) -> [Bytes] {
        var cleared: [Bytes] = []
        for (name, round) in rounds where name.database == database && round <= offset {
            cleared.append(name.key)
            if cleared.count == limit { break }
        }
        for key in cleared { rounds[Mark.Name(key: key, database: database)] = nil }
        return cleared
    }
}

extension Mark {
    /// A key and its database.
    struct Name: Hashable, Sendable {
        let key: Bytes
        let database: Int
    }

    /// Whether a key is one of those that hold marks, which are nobody's rows.
    package static func isOwn(_ key: Bytes) -> Bool {
        guard key.starts(with: Array("sluice:".utf8)) else { return false }
        let rest = String(decoding: key.dropFirst(7), as: UTF8.self)
        return rest == "dirty" || rest == "writer" || rest.hasPrefix("inflight:")
    }

    var name: Name { Name(key: key, database: database) }
}
