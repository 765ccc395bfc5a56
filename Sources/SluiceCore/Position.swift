/// The name of one history of a Redis server: 40 hexadecimal digits.
///
/// A server takes a new one when it starts empty and when a replica of it is promoted.
public struct ReplicationID: Hashable, Sendable, CustomStringConvertible {
    /// The digits.
    public let digits: String

    /// Creates an identifier from what a server sent.
    public init(_ digits: String) {
        self.digits = digits
    }

    /// The digits.
    public var description: String { digits }
}

/// A point in a source's stream, at the boundary of a command or transaction.
///
/// Offsets count the bytes of the stream and mean something only within one history. The database
/// number belongs to it, because a server does not repeat SELECT after a partial resynchronisation.
public struct Position: Hashable, Sendable, CustomStringConvertible {
    /// The history.
    public var history: ReplicationID
    /// The bytes of the stream before this point.
    public var offset: Int64
    /// The database that was selected there.
    public var database: Int

    /// Creates a position.
    public init(history: ReplicationID, offset: Int64, database: Int) {
        self.history = history
        self.offset = offset
        self.database = database
    }

    /// The history, shortened, the offset and the database.
    public var description: String { "\(history.digits.prefix(8)):\(offset)/\(database)" }
}
