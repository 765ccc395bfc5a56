/// Where a row comes from: the names that Redis has for it.
public struct RowIdentity: Hashable, Sendable {
    /// The key.
    public let key: Bytes
    /// The member, or the identifier of a stream entry; empty where a key has one row.
    public let member: Bytes

    /// Creates an identity.
    public init(key: Bytes, member: Bytes = []) {
        self.key = key
        self.member = member
    }
}

/// Rows side by side: one vector for each column of the primary key, and of the values.
public struct RowSet: Hashable, Sendable {
    /// Where the rows come from.
    public var identities: [RowIdentity] = []
    /// The primary key's columns.
    public var key: [ColumnVector]
    /// The values' columns.
    public var values: [ColumnVector]

    /// How many rows there are.
    public var count: Int { identities.count }

    /// Creates an empty set for some columns.
    public init(key: [Column], values: [Column]) {
        self.key = key.map { ColumnVector($0.type) }
        self.values = values.map { ColumnVector($0.type) }
    }

    /// The rows at some places, in that order.
    public func selecting(_ rows: some Collection<Int>) -> RowSet {
        var result = self
        result.identities = rows.map { identities[$0] }
        result.key = key.map { $0.selecting(rows) }
        result.values = values.map { $0.selecting(rows) }
        return result
    }
}

/// Changes of some columns of rows, all in the same way.
public struct Merge: Hashable, Sendable {
    /// What becomes of a column.
    public enum Action: UInt8, Hashable, Sendable {
        /// It takes the value.
        case set = 1
        /// It grows by the value, from zero if it is null.
        case add = 2
        /// It is a JSON object, and the value's members are set in it.
        case mergeObject = 3
    }

    /// The value columns that change, as indices into the mapping's, in rising order.
    public let columns: [Int]
    /// What becomes of each.
    public let actions: [Action]
    /// Whether a row that is missing is made; otherwise it is left alone.
    public let isUpsert: Bool
    /// Whether an add came first, so that a row that outlived its key goes on.
    public let beginsWithAdd: Bool
    /// The rows, with values for just these columns.
    public var rows: RowSet

    /// Creates an empty merge.
    public init(
        columns: [Int], actions: [Action], isUpsert: Bool, beginsWithAdd: Bool = false,
        mapping: TableMapping,
    ) {
        self.columns = columns
        self.actions = actions
        self.isUpsert = isUpsert
        self.beginsWithAdd = beginsWithAdd
        rows = RowSet(key: mapping.primaryKey, values: columns.map { mapping.values[$0] })
    }
}

/// A row that outlived its key, and how.
public struct KeptRow: Hashable, Sendable {
    /// The row; all of a key when the member is empty, all of the table when the key is empty too.
    public let identity: RowIdentity
    /// How it stands.
    public let state: Kept

    /// Creates an entry.
    public init(identity: RowIdentity, state: Kept) {
        self.identity = identity
        self.state = state
    }
}

/// What a batch changes in one table. A row stands in one of these, or in one and in `marks`.
public struct TableChanges: Hashable, Sendable {
    /// The table's place in the file.
    public let table: Int
    /// Rows that get a whole new value.
    public var puts: RowSet
    /// Rows of which some columns change.
    public var merges: [Merge] = []
    /// Rows that get a whole new value, unless they outlived their keys.
    public var spared: RowSet
    /// What is added to each of these instead, if it did, in the first value column.
    public var sparedAdds: [Int64] = []
    /// The same where the table has scores.
    public var sparedReals: [Double] = []
    /// What of that is in no value that is read: a dead letter says that it was to be added.
    public var sparedLetters: [Double] = []
    /// What their dead letters hold of the total of each before that.
    public var sparedPending: [PendingTotal?] = []
    /// Whether the key of each went again meanwhile, so that its value is not all that was added.
    public var sparedIsBroken: [Bool] = []
    /// Whether the name of each was removed before that, so that only a row that had outlived its key by
    /// then goes on.
    public var sparedIsAnew: [Bool] = []
    /// Rows, keys (an empty member) or the whole table (an empty key) that outlived their keys.
    public var kept: [KeptRow] = []
    /// What becomes of all rows that were there before, except those in ``clearsExcept``.
    public var wipe: RemovalPolicy?
    /// Rows that are appended, and left alone if they are there.
    public var appends: RowSet
    /// Rows that are deleted.
    public var removes: RowSet
    /// Rows that are marked as removed after their last state was written.
    public var marks: RowSet
    /// Rows that no key of Redis stands for: they go as a removal by the application would have it,
    /// unless they outlived their keys.
    public var swept: RowSet
    /// Whether nobody says why the key of each went, so that the policy for that holds.
    public var sweptIsUnknown: [Bool] = []
    /// Keys that Redis does not have, of which all rows go in the same way.
    public var sweptKeys: RowSet
    /// Whether nobody says why each went.
    public var sweptKeysIsUnknown: [Bool] = []
    /// Whether those of them go too that stay only because nobody knows why their keys went.
    public var sweepsDoubtful = false
    /// Keys whose rows are deleted, except those in ``clearsExcept``.
    public var clears: RowSet
    /// Keys whose rows are marked as removed, except those in ``clearsExcept``.
    public var clearMarks: RowSet
    /// Rows of cleared keys that are there again.
    public var clearsExcept: RowSet

    /// Creates a set of no changes.
    public init(table: Int, mapping: TableMapping) {
        self.table = table
        let primaryKey = mapping.primaryKey
        puts = RowSet(key: primaryKey, values: mapping.values)
        spared = puts
        appends = RowSet(
            key: primaryKey, values: mapping.type == .stream ? mapping.values : []
        )
        removes = RowSet(key: primaryKey, values: [])
        marks = RowSet(key: primaryKey, values: [])
        swept = removes
        clears = RowSet(key: mapping.keys.columns, values: [])
        sweptKeys = clears
        clearMarks = clears
        clearsExcept = RowSet(key: primaryKey, values: [])
    }

    /// How many rows it names.
    public var count: Int {
        puts.count + spared.count + merges.reduce(0) { $0 + $1.rows.count } + appends.count
            + removes.count + marks.count + swept.count + sweptKeys.count + clears.count
            + clearMarks.count
            + kept.count
            + (wipe == nil ? 0 : 1)
    }
}

/// A row that was committed although it is newer than the cut, or was not read yet.
public struct LooseRow: Hashable, Sendable {
    /// The table's name.
    public let table: String
    /// Where the row comes from; a whole key when the member is empty.
    public let identity: RowIdentity
    /// The offset at which it was read, or nil when it is still to be read.
    public let offset: Int64?
    /// Of a total that is still to be read: whether it is more than adds that came to it, so that what is
    /// read replaces the row.
    public let replaces: Bool
    /// Of one to which only adds came: whether some of them are not in the database.
    public let lacksAdds: Bool

    /// Creates a loose row.
    public init(
        table: String, identity: RowIdentity, offset: Int64?, replaces: Bool = false,
        lacksAdds: Bool = false,
    ) {
        self.table = table
        self.identity = identity
        self.offset = offset
        self.replaces = replaces
        self.lacksAdds = lacksAdds
    }

    /// Creates one from ``stored``.
    package init(table: String, identity: RowIdentity, stored: Int64?) {
        let isOffset = stored.map { $0 >= 0 } ?? false
        self.init(
            table: table, identity: identity, offset: isOffset ? stored : nil,
            replaces: stored == Self.replacing, lacksAdds: stored == Self.lacking)
    }

    /// The offset, or what a database has in its place.
    package var stored: Int64? {
        replaces ? Self.replacing : lacksAdds ? Self.lacking : offset
    }

    // No offsets of a stream.
    private static let replacing: Int64 = -1
    private static let lacking: Int64 = -2
}

/// What is committed with the rows, and what the next commit compares with.
public struct Checkpoint: Hashable, Sendable {
    /// The writer's number; who takes over raises it.
    public var epoch: Int64
    /// The number of commits that this source has had.
    public var sequence: Int64
    /// The position, or nil before the first contact.
    public var position: Position?
    /// Whether every mapped key has been read in this history, so that the rows equal Redis.
    public var isBaselineDone: Bool
    /// The tables that may hold rows without a key.
    public var strays: Set<String>

    /// Creates a checkpoint.
    public init(
        epoch: Int64, sequence: Int64, position: Position?, isBaselineDone: Bool,
        strays: Set<String> = [],
    ) {
        self.epoch = epoch
        self.sequence = sequence
        self.position = position
        self.isBaselineDone = isBaselineDone
        self.strays = strays
    }
}

/// One database transaction: the rows that were dirty at a cut, with the cut's position.
public struct Batch: Sendable {
    /// What was committed last.
    public let from: Checkpoint
    /// What this batch commits.
    public let to: Checkpoint
    /// The changes, in the file's order of tables.
    public var tables: [TableChanges] = []
    /// Rows that can't be written.
    public var deadLetters: [DeadLetter] = []
    /// Rows with a dead letter that are written now.
    public var revived: [DeadLetter] = []
    /// The loose rows, which replace those that are stored; nil when both are none.
    public var loose: [LooseRow]?
    /// Whether rows that are put as the database has them are left alone, and the others counted:
    /// what a baseline reads says so how much of it is another than before.
    public var comparesPuts = false
    /// Whether rows are set aside even when most of a table's are refused.
    public var acceptsRefusals = false

    /// How many rows it writes.
    public var rowCount: Int { tables.reduce(0) { $0 + $1.count } }

    /// Those dead letters that are of rows which this batch was to write.
    package func refused(
        among letters: [DeadLetter], _ mappings: [TableMapping],
    ) -> [DeadLetter] {
        // Two tables may have rows of keys with the same name.
        let names = tables.map { mappings[$0.table].name }
        var written = Dictionary(
            zip(names, tables.map(\.identities)), uniquingKeysWith: { $0.union($1) })
        let swept = Dictionary(
            zip(names, tables.map { Set($0.swept.identities) }), uniquingKeysWith: { $0.union($1) })
        // The letter of a row that was to go, and had one before, may be there because the row stays.
        for letter in revived where swept[letter.table]?.contains(letter.identity) == true {
            written[letter.table]?.remove(letter.identity)
        }
        for letter in deadLetters { written[letter.table]?.remove(letter.identity) }
        // Rows that went with their table or key are not named.
        let removed = Set(
            tables.filter { $0.wipe != nil || $0.sweptKeys.count > 0 }.map {
                mappings[$0.table].name
            })
        return letters.filter { letter in
            written[letter.table]?.contains(letter.identity) == true
                || removed.contains(letter.table)
                    && (letter.operation == .remove || letter.operation == .mark)
        }
    }

    /// Creates a batch without rows.
    public init(from: Checkpoint, to: Checkpoint) {
        self.from = from
        self.to = to
    }
}

extension TableChanges {
    // Of all rows and keys that are written or go.
    fileprivate var identities: Set<RowIdentity> {
        var found: Set<RowIdentity> = []
        for rows in [
            puts, spared, appends, removes, marks, swept, sweptKeys, clears, clearMarks,
        ] { found.formUnion(rows.identities) }
        for merge in merges { found.formUnion(merge.rows.identities) }
        return found
    }
}
