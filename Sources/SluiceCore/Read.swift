/// One thing to be read from Redis at an exact offset.
public struct ReadItem: Hashable, Sendable {
    /// What is to be read.
    public enum Target: Hashable, Sendable {
        /// The whole value of the key.
        case key
        /// One member of a set or sorted set.
        case member(Bytes)
        /// These fields of a hash.
        case fields([Bytes])
        /// A page of a set or sorted set, from a cursor, of about so many members.
        case members(cursor: Bytes, count: Int)
        /// A page of a hash's fields, from a cursor, of about so many.
        case fieldPage(cursor: Bytes, count: Int)
        /// A page of a stream, from after this identifier, or from its start when empty.
        case entries(after: Bytes)

        /// Whether it is a page of members.
        var isOfMembers: Bool {
            if case .members = self { true } else { false }
        }
    }

    /// The type that the key is expected to have.
    public let type: RedisType
    /// The key.
    public let key: Bytes
    /// The number of its database.
    public let database: Int
    /// What is to be read of it.
    public let target: Target
    /// Whether the key's deadline is wanted too.
    public let wantsDeadline: Bool
    /// Whether the last identifier that a stream gave is wanted too.
    public let wantsLastEntry: Bool
    /// Whether the key's type is wanted too.
    public let wantsType: Bool

    /// Creates an item.
    public init(
        type: RedisType, key: Bytes, database: Int = 0, target: Target, wantsDeadline: Bool = false,
        wantsLastEntry: Bool = false, wantsType: Bool = false,
    ) {
        self.type = type
        self.key = key
        self.database = database
        self.target = target
        self.wantsDeadline = wantsDeadline
        self.wantsLastEntry = wantsLastEntry
        self.wantsType = wantsType
    }
}

/// What a read found.
public enum ReadValue: Hashable, Sendable {
    /// No such key or member.
    case missing
    /// A key of another type.
    case wrongType
    /// The value of a string, or a member's score; for a member of a set, empty.
    case single(Bytes)
    /// Fields and values, or members and scores, in turn; for sets and lists, the elements.
    case elements([Bytes])
    /// Members, and the scores of a sorted set or the values of a hash in turn; and where the next page begins, `0` if this is
    /// the last.
    case page([Bytes], next: Bytes)
    /// Stream entries.
    case entries([StreamEntry])
}

/// One entry of a stream.
public struct StreamEntry: Hashable, Sendable {
    /// The identifier, such as `1700000000000-0`.
    public let id: Bytes
    /// Fields and values in turn.
    public let fields: [Bytes]

    /// Creates an entry.
    public init(id: Bytes, fields: [Bytes]) {
        self.id = id
        self.fields = fields
    }
}

/// The answer to a ``ReadItem``.
public struct ReadResult: Hashable, Sendable {
    /// What was found.
    public let value: ReadValue
    /// The key's deadline in milliseconds since 1970, if it was wanted and there is one.
    public let deadline: Int64?
    /// The last identifier that a stream gave, if it was wanted.
    public let lastEntry: Bytes?
    /// What Redis calls the key's type, such as `zset`, if it was wanted.
    public let typeName: Bytes?

    /// Creates a result.
    public init(
        value: ReadValue, deadline: Int64? = nil, lastEntry: Bytes? = nil, typeName: Bytes? = nil,
    ) {
        self.value = value
        self.deadline = deadline
        self.lastEntry = lastEntry
        self.typeName = typeName
    }
}

extension ReadResult {
    /// What the answer costs Redis, beside that of a small value: elements are looked up and copied.
    var cost: Int {
        switch value {
        case .missing, .wrongType: 1
        case .single(let bytes): 1 + bytes.count / Self.bytesPerCost
        case .elements(let elements), .page(let elements, _): Self.cost(elements)
        case .entries(let entries): entries.reduce(1) { $0 + Self.cost($1.fields) }
        }
    }

    private static let elementsPerCost = 16
    private static let bytesPerCost = 4_096

    private static func cost(_ elements: [Bytes]) -> Int {
        1 + elements.count / elementsPerCost
            + elements.reduce(0) { $0 + $1.count } / bytesPerCost
    }
}

extension ReadItem {
    /// The most entries that one page of a stream holds.
    public static let streamPageMax = 1_000
}
