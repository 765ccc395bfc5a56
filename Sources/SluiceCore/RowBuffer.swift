/// The write-back cache of rows: those that wait to be written, and values that are known already.
///
/// It has one owner and takes no lock. Whatever changes a row folds into what is there; see
/// ``Row/Shape``. A change that does not say its result makes the row *opaque*: it waits for a read.
struct RowBuffer: ~Copyable {
    /// A row that waits for a read, or a whole key when `row` is nil.
    struct Opaque: Equatable {
        let table: Int
        let key: Int
        let row: Int?
    }

    var tables: [TableBuffer]
    /// Rows and keys that wait for a read, oldest first; some may be resolved by now.
    private(set) var toRead: [Opaque] = []
    private var toReadStart = 0
    /// How many rows and keys are opaque.
    private(set) var opaqueCount = 0
    /// The highest offset at which a row was read since the last cut.
    var readOffsetMax = Int64.min
    /// The highest offset at which any row was read: up to there rows may be newer than a cut.
    var looseOffsetMax = Int64.min
    /// Rows that went before their last state could be read.
    private(set) var vanished = 0
    /// Tables that got rows without a key since this was asked last.
    var newStrays: Set<Int> = []

    /// Creates an empty buffer.
    ///
    /// - Parameters:
    ///   - mappings: The tables, in the file's order.
    ///   - seed: The hash's seed, random outside tests.
    init(mappings: [TableMapping], seed: UInt64) {
        let hasher = ByteHasher(seed: seed)
        tables = mappings.map { TableBuffer(mapping: $0, hasher: hasher) }
    }

    /// Bytes of memory that the buffer takes, about.
    var memory: Int { tables.reduce(0) { $0 + $1.memory } }

    /// How many rows, keys and entries wait to be written.
    var dirtyCount: Int {
        tables.reduce(0) {
            $0 + $1.dirtyRows.count + $1.dirtyKeys.count + $1.appended.entries.count
        }
    }

    // MARK: Folding

    /// Whether a change at an offset concerns a row, or is in its value already or will be.
    @inline(__always)
    func isCurrent(_ table: Int, row: Int, at offset: Int64) -> Bool {
        let key = Int(tables[table].rows[row].key)
        return offset > tables[table].rows[row].readOffset && isCurrent(table, key: key, at: offset)
    }

    /// Whether a change at an offset concerns a key, or is in its value already or will be.
    @inline(__always)
    func isCurrent(_ table: Int, key: Int, at offset: Int64) -> Bool {
        let flags = tables[table].keys[key].flags
        return offset > tables[table].keys[key].readOffset
            && (flags.isDisjoint(with: .opaque) || flags.contains(.baseline))
    }

    /// Makes a row ready for a change of some of its cells; false when the change is absorbed.
    @inline(__always)
    mutating func beginMerge(_ table: Int, _ row: Int) -> Bool {
        let shape = tables[table].rows[row].shape
        if tables[table].rows[row].flags.contains(.gone) {
            beginPut(table, row)
            return true
        }
        switch shape {
        case .value: break
        case .merge: break
        case .update: tables[table].rows[row].shape = .merge
        case .absent:
            beginPut(table, row)
            return true
        case .opaque: return false
        case .untouched:
            let key = Int(tables[table].rows[row].key)
            if tables[table].keys[key].flags.contains(.cleared) {
                beginPut(table, row)
                return true
            }
            if tables[table].readsUnknown || tables[table].rows[row].flags.contains(.setAside) {
                makeOpaque(table, row)
                return false
            }
            tables[table].rows[row].shape = .merge
        }
        touch(table, row)
        return true
    }

    /// Starts a new value of a row: all cells null.
    @inline(__always)
    mutating func beginPut(_ table: Int, _ row: Int) {
        leaveOpaque(table, row)
        tables[table].fill(row, with: .null)
        tables[table].rows[row].shape = .value
        tables[table].rows[row].flags.subtract([.gone, .marked])
        tables[table].rows[row].misfit = nil
        touch(table, row)
    }

    /// Adds an integer to a cell that ``beginMerge(_:_:)`` made ready.
    @inline(__always)
    mutating func add(_ table: Int, _ row: Int, _ column: Int, _ delta: Int64) {
        let place = tables[table].place(row, column)
        switch tables[table].cells[place] {
        case .unchanged: tables[table].cells[place] = .add(delta)
        case .null: tables[table].cells[place] = .integer(delta)
        case .add(let sum):
            let (total, overflow) = sum.addingReportingOverflow(delta)
            if overflow { return makeOpaque(table, row) }
            tables[table].cells[place] = .add(total)
        case .integer(let value):
            let (total, overflow) = value.addingReportingOverflow(delta)
            if overflow { return makeOpaque(table, row) }
            tables[table].cells[place] = .integer(total)
        case .real, .addReal, .bytes, .fields: makeOpaque(table, row)
        }
    }

    /// Adds a double to a cell that ``beginMerge(_:_:)`` made ready: on an unknown value only once,
    /// because the sum of two would be rounded otherwise than Redis rounds.
    mutating func addReal(_ table: Int, _ row: Int, _ column: Int, _ delta: Double) {
        let place = tables[table].place(row, column)
        switch tables[table].cells[place] {
        case .unchanged: tables[table].cells[place] = .addReal(delta)
        case .null: tables[table].cells[place] = .real(delta)
        case .real(let value): tables[table].cells[place] = .real(value + delta)
        case .integer, .add, .addReal, .bytes, .fields: makeOpaque(table, row)
        }
    }

    /// Sets the deadline of a key, which never makes a row; nil removes it.
    mutating func setDeadline(_ table: Int, _ row: Int, _ milliseconds: Int64?) {
        guard let column = tables[table].mapping.deadline else { return }
        switch tables[table].rows[row].shape {
        case .untouched:
            if tables[table].readsUnknown || tables[table].rows[row].flags.contains(.setAside) {
                return makeOpaque(table, row)
            }
            tables[table].rows[row].shape = .update
        case .absent, .opaque: return
        case .update, .merge, .value: break
        }
        guard !tables[table].rows[row].flags.contains(.gone) else { return }
        tables[table].set(row, column, milliseconds.map(Cell.integer) ?? .null)
        touch(table, row)
    }

    /// Removes a row as its table's policy says.
    mutating func remove(_ table: Int, _ row: Int) {
        switch tables[table].mapping.onDelete {
        case .delete:
            leaveOpaque(table, row)
            tables[table].fill(row, with: .null)
            tables[table].rows[row].shape = .absent
            tables[table].rows[row].flags.subtract([.gone, .marked])
            tables[table].rows[row].misfit = nil
            touch(table, row)
        case .keep:
            keep(table, row)
            noteStrays(table)
        case .mark:
            keep(table, row)
            tables[table].rows[row].flags.insert(.marked)
            touch(table, row)
        }
    }

    /// Leaves a row in the database although its key is gone.
    mutating func keep(_ table: Int, _ row: Int) {
        if tables[table].rows[row].shape == .opaque {
            vanished += 1
            leaveOpaque(table, row)
            tables[table].rows[row].shape = .untouched
            tables[table].rows[row].misfit = Misfit(
                .vanished, "the key went before its last state could be read"
            )
            touch(table, row)
        }
        tables[table].rows[row].flags.insert(.gone)
    }

    /// Removes all rows of a key as its table's policy says, but for those that were read at a
    /// later offset than the removal's.
    mutating func clear(_ table: Int, _ key: Int, at offset: Int64) {
        leaveOpaque(table, key: key)
        switch tables[table].mapping.onDelete {
        case .keep:
            noteStrays(table)
            forEachRow(table, key) { buffer, row in
                guard offset > buffer.tables[table].rows[row].readOffset else { return }
                buffer.keep(table, row)
            }
        case .delete, .mark:
            dropRows(table, key, at: offset)
            tables[table].keys[key].flags.insert(.cleared)
            touchKey(table, key)
        }
    }

    /// Notes that a table may hold rows without a key: from now on unknown rows are read.
    mutating func noteStrays(_ table: Int) {
        newStrays.insert(table)
        tables[table].readsUnknown = true
    }

    /// Puts a row on the list of those to be written.
    @inline(__always)
    mutating func touch(_ table: Int, _ row: Int) {
        guard !tables[table].rows[row].flags.contains(.queued) else {
            tables[table].rows[row].flags.insert(.dirty)
            return
        }
        tables[table].rows[row].flags.formUnion([.queued, .dirty])
        tables[table].dirtyRows.append(Int32(row))
    }

    mutating func touchKey(_ table: Int, _ key: Int) {
        guard !tables[table].keys[key].flags.contains(.queued) else { return }
        tables[table].keys[key].flags.insert(.queued)
        tables[table].dirtyKeys.append(Int32(key))
    }

    // MARK: Opaque rows

    /// Notes that a row must be read.
    mutating func makeOpaque(_ table: Int, _ row: Int) {
        guard tables[table].rows[row].shape != .opaque else { return }
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .opaque
        tables[table].rows[row].flags.subtract([.gone, .marked])
        opaqueCount += 1
        guard !tables[table].rows[row].flags.contains(.reading) else { return }
        tables[table].rows[row].flags.insert(.reading)
        let key = Int(tables[table].rows[row].key)
        toRead.append(Opaque(table: table, key: key, row: row))
    }

    /// Notes that a whole key must be read.
    ///
    /// - Parameters:
    ///   - offset: Where it was changed: rows that were read later are known, and stay.
    ///   - isBaseline: Whether nothing has changed the key, so that rows which the read does not
    ///     find are only reported.
    mutating func makeKeyOpaque(
        _ table: Int, _ key: Int, at offset: Int64 = .max, isBaseline: Bool,
    ) {
        let mapping = tables[table].mapping
        if mapping.isOneRowPerKey {
            return makeOpaque(table, Int(tables[table].keys[key].first))
        }
        if !isBaseline {
            if mapping.type != .stream { dropRows(table, key, at: offset) }
            tables[table].keys[key].flags.remove(.baseline)
        }
        guard !tables[table].keys[key].flags.contains(.opaque) else { return }
        tables[table].keys[key].flags.formUnion(isBaseline ? [.opaque, .baseline] : .opaque)
        tables[table].keys[key].cursor = []
        opaqueCount += 1
        queueRead(table, key: key)
    }

    /// Puts a key on the list of those to be read.
    mutating func queueRead(_ table: Int, key: Int) {
        guard !tables[table].keys[key].flags.contains(.reading) else { return }
        tables[table].keys[key].flags.insert(.reading)
        toRead.append(Opaque(table: table, key: key, row: nil))
    }

    /// Takes the next row or key that still waits for a read.
    mutating func nextToRead() -> Opaque? {
        while toReadStart < toRead.count {
            let item = toRead[toReadStart]
            toReadStart += 1
            if toReadStart == toRead.count || toReadStart > 4096 {
                toRead.removeFirst(toReadStart)
                toReadStart = 0
            }
            if let row = item.row {
                // The row may have gone meanwhile, and its slot may be another's.
                guard row < tables[item.table].rows.count,
                    tables[item.table].rows[row].flags.contains(.reading),
                    Int(tables[item.table].rows[row].key) == item.key
                else { continue }
                tables[item.table].rows[row].flags.remove(.reading)
                if tables[item.table].rows[row].shape == .opaque { return item }
            } else {
                guard tables[item.table].keys[item.key].flags.contains(.reading) else { continue }
                tables[item.table].keys[item.key].flags.remove(.reading)
                if tables[item.table].keys[item.key].flags.contains(.opaque) { return item }
            }
        }
        return nil
    }

    /// Puts an item back that could not be read.
    mutating func returnToRead(_ item: Opaque) {
        if let row = item.row {
            guard tables[item.table].rows[row].shape == .opaque,
                !tables[item.table].rows[row].flags.contains(.reading)
            else { return }
            tables[item.table].rows[row].flags.insert(.reading)
            toRead.append(item)
        } else if tables[item.table].keys[item.key].flags.contains(.opaque) {
            queueRead(item.table, key: item.key)
        }
    }

    @inline(__always)
    mutating func leaveOpaque(_ table: Int, _ row: Int) {
        if tables[table].rows[row].shape == .opaque { opaqueCount -= 1 }
    }

    mutating func leaveOpaque(_ table: Int, key: Int) {
        guard tables[table].keys[key].flags.contains(.opaque) else { return }
        tables[table].keys[key].flags.subtract([.opaque, .baseline])
        opaqueCount -= 1
    }

    // MARK: Many rows

    /// Visits the rows of a key; the visitor may free the row that it is given.
    mutating func forEachRow(
        _ table: Int, _ key: Int, _ visit: (inout RowBuffer, Int) -> Void,
    ) {
        var row = Int(tables[table].keys[key].first)
        while row >= 0 {
            let next = Int(tables[table].rows[row].next)
            visit(&self, row)
            row = next
        }
    }

    /// Forgets the rows of a key that all go or will be read; those with a dead letter become absent.
    private mutating func dropRows(_ table: Int, _ key: Int, at offset: Int64) {
        forEachRow(table, key) { buffer, row in
            guard offset > buffer.tables[table].rows[row].readOffset else {
                // It was written already or will be, and the clear must not take it.
                if buffer.tables[table].rows[row].shape == .value { buffer.touch(table, row) }
                return
            }
            buffer.leaveOpaque(table, row)
            buffer.tables[table].rows[row].shape = .absent
            buffer.tables[table].fill(row, with: .null)
            buffer.tables[table].rows[row].flags.subtract([.gone, .marked])
            buffer.tables[table].rows[row].misfit = nil
            if buffer.tables[table].rows[row].flags.contains(.setAside) {
                buffer.touch(table, row)
            } else {
                // The clear takes it; a row with nothing to write is skipped at the cut.
                buffer.tables[table].rows[row].flags.remove(.dirty)
            }
        }
    }
}
