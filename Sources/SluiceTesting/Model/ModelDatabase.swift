public import SluiceCore

/// A database in memory that does with a batch what the sinks' SQL does.
public struct ModelDatabase {
    /// A value of a column.
    public enum Stored: Hashable {
        /// No value.
        case null
        /// An integer, or microseconds since 1970.
        case integer(Int64)
        /// A double.
        case real(Double)
        /// Any text; JSON objects of texts are kept apart.
        case text(String)
        /// A JSON object of texts.
        case object([String: String])
    }

    /// The rows of each table.
    public internal(set) var tables: [[RowIdentity: [Stored]]]
    /// What was committed last.
    public private(set) var checkpoint = Checkpoint(
        epoch: 0, sequence: 0, position: nil, isBaselineDone: false)
    /// Rows that were set aside.
    public internal(set) var deadLetters: [DeadLetter] = []
    /// Rows that are newer than the position.
    public private(set) var loose: [LooseRow] = []
    /// The rows of each table that outlived their keys.
    public private(set) var kept: [[RowIdentity: Kept]]
    /// Whether some values of the first table's counters are refused.
    public var refuses = false
    /// Of how many values one is refused then, in whatever table; nil for a fourth, of the first table.
    public var refusedShare: Int64?
    /// Keys of rows that were refused once.
    public internal(set) var everRefused: Set<Bytes> = []
    /// Keys that went once before what was made of them could be read, or might have.
    public internal(set) var everVanished: Set<Bytes> = []
    var refused: [DeadLetter] = []
    let mappings: [TableMapping]

    /// Creates an empty database.
    public init(mappings: [TableMapping]) {
        self.mappings = mappings
        tables = mappings.map { _ in [:] }
        kept = mappings.map { _ in [:] }
    }

    /// What a new instance starts from.
    public mutating func open() -> StoredState {
        checkpoint.epoch += 1
        return StoredState(checkpoint: checkpoint, loose: loose, deadLetters: deadLetters)
    }

    /// Commits a batch, or refuses it as a sink does.
    ///
    /// - Returns: The rows that are refused.
    @discardableResult
    public mutating func apply(_ batch: Batch) throws(SinkError) -> [DeadLetter] {
        if checkpoint == batch.to { return batch.refused(among: deadLetters, mappings) }
        refused = []
        guard checkpoint == batch.from else {
            throw SinkError(.fenced, code: "sink.fenced", "another instance writes")
        }
        var revived = RevivedLetters(batch.revived)
        for changes in batch.tables { apply(changes, &revived) }
        let gone = Set(revived.ended.map { RowName(table: $0.table, identity: $0.identity) })
        let staying = Set(revived.staying.map { RowName(table: $0.table, identity: $0.identity) })
        let new = batch.deadLetters + refused
        let renewed = Set(new.map { RowName(table: $0.table, identity: $0.identity) })
        deadLetters.removeAll {
            let name = RowName(table: $0.table, identity: $0.identity)
            return gone.contains(name) || renewed.contains(name)
                || staying.contains(name) && $0.code == Misfit.Code.wrongType.rawValue
        }
        deadLetters += new
        for letter in new where letter.code == Misfit.Code.vanished.rawValue {
            everVanished.insert(letter.identity.key)
        }
        // What a key of another type had replaced, and which of the commands since were seen, is not told.
        for letter in new where letter.code == Misfit.Code.wrongType.rawValue {
            everRefused.insert(letter.identity.key)
        }
        if let loose = batch.loose { self.loose = loose }
        checkpoint = batch.to
        return refused
    }

    /// Notes that what keys had before a baseline may go before it can be read.
    ///
    /// - Returns: Whether that may be said of a total.
    mutating func noteUnread(_ redis: ModelRedis) -> Bool {
        for keys in redis.databases {
            everVanished.formUnion(keys.values.keys.map { Array($0.utf8) })
        }
        let known = redis.databases[0]
        return (Array(known.values.keys) + known.totals.keys).contains { $0.hasPrefix("c:") }
    }

    /// Applies changes alone, whatever was committed last.
    ///
    /// - Returns: The rows that are refused.
    @discardableResult
    public mutating func apply(_ tables: [TableChanges]) -> [DeadLetter] {
        refused = []
        var revived = RevivedLetters()
        for changes in tables { apply(changes, &revived) }
        return refused
    }

    private struct RowName: Hashable {
        let table: String
        let identity: RowIdentity
    }

    /// How a row stands that outlived its key, or nil when it did not.
    public func kept(_ table: Int, _ row: RowIdentity) -> Kept? {
        let state =
            kept[table][row] ?? kept[table][RowIdentity(key: row.key)]
            ?? kept[table][RowIdentity(key: [])]
        return state == .ended ? nil : state
    }

    private mutating func apply(_ note: KeptPlan.Note, _ table: Int) {
        switch note {
        case .forgetTable: kept[table] = [:]
        case .forgetKey(let key): kept[table] = kept[table].filter { $0.key.key != key }
        case .forget(let row): kept[table][row] = nil
        case .remember(let row): kept[table][row.identity] = row.state
        }
    }

    private mutating func apply(_ taken: TableChanges, _ revived: inout RevivedLetters) {
        let table = taken.table
        let mapping = mappings[table]
        var known: [RowIdentity: Kept] = [:]
        for row in KeptPlan.questions(taken) + [RowIdentity(key: [])] {
            for name in [row, RowIdentity(key: row.key)] { known[name] = kept[table][name] }
        }
        let plan = KeptPlan(taken, mapping: mapping, known: known)
        revived.add(plan, mapping)
        for reset in plan.resets { apply(reset, table) }
        let changes = plan.changes
        for row in 0..<changes.puts.count {
            let new = changes.puts.values.indices.first.map {
                stored(changes.puts.values[$0], row, isObject: false)
            }
            if let new, isRefused(table, new) {
                refuse(changes.puts, row, table)
                continue
            }
            tables[table][changes.puts.identities[row]] = changes.puts.values.indices.map {
                stored(changes.puts.values[$0], row, isObject: $0 == mapping.rest)
            }
        }
        for merge in changes.merges { apply(merge, table) }
        for row in 0..<changes.appends.count
        where tables[table][changes.appends.identities[row]] == nil {
            tables[table][changes.appends.identities[row]] = changes.appends.values.map {
                stored($0, row, isObject: false)
            }
        }
        let kept = Set(changes.clearsExcept.identities)
        if changes.wipe != nil { tables[table] = tables[table].filter { kept.contains($0.key) } }
        for identity in changes.clears.identities {
            for row in tables[table].keys where row.key == identity.key && !kept.contains(row) {
                tables[table][row] = nil
            }
        }
        for returned in plan.returned {
            let rows = self.kept[table].filter {
                $0.key.key == returned.key && !$0.key.member.isEmpty
                    && ReturnedRows.states.contains($0.value)
            }
            for row in plan.leaving(Array(rows.keys)).identities {
                tables[table][row] = nil
                self.kept[table][row] = nil
            }
        }
        for identity in changes.removes.identities { tables[table][identity] = nil }
        for note in plan.notes { apply(note, table) }
    }

    private mutating func apply(_ merge: Merge, _ table: Int) {
        let mapping = mappings[table]
        // No database takes an UPDATE that sets nothing.
        precondition(merge.isUpsert || !merge.columns.isEmpty, "an update of no column")
        for row in 0..<merge.rows.count {
            let identity = merge.rows.identities[row]
            guard merge.isUpsert || tables[table][identity] != nil else { continue }
            var values =
                tables[table][identity] ?? Array(repeating: .null, count: mapping.values.count)
            for (index, column) in merge.columns.enumerated() {
                let new = stored(merge.rows.values[index], row, isObject: column == mapping.rest)
                values[column] = Self.merged(values[column], new, merge.actions[index])
            }
            if isRefused(table, values[0]) {
                refuse(merge.rows, row, table, merge)
                continue
            }
            tables[table][identity] = values
        }
    }

    private static func merged(_ old: Stored, _ new: Stored, _ action: Merge.Action) -> Stored {
        switch (action, old, new) {
        case (.add, .integer(let left), .integer(let right)): .integer(left + right)
        case (.add, .real(let left), .real(let right)): .real(left + right)
        case (.mergeObject, .object(let left), .object(let right)):
            .object(left.merging(right) { $1 })
        default: new
        }
    }

    private func stored(_ vector: ColumnVector, _ row: Int, isObject: Bool) -> Stored {
        if vector.isNull[row] { return .null }
        switch vector.type {
        case .integer, .boolean, .timestamp: return .integer(vector.integers[row])
        case .real: return .real(vector.reals[row])
        case .text, .decimal, .json, .bytes:
            let text = String(decoding: vector.bytes(row), as: UTF8.self)
            return isObject ? .object(Self.object(text)) : .text(text)
        }
    }

    /// Reads a flat JSON object of texts without escapes, which is all that the traffic makes.
    static func object(_ text: String) -> [String: String] {
        let parts = text.split(separator: "\"", omittingEmptySubsequences: false)
        var object: [String: String] = [:]
        for index in stride(from: 1, to: parts.count - 2, by: 4) {
            object[String(parts[index])] = String(parts[index + 2])
        }
        return object
    }
}
