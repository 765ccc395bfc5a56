public import SluiceCore

/// What a statement does to rows of a table, so that those which are refused can be kept.
public struct WriteTarget: Sendable {
    /// How often rows are tried once more that were refused, perhaps for rows that went after them.
    public static let passesMax = 8

    let table: Int
    let mapping: TableMapping
    let operation: DeadLetter.Operation
    let columns: [Column]
    let adds: [Bool]
    // How many rows of the table the batch has, or how many go with their table or key.
    let rowCount: Int
    let isWide: Bool

    /// A statement over whole rows, or over the names of rows for a removal.
    public init(
        _ changes: TableChanges, _ mapping: TableMapping, _ operation: DeadLetter.Operation,
    ) {
        self.init(changes, mapping, operation, columns: mapping.values, adds: [])
    }

    /// A removal of rows that go with their table or key.
    ///
    /// - Parameter rowCount: How many they are.
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
        isWide = rowCount != nil
    }
}

/// The rows of a batch that a database refuses.
public struct Refusals: Sendable {
    /// They, with the reasons.
    public private(set) var letters: [DeadLetter] = []
    private let acceptsAll: Bool
    private let known: [String: Set<RowIdentity>]
    private var counts: [Int: Int] = [:]
    /// The most rows that are set aside when they were to go with their table or key.
    public static let wideMax = 10_000

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
        let place = Self.place(target)
        counts[place, default: 0] += 1
        let count = counts[place] ?? 0
        let isMost = count >= SinkError.refusalsMin && count * 2 > target.rowCount
        guard !acceptsAll, isMost || target.isWide && count > Self.wideMax else { return }
        throw SinkError(
            .halt, code: SinkError.refusesMost,
            (isMost ? "most of" : "\(count) of")
                + " \(target.rowCount) rows of table \(target.mapping.name) are refused, the last "
                + "with \(code): \(message)",
            hint: "mend the table and run `sluice resume`; or `sluice resume --set-aside`, which "
                + "makes them dead letters")
    }

    // Rows that go with their table or key say nothing of the others.
    private static func place(_ target: WriteTarget) -> Int {
        target.table * 2 + (target.isWide ? 1 : 0)
    }

    /// Takes out those that were added since there were so many, to try them once more.
    public mutating func takeBack(to count: Int, of target: WriteTarget) -> [RowIdentity] {
        let taken = letters[count...].map(\.identity)
        counts[Self.place(target), default: 0] -= taken.count
        letters.removeSubrange(count...)
        return taken
    }

    /// Adds an entry of a stream of which the identifier is there with other fields.
    public mutating func addReused(_ rows: RowSet, _ row: Int, of target: WriteTarget) {
        letters.append(.reused(rows, row, target.mapping))
    }
}
