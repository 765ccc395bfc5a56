/// The type of a column, and of the texts that it takes from Redis.
public enum ColumnType: String, Hashable, Sendable, CaseIterable {
    /// UTF-8 without NUL.
    case text
    /// A signed 64-bit integer in canonical form.
    case integer
    /// A double; infinities are taken, not-a-number is not.
    case real
    /// A decimal number of any length.
    case decimal
    /// `1`, `0`, `true`, `false`, `yes`, `no`, `on`, `off` (any case).
    case boolean
    /// Seconds or milliseconds since 1970, or ISO 8601.
    case timestamp
    /// A JSON document.
    case json
    /// Any bytes.
    case bytes
}

extension ColumnType {
    /// Whether a column of this type may hold a total, on top of which adds go.
    package var isTotal: Bool { self == .integer || self == .real }
}

/// A column of a table.
public struct Column: Hashable, Sendable {
    /// The name, as in the database.
    public let name: String
    /// The type.
    public let type: ColumnType

    /// Creates a column.
    public init(name: String, type: ColumnType) {
        self.name = name
        self.type = type
    }
}

/// What becomes of a row whose key or member was removed.
public enum RemovalPolicy: Hashable, Sendable {
    /// The row is deleted.
    case delete
    /// The row stays as it was.
    case keep
    /// The row stays, with the time of its removal in this column.
    case mark(String)
}

/// Why a key, and with it its rows, went.
public enum RemovalCause: UInt8, Hashable, Sendable, CaseIterable {
    /// The application removed it.
    case deleted
    /// Its deadline passed.
    case expired
    /// Redis needed the memory.
    case evicted
    /// Its key was read missing, and nobody says why.
    case unknown
}

/// What becomes of rows, by the cause of their removal.
public struct RemovalPolicies: Hashable, Sendable {
    /// When the application removed the key or member.
    public var onDelete: RemovalPolicy
    /// When the key's deadline passed.
    public var onExpire: RemovalPolicy
    /// When Redis needed the memory.
    public var onEvict: RemovalPolicy
    /// When the whole database was flushed.
    public var onFlush: RemovalPolicy
    /// When a source that only names keys does not say why one went.
    public var onMissing: RemovalPolicy

    /// Creates policies; only what the application deletes goes, unless something else is said.
    public init(
        onDelete: RemovalPolicy = .delete, onExpire: RemovalPolicy = .keep,
        onEvict: RemovalPolicy = .keep, onFlush: RemovalPolicy = .keep,
        onMissing: RemovalPolicy = .keep,
    ) {
        self.onDelete = onDelete
        self.onExpire = onExpire
        self.onEvict = onEvict
        self.onFlush = onFlush
        self.onMissing = onMissing
    }

    /// The same for every cause.
    public static func always(_ policy: RemovalPolicy) -> RemovalPolicies {
        RemovalPolicies(
            onDelete: policy, onExpire: policy, onEvict: policy, onFlush: policy,
            onMissing: policy)
    }

    /// Those for what Redis or the application did.
    public var all: [RemovalPolicy] { [onDelete, onExpire, onEvict, onFlush] }

    /// The policy for a cause.
    public subscript(_ cause: RemovalCause) -> RemovalPolicy {
        switch cause {
        case .deleted: onDelete
        case .expired: onExpire
        case .evicted: onEvict
        case .unknown: onMissing
        }
    }
}

/// The Redis type that a table maps.
public enum RedisType: String, Hashable, Sendable, CaseIterable {
    case string, hash, list, set, stream
    case sortedSet = "sorted_set"

    /// What Redis's TYPE says.
    package var name: String { self == .sortedSet ? "zset" : rawValue }
}

/// What the configuration says of one table.
///
/// The value columns stand in a fixed order that the row buffer and the sinks share: the type's own
/// columns, then `rest`, then the deadline.
public struct TableMapping: Hashable, Sendable {
    /// The most value columns that one table may have.
    ///
    /// A change's set of columns is a bit mask of 128 bits, two for each column.
    public static let columnsMax = 64

    /// The table's name in the database.
    public let name: String
    /// The keys that it maps.
    public let keys: KeyPattern
    /// Their Redis type.
    public let type: RedisType
    /// The number of the Redis database that they are in.
    public let database: Int
    /// The fields of a hash or of stream entries, in the order of their columns.
    public let fields: [Bytes]
    /// What the first columns take of the one value that fills them; empty where a column is a value.
    public let sources: [ValueSource]
    /// The column of a member, or of a stream entry's identifier, which is part of the primary key.
    public let member: Column?
    /// All value columns.
    public let values: [Column]
    /// The index of the value column that takes all other fields as a JSON object.
    public let rest: Int?
    /// The index of the value column that takes the key's deadline.
    public let deadline: Int?
    /// The column that takes the time of the commit.
    public let settledAt: String?
    /// What becomes of a row when its key or member went.
    public let removal: RemovalPolicies

    /// Whether INCR and its like are added in the column.
    package let isCounter: Bool
    /// Whether each row has a score and nothing else, to which commands add.
    package let isScore: Bool
    /// Whether its rows are totals, of which a stream says what was added.
    package var isTotal: Bool { isCounter || isScore }

    /// The columns of the primary key: those of the key, then the member's.
    public var primaryKey: [Column] { keys.columns + (member.map { [$0] } ?? []) }

    /// Whether one key has one row.
    public var isOneRowPerKey: Bool { member == nil }

    /// Whether it matters why a key went.
    public var needsCause: Bool {
        type != .stream
            && !(removal.onDelete == removal.onExpire && removal.onExpire == removal.onEvict)
    }

    /// Whether a key that goes by itself, which nobody marks, may take its row along.
    public var wantsEvents: Bool {
        type != .stream && (needsCause || removal.onExpire != .keep)
    }

    /// Whether it matters what removes a key, a flush among them.
    var awaitsRemoval: Bool {
        // What was added before a read that finds nothing is in a total that stays.
        type != .stream
            && (needsCause || removal.onFlush != removal.onDelete || isTotal && canKeep)
    }

    /// Whether rows may outlive their keys without a mark.
    public var canKeep: Bool { type != .stream && (needsCause || removal.all.contains(.keep)) }

    /// Whether its rows are missing when they have no key: append-only tables keep theirs, and so do those
    /// whose policy says so of what the application removed.
    var canMiss: Bool { type != .stream && removal.onDelete != .keep }

    /// The column that takes the time of a removal, if a policy marks.
    public var markColumn: String? {
        for case .mark(let column) in removal.all + [removal.onMissing] { return column }
        return nil
    }

    /// Whether some key would be a row of both tables if it had their types.
    package func overlaps(_ other: TableMapping) -> Bool {
        database == other.database && keys.overlaps(other.keys)
    }

    /// Creates a mapping.
    ///
    /// - Parameters:
    ///   - name: The table's name in the database.
    ///   - keys: The keys that it maps.
    ///   - type: Their Redis type.
    ///   - database: The number of the Redis database that they are in.
    ///   - fields: The fields of a hash or of stream entries, of which `columns` are the columns.
    ///   - sources: What each of `columns` takes of one value that fills them all.
    ///   - columns: The value columns without `rest` and the deadline.
    ///   - member: The column of a member or entry, for types that have many rows a key.
    ///   - rest: The column for all other fields.
    ///   - deadline: The column for the key's deadline.
    ///   - settledAt: The column for the time of the commit.
    ///   - removal: What becomes of a row when its key or member went.
    public init(
        name: String,
        keys: KeyPattern,
        type: RedisType,
        database: Int = 0,
        fields: [Bytes] = [],
        sources: [ValueSource] = [],
        columns: [Column] = [],
        member: Column? = nil,
        rest: String? = nil,
        deadline: String? = nil,
        settledAt: String? = nil,
        removal: RemovalPolicies = RemovalPolicies(),
    ) {
        var values = columns
        self.rest = rest.map { name in
            values.append(Column(name: name, type: .json))
            return values.count - 1
        }
        self.deadline = deadline.map { name in
            values.append(Column(name: name, type: .timestamp))
            return values.count - 1
        }
        precondition(values.count <= Self.columnsMax, "a table has at most 64 value columns")
        self.name = name
        self.keys = keys
        self.type = type
        self.database = database
        self.fields = fields
        self.sources = sources
        isCounter = type == .string && sources.isEmpty && columns.first?.type == .integer
        isScore = type == .sortedSet && sources.isEmpty
        self.member = member
        self.values = values
        self.settledAt = settledAt
        self.removal = type == .stream ? .always(.keep) : removal
    }
}
