public import SluiceCore

/// What a statement does to rows of a table, so that those which are refused can be kept.
public struct WriteTarget: Sendable {
    let table: Int
    let mapping: TableMapping
    let operation: DeadLetter.Operation
    let columns: [Column]
    let adds: [Bool]
    // How many rows of the table the batch has.
    let rowCount: Int

    /// A statement over whole rows, or over the names of rows for a removal.
    public init(
        _ changes: TableChanges, _ mapping: TableMapping, _ operation: DeadLetter.Operation,
    ) {
        self.init(changes, mapping, operation, columns: mapping.values, adds: [])
    }

    /// A removal of each row of a table.
    ///
    /// - Parameter rowCount: How many the table has.
    public init(_ changes: TableChanges, _ mapping: TableMapping, marks: Bool, rowCount: Int) {
        self.init(
            changes, mapping, marks ? .mark : .remove, columns: mapping.values, adds: [],
            rowCount: rowCount)
    }

    /// A statement that changes some columns.
    public init(_ changes: TableChanges, _ mapping: TableMapping, _ merge: Merge) {
        self.init(
            changes, mapping, .merge, columns: merge.columns.map { mapping.values[$0] },
            adds: merge.actions.map { $0 == .add })
    }

    private init(
        _ changes: TableChanges, _ mapping: TableMapping, _ operation: DeadLetter.Operation,
        columns: [Column], adds: [Bool], rowCount: Int? = nil,
    ) {
        table = changes.table
        self.mapping = mapping
        self.operation = operation
        self.columns = columns
        self.adds = adds
        self.rowCount = rowCount ?? changes.count
    }
}

/// The rows of a batch that a database refuses.
public struct Refusals: Sendable {
    /// They, with the reasons.
    public private(set) var letters: [DeadLetter] = []
    private let acceptsAll: Bool
    private let known: [String: Set<RowIdentity>]
    private var counts: [Int: Int] = [:]

    /// Begins with none.
    ///
    /// - Parameters:
    ///   - acceptsAll: Whether any number may be refused.
    ///   - known: Rows that were set aside before, which say nothing new of a table.
    public init(acceptsAll: Bool, known: [DeadLetter] = []) {
        self.acceptsAll = acceptsAll
        self.known = Dictionary(grouping: known, by: \.table).mapValues {
            Set($0.map(\.identity))
        }
    }

    /// Adds a row that was refused.
    ///
    /// - Throws: ``SinkError/refusesMost`` when that is true of most of a table's rows.
    public mutating func add(
        _ rows: RowSet, _ row: Int, of target: WriteTarget, code: String, message: String,
    ) throws(SinkError) {
        letters.append(
            DeadLetter(
                refusing: rows, row, columns: target.columns, adds: target.adds,
                operation: target.operation, table: target.mapping.name, code: code,
                message: message))
        let isKnown = known[target.mapping.name]?.contains(rows.identities[row]) == true
        guard !isKnown else { return }
        counts[target.table, default: 0] += 1
        let count = counts[target.table] ?? 0
        guard !acceptsAll, count >= SinkError.refusalsMin, count * 2 > target.rowCount else {
            return
        }
        throw SinkError(
            .halt, code: SinkError.refusesMost,
            "most of \(target.rowCount) rows of table \(target.mapping.name) are refused, the last "
                + "with \(code): \(message)",
            hint: "mend the table and run `sluice resume`; or `sluice resume --set-aside`, which "
                + "makes them dead letters")
    }

    /// Adds an entry of a stream of which the identifier is there with other fields.
    public mutating func addReused(_ rows: RowSet, _ row: Int, of target: WriteTarget) {
        letters.append(.reused(rows, row, target.mapping))
    }
}
