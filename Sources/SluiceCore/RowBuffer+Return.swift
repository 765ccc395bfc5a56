// A row that outlived its key has what it had when that went. When the key comes back, an add goes on top
// of a total, and anything else replaces the row. What is read of it may be from before or after.
extension RowBuffer {
    /// Begins to change some cells of a row.
    @inline(__always)
    mutating func makeMerge(_ table: Int, _ row: Int, isAdd: Bool) {
        tables[table].rows[row].shape = .merge
        tables[table].rows[row].beginsWithAdd = isAdd
    }

    /// The key of a row that outlived it comes back.
    mutating func comeBack(_ table: Int, _ row: Int, isAdd: Bool) {
        let shape = tables[table].rows[row].shape
        guard isAdd, tables[table].kept[Int32(row)] == .gone, shape != .absent,
            tables[table].rows[row].misfit == nil
        else {
            return beginPut(table, row)
        }
        tables[table].rows[row].flags.remove(.gone)
        tables[table].kept[Int32(row)] = .back
        // What Redis has now are only adds: a total goes on, other columns start afresh.
        for (column, value) in tables[table].mapping.values.enumerated() where !value.type.isTotal {
            tables[table].set(row, column, .null)
        }
        if shape == .untouched || shape == .update {
            makeMerge(table, row, isAdd: true)
            if let pending = takePending(table, row) { return begin(table, row, with: pending) }
        }
        touch(table, row)
    }

    /// See ``settleReturn(_:_:)``: of all rows of a key, before what was remembered of it is replaced.
    mutating func settleReturns(_ table: Int, _ key: Int, at offset: Int64) {
        guard tables[table].keptTable != nil || !tables[table].keptKeys.isEmpty else { return }
        forEachRow(table, key) { $0.settleReturn(table, $1, at: offset) }
    }

    /// Has the change of a row stand for itself that came back after all of its key or table went, now
    /// that it goes once more before a cut: the database is to take it for one of a key that came back.
    mutating func settleReturn(_ table: Int, _ row: Int, at offset: Int64 = .max) {
        guard tables[table].kept[Int32(row)] == nil else { return }
        let ofKey = tables[table].keptKeys[tables[table].rows[row].key]
        let wide = (tables[table].mapping.isOneRowPerKey ? nil : ofKey) ?? tables[table].keptTable
        guard let wide, wide != .ended else { return }
        let state = tables[table].rows[row]
        switch state.shape {
        case .merge: settleMerge(table, row, wide)
        case .value where state.flags.contains(.spared) && wide == .gone:
            settleSpared(table, row, at: offset)
        // What was kept in doubt starts afresh.
        case .value where tables[table].mapping.isScore: unspare(table, row)
        case .opaque where state.flags.contains(.spared) && tables[table].mapping.isScore:
            guard wide == .doubtful, let sum = tables[table].spared[Int32(row)]?.real else {
                return
            }
            beginPut(table, row)
            tables[table].set(row, 0, .real(sum))
        case .update:
            // A deadline is one of the key that came, be it another type's: what outlived has none.
            tables[table].fill(row, with: .unchanged)
            tables[table].rows[row].shape = .untouched
        case .value, .untouched, .absent, .opaque, .missing: break
        }
    }

    // A total that was read, of a key to which nothing came but adds since it came back.
    private mutating func settleSpared(_ table: Int, _ row: Int, at offset: Int64) {
        guard let spared = tables[table].spared[Int32(row)], spared.pending == nil, !spared.isAnew
        else { return }
        // It goes before the read, which is of a key that is still to come.
        let isNewer = spared.isBroken || offset <= tables[table].rows[row].readOffset
        let sum: Cell
        switch tables[table].cells[tables[table].place(row, 0)] {
        case .real where isNewer: sum = .addReal(spared.real)
        case .integer(let total) where !isNewer && total == spared.delta: sum = .add(total)
        case .real(let total) where total == spared.real: sum = .addReal(total)
        default: return
        }
        tables[table].rows[row].flags.remove(.spared)
        tables[table].spared[Int32(row)] = nil
        makeMerge(table, row, isAdd: true)
        tables[table].set(row, 0, sum)
        // From here on the stream says everything.
        if isNewer { tables[table].rows[row].readOffset = .min }
    }

    private mutating func settleMerge(_ table: Int, _ row: Int, _ wide: Kept) {
        let start = tables[table].place(row, 0)
        let columns = tables[table].mapping.values
        let goesOn = wide == .gone && tables[table].rows[row].beginsWithAdd
        for (column, value) in columns.enumerated() where !goesOn || !value.type.isTotal {
            switch tables[table].cells[start + column] {
            case .unchanged: tables[table].cells[start + column] = .null
            case .add(let sum): tables[table].cells[start + column] = .integer(sum)
            case .addReal(let sum): tables[table].cells[start + column] = .real(sum)
            case .fields(var map):
                map.replaces = true
                tables[table].cells[start + column] = .fields(map)
            case .null, .integer, .real, .bytes: break
            }
        }
        if !goesOn { tables[table].rows[row].shape = .value }
    }

    /// Notes that a row is read only for what was added to it, or for a baseline: if it outlived its
    /// key, what is read does not replace it.
    mutating func spare(_ table: Int, _ row: Int) {
        let mapping = tables[table].mapping
        guard isExact, mapping.isCounter || mapping.isScore, mapping.canKeep else { return }
        tables[table].rows[row].flags.insert(.spared)
        // None says that nobody knows what was added.
        if mapping.isScore, tables[table].spared[Int32(row)] == nil {
            tables[table].spared[Int32(row)] = Spared()
        }
        // A letter on its way to the database is in what is on its way.
        guard !tables[table].pendingTotals.isEmpty,
            tables[table].rows[row].flags.contains(.setAside),
            let pending = tables[table].pendingTotals[Int32(row)]
        else { return }
        tables[table].spared[Int32(row), default: Spared()].pending = pending
    }

    /// Whether a row goes with all that a read of its key did not find, unless it outlived an earlier key.
    @inline(__always)
    func isUnseen(_ table: Int, _ row: Int) -> Bool {
        let key = Int(tables[table].rows[row].key)
        return tables[table].keys[key].flags.isSuperset(of: [.cleared, .swept])
            && !tables[table].isWiped && !tables[table].rows[row].flags.contains(.dirty)
    }

    /// See ``spare(_:_:)``: what came of it since its key came back goes first.
    mutating func spareAnew(_ table: Int, _ row: Int) {
        spare(table, row)
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        tables[table].spared[Int32(row), default: Spared()].isAnew = true
    }

    /// Adds a double to a cell that ``beginMerge(_:_:)`` made ready: on an unknown value only once,
    /// because the sum of two would be rounded otherwise than Redis rounds. It is read then, unless it is
    /// known to have outlived its key: such a total Redis does not have.
    mutating func addReal(_ table: Int, _ row: Int, _ column: Int, _ delta: Double) {
        let place = tables[table].place(row, column)
        switch tables[table].cells[place] {
        case .unchanged: tables[table].cells[place] = .addReal(delta)
        case .null: tables[table].cells[place] = .real(delta)
        case .real(let value): tables[table].cells[place] = .real(value + delta)
        case .addReal(let sum) where tables[table].kept[Int32(row)] == .back:
            tables[table].cells[place] = .addReal(sum + delta)
        case .addReal(let sum):
            makeOpaque(table, row)
            spare(table, row)
            noteSpared(table, row, sum)
        case .integer, .add, .bytes, .fields: makeOpaque(table, row)
        }
    }

    /// Notes that a row has changed otherwise: what is read replaces it.
    @inline(__always)
    mutating func unspare(_ table: Int, _ row: Int) {
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        tables[table].rows[row].flags.remove(.spared)
        tables[table].spared[Int32(row)] = nil
    }

    /// Counts an add of a row whose value is not known, in case the row outlived its key.
    mutating func noteSpared(_ table: Int, _ row: Int, _ delta: Int64) {
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        tables[table].spared[Int32(row), default: Spared()].delta &+= delta
    }

    /// See ``noteSpared(_:_:_:)``: of a score.
    mutating func noteSpared(_ table: Int, _ row: Int, _ delta: Double) {
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        tables[table].spared[Int32(row), default: Spared()].real += delta
    }

    /// Notes that the key of a row that was read later went, and that the row stays.
    mutating func breakSpared(_ table: Int, _ row: Int) {
        // It went before what commands had made of it could be read.
        vanished += 1
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        tables[table].spared[Int32(row), default: Spared()].isBroken = true
    }

    /// Notes that a row was read after all of its key or table went: it is of a key that came back.
    mutating func sparedNewer(_ table: Int, _ row: Int) {
        if tables[table].rows[row].flags.contains(.spared) {
            guard tables[table].mapping.isScore else { return breakSpared(table, row) }
            tables[table].spared[Int32(row), default: Spared()].isBroken = true
            return
        }
        let shape = tables[table].rows[row].shape
        guard shape == .value || shape == .untouched || shape == .merge,
            tables[table].rows[row].flags.isDisjoint(with: [.setAside, .others]),
            tables[table].kept[Int32(row)] == nil
        else { return }
        tables[table].kept[Int32(row)] = .ended
        touch(table, row)
    }

    /// Notes that the application removed a member before the place at which it was read.
    mutating func removeBeforeRead(_ table: Int, _ row: Int) {
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        if tables[table].rows[row].shape == .missing {
            // From here on the stream says everything.
            tables[table].rows[row].readOffset = .min
            remove(table, row, .deleted)
        } else if tables[table].mapping.removal.onDelete == .keep {
            tables[table].spared[Int32(row), default: Spared()].isBroken = true
        } else {
            unspare(table, row)
        }
    }

    /// Has written what was added to scores that are still to be read, or were read beyond a cut: what is
    /// read later, after a gap or a restart, may be of a key that came back.
    ///
    /// - Returns: The rows, which are to be read after that.
    mutating func closeScores(at offset: Int64) -> [(table: Int, row: Int)] {
        var open: [(table: Int, row: Int)] = []
        for table in tables.indices where tables[table].mapping.isScore && !tables[table].isShared {
            for (slot, spared) in tables[table].spared where spared.real != 0 {
                let state = tables[table].rows[Int(slot)]
                let isOpen = state.shape == .opaque || state.isSparedOpen(at: offset)
                if isOpen, state.flags.isDisjoint(with: [.setAside, .gone]) {
                    open.append((table, Int(slot)))
                }
            }
        }
        for (table, row) in open {
            let sum = tables[table].spared[Int32(row)]?.real ?? 0
            leaveOpaque(table, row)
            unspare(table, row)
            tables[table].fill(row, with: .unchanged)
            tables[table].rows[row].readOffset = .min
            makeMerge(table, row, isAdd: true)
            tables[table].set(row, 0, .addReal(sum))
            touch(table, row)
        }
        return open
    }
}
