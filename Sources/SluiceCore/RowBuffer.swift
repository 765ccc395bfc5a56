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
        /// Whether it goes on with a hash of which a part was read.
        var isContinuation = false
    }

    var tables: [TableBuffer]
    /// Rows and keys that wait for a read, oldest first; some may be resolved by now.
    private(set) var toRead: [Opaque] = []
    private var toReadStart = 0
    /// Whether something is to be read that the stream need not say first.
    var isReadWanted: Bool { opaqueCount > missing.count }
    /// How many keys are read page by page.
    var scanCount = 0
    /// How many rows and keys are opaque.
    var opaqueCount = 0
    /// The highest offset at which a row was read since the last cut.
    var readOffsetMax = Int64.min
    /// The highest offset at which any row was read: up to there rows may be newer than a cut.
    var looseOffsetMax = Int64.min
    /// Up to where the stream decides over clears that the last cut put off.
    var putOffUntil = Int64.min
    /// Rows that went before their last state could be read.
    var vanished = 0
    /// The memory that one hash may take while it is read page by page, in bytes.
    var fieldScanMemoryMax = Int.max
    /// Tables that may have rows of members that a key does not have, because it was too large to be
    /// compared.
    var incomplete: Set<Int> = []
    /// Whether changes come with their values; else all that changed is read.
    var isExact = true
    /// Whether some key that waits for a read was stored by a command, or emptied.
    var mayBeStored = false
    /// Whether fields of hashes may have deadlines, so that a hash may be emptied by them.
    var mayFieldsExpire = false
    /// Rows that stayed because nobody knows why their key went.
    var doubtful = 0
    /// Rows and keys that were read and found missing: if no removal of theirs follows in the stream,
    /// a change emptied the key.
    var missing: [Opaque] = []
    /// The offset up to which such a removal would stand in the stream.
    var missingUntil = Int64.min

    /// Creates an empty buffer.
    ///
    /// - Parameters:
    ///   - mappings: The tables, in the file's order.
    ///   - seed: The hash's seed, random outside tests.
    init(mappings: [TableMapping], seed: UInt64) {
        let hasher = ByteHasher(seed: seed)
        tables = mappings.map { TableBuffer(mapping: $0, hasher: hasher) }
        for table in mappings.indices {
            let types = Set(
                mappings.indices.filter { $0 != table && mappings[$0].overlaps(mappings[table]) }
                    .map { mappings[$0].type })
            tables[table].isShared = !types.isEmpty
            tables[table].asksType = (1..<RedisType.allCases.count - 1).contains(types.count)
        }
    }

    /// Bytes of memory that the buffer takes, about.
    var memory: Int { tables.reduce(0) { $0 + $1.memory } }

    /// How many rows, keys and entries wait to be written.
    var dirtyCount: Int {
        tables.reduce(0) {
            $0 + $1.dirtyRows.count + $1.dirtyKeys.count + $1.appended.entries.count
                + ($1.hasTableChange ? 1 : 0)
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
            && (flags.isDisjoint(with: .opaque) || !flags.isDisjoint(with: [.baseline, .scanning]))
    }

    /// Makes a row ready for a change of some of its cells; false when the change is absorbed.
    ///
    /// - Parameter isAdd: Whether the change is an add, which goes on top of what a row was when its
    ///   key went.
    @inline(__always)
    mutating func beginMerge(_ table: Int, _ row: Int, isAdd: Bool = false) -> Bool {
        let shape = tables[table].rows[row].shape
        if tables[table].rows[row].flags.contains(.gone) {
            comeBack(table, row, isAdd: isAdd)
            return true
        }
        switch shape {
        case .value: if !isAdd { unspare(table, row) }
        case .merge: break
        case .update where tables[table].isShared:
            // The deadline may have been that of another type's key, which had the name until then.
            makeOpaque(table, row)
            if isAdd { spare(table, row) }
            return false
        case .update: makeMerge(table, row, isAdd: isAdd)
        case .absent, .missing:
            let isLooked =
                shape == .missing && tables[table].rows[row].flags.contains(.swept)
            let isUnseen = shape == .absent && isUnseen(table, row)
            beginPut(table, row)
            // It was looked for in vain: its key came back with this.
            if isLooked, isAdd { spare(table, row) }
            if isUnseen, isAdd { spareAnew(table, row) }
            return true
        case .opaque:
            if !isAdd { unspare(table, row) }
            tables[table].rows[row].flags.remove(.swept)
            noteOwn(table, row)
            return false
        case .untouched:
            let key = Int(tables[table].rows[row].key)
            if tables[table].keys[key].flags.contains(.scanning) {
                makeOpaque(table, row)
                return false
            }
            if tables[table].isWiped
                || !tables[table].keys[key].flags.isDisjoint(with: [.cleared, .missing])
            {
                let isUnseen = isUnseen(table, row)
                beginPut(table, row)
                if isUnseen, isAdd { spareAnew(table, row) }
                return true
            }
            // It was looked for in vain, or was removed: its key came back with this.
            if tables[table].rows[row].flags.contains(.swept) {
                let isRemoved = tables[table].rows[row].flags.contains(.removed)
                beginPut(table, row)
                guard isAdd else { return true }
                if isRemoved { spareAnew(table, row) } else { spare(table, row) }
                return true
            }
            if tables[table].readsUnknown || tables[table].rows[row].isDoubtful {
                makeOpaque(table, row)
                let isKnown = tables[table].mapping.isCounter || !tables[table].readsUnknown
                if isAdd, isKnown { spare(table, row) }
                return false
            }
            makeMerge(table, row, isAdd: isAdd)
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
        tables[table].rows[row].flags.subtract(Row.Flags.ofState)
        tables[table].forgetKept(row)
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

    /// Sets the deadline of a key, which never makes a row; nil removes it.
    mutating func setDeadline(_ table: Int, _ row: Int, _ milliseconds: Int64?) {
        guard let column = tables[table].mapping.deadline else { return }
        switch tables[table].rows[row].shape {
        // It goes, or outlived its key: the deadline is that of another type's key.
        case .untouched where !tables[table].rows[row].flags.isDisjoint(with: [.swept, .gone]):
            return
        case .untouched:
            if tables[table].readsUnknown || tables[table].rows[row].isDoubtful {
                makeOpaque(table, row, isOwn: false)
                // It may be another type's key, of which the name is.
                if tables[table].isShared, !tables[table].readsUnknown {
                    tables[table].rows[row].flags.insert(.swept)
                }
                // A deadline says nothing of the value.
                return spare(table, row)
            }
            tables[table].rows[row].shape = .update
        case .opaque where isScanningFields(table, row):
            return noteDeadline(table, row, milliseconds)
        case .absent, .opaque, .missing: return
        case .update, .merge, .value: break
        }
        guard !tables[table].rows[row].flags.contains(.gone) else { return }
        tables[table].set(row, column, milliseconds.map(Cell.integer) ?? .null)
        touch(table, row)
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
    ///
    /// - Parameter isOwn: Whether what changed it says that the key is of the table's type.
    mutating func makeOpaque(_ table: Int, _ row: Int, isOwn: Bool = true) {
        guard tables[table].rows[row].shape != .opaque else {
            tables[table].rows[row].flags.remove(.swept)
            if isOwn { noteOwn(table, row) }
            restartFieldScan(table, row)
            return
        }
        let isOwn = isOwn || isSurelyOwn(table, row)
        let kept = isOwn ? nil : keptUntilRead(table, row)
        leaveOpaque(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .opaque
        tables[table].rows[row].flags.subtract(Row.Flags.ofState)
        if isOwn { tables[table].rows[row].flags.insert(.own) }
        tables[table].forgetKept(row)
        opaqueCount += 1
        if let kept {
            tables[table].kept[Int32(row)] = kept
            touch(table, row)
        }
        guard !tables[table].rows[row].flags.contains(.reading) else { return }
        tables[table].rows[row].flags.insert(.reading)
        let key = Int(tables[table].rows[row].key)
        toRead.append(Opaque(table: table, key: key, row: row))
    }

    /// Why a whole key is read.
    enum KeyChange {
        /// For a baseline: nothing has changed it, and rows that the read does not find are only reported.
        case none
        /// Perhaps nothing has changed it: rows that outlived an earlier key stay.
        case perhaps
        /// A command changed some of its members: rows that outlived an earlier key stay.
        case part
        /// A command may have put another in its place.
        case whole
    }

    /// Notes that a whole key must be read.
    ///
    /// - Parameter offset: Where it was changed: rows that were read later are known, and stay.
    mutating func makeKeyOpaque(
        _ table: Int, _ key: Int, at offset: Int64 = .max, _ change: KeyChange,
    ) {
        let mapping = tables[table].mapping
        if mapping.isOneRowPerKey {
            let row = Int(tables[table].keys[key].first)
            let isNew = tables[table].rows[row].shape != .opaque
            makeOpaque(table, row, isOwn: false)
            if change == .none, isNew { spare(table, row) }
            if change != .none { unspare(table, row) }
            return
        }
        let isLooked = change == .perhaps || change == .part
        let wasOfBaseline = tables[table].keys[key].flags.isSuperset(of: [.opaque, .baseline])
        if change != .none {
            if mapping.type != .stream {
                if change == .whole { noteForgotten(table, key) }
                takeBackClear(table, key)
                if tables[table].isShared, isPut(table, key, before: offset) {
                    tables[table].keys[key].flags.insert(.own)
                }
                dropRows(table, key, at: offset, mapping.removal.onDelete, change)
            }
            tables[table].keys[key].flags.subtract(isLooked ? .baseline : [.baseline, .looked])
            restartScan(table, key)
        }
        guard !tables[table].keys[key].flags.contains(.opaque) else {
            if isLooked, wasOfBaseline { tables[table].keys[key].flags.insert(.looked) }
            return
        }
        leaveOpaque(table, key: key)
        tables[table].keys[key].flags.insert(.opaque)
        if change == .none { tables[table].keys[key].flags.insert(.baseline) }
        if isLooked { tables[table].keys[key].flags.insert(.looked) }
        // Who only names keys goes on in a stream where the last read of it ended.
        if isExact || mapping.type != .stream { tables[table].keys[key].cursor = [] }
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
        let shape = tables[table].rows[row].shape
        guard shape == .opaque || shape == .missing else { return }
        opaqueCount -= 1
        tables[table].rows[row].flags.subtract([.own, .stored, .untyped])
        if !tables[table].fieldScans.isEmpty || !tables[table].fieldScanRestarts.isEmpty {
            endFieldScan(table, row)
        }
    }

    mutating func leaveOpaque(_ table: Int, key: Int) {
        guard !tables[table].keys[key].flags.isDisjoint(with: [.opaque, .missing]) else { return }
        endScan(table, key)
        tables[table].keys[key].flags.subtract([.opaque, .baseline, .missing, .others])
        opaqueCount -= 1
    }
}
