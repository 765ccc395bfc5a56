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
        // Of adds that nobody knows it is known that they were adds.
        guard isAdd, tables[table].kept[Int32(row)] == .gone, shape != .absent,
            tables[table].rows[row].misfit == nil
                || tables[table].spared[Int32(row)]?.isUnknown == true
        else {
            return beginPut(table, row)
        }
        tables[table].rows[row].misfit = nil
        tables[table].rows[row].flags.remove(.gone)
        tables[table].kept[Int32(row)] = .back
        // What Redis has now are only adds: a total goes on, other columns start afresh.
        for (column, value) in tables[table].mapping.values.enumerated() where !value.type.isTotal {
            tables[table].set(row, column, .null)
        }
        if shape == .untouched || shape == .update {
            // Adds that came since a restart, beside those that nobody knows.
            let before = tables[table].spared[Int32(row)] ?? Spared()
            unspare(table, row)
            makeMerge(table, row, isAdd: true)
            if let pending = takePending(table, row) {
                return begin(table, row, with: pending, and: before)
            }
            if let sum = takeLetterSum(table, row) {
                return begin(table, row, with: sum + before.real)
            }
            if before.real != 0 { tables[table].set(row, 0, .addReal(before.real)) }
            if before.delta != 0 { tables[table].set(row, 0, .add(before.delta)) }
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
        guard let spared = tables[table].spared[Int32(row)], !spared.isAnew else { return }
        // It goes before the read, which is of a key that is still to come.
        let isNewer = spared.isBroken || offset <= tables[table].rows[row].readOffset
        let sum: Cell
        switch tables[table].cells[tables[table].place(row, 0)] {
        case .real where isNewer: sum = .addReal(spared.score)
        case .integer(let total) where !isNewer && total == spared.delta: sum = .add(total)
        case .real(let total) where total == spared.real: sum = .addReal(spared.score)
        default: return
        }
        tables[table].rows[row].flags.remove(.spared)
        tables[table].spared[Int32(row)] = nil
        if let pending = spared.pending {
            tables[table].pendingTotals[Int32(row)] = nil
            begin(table, row, with: pending, and: spared)
        } else {
            makeMerge(table, row, isAdd: true)
            tables[table].set(row, 0, sum)
        }
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
        guard isExact, mapping.isTotal, mapping.canKeep else { return }
        tables[table].rows[row].flags.insert(.spared)
        if mapping.isScore, tables[table].spared[Int32(row)] == nil {
            // What a letter says that was to be added goes with what comes.
            let isSetAside = tables[table].rows[row].flags.contains(.setAside)
            let sum = isSetAside ? tables[table].letterSums[Int32(row)] : nil
            tables[table].spared[Int32(row)] = Spared(letter: sum ?? 0)
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

    /// See ``spare(_:_:)``: of a row that was to be read when this instance started.
    mutating func spare(_ table: Int, _ row: Int, restoring loose: LooseRow) {
        guard !loose.replaces else { return }
        spare(table, row)
        guard loose.lacksAdds, tables[table].rows[row].flags.contains(.spared) else { return }
        tables[table].spared[Int32(row), default: Spared()].isUnknown = true
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
        let before = tables[table].spared[Int32(row)]?.delta ?? 0
        tables[table].spared[Int32(row), default: Spared()].delta = before.clampedAdding(delta)
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

    /// Whether what was read of a counter may be forgotten whose key goes before the place of the read, and
    /// stays: what was added until then is written, and is all that the database lacks.
    func canTakeBackRead(_ table: Int, _ row: Int) -> Bool {
        canForgetRead(table, row) && tables[table].mapping.isCounter
            && tables[table].rows[row].flags.contains(.dirty)
    }

    /// Whether a total was read ahead of the stream that a command may replace or remove before the place of
    /// the read: what was read is of no use then, as the stream says everything from there on.
    func canForgetRead(_ table: Int, _ row: Int) -> Bool {
        let shape = tables[table].rows[row].shape
        return (shape == .value || shape == .missing)
            && tables[table].rows[row].flags.contains(.spared)
    }

    /// See ``canForgetRead(_:_:)``.
    mutating func forgetRead(_ table: Int, _ row: Int) {
        unspare(table, row)
        tables[table].rows[row].readOffset = .min
    }

    /// Notes that the key of a row goes before the place at which the row was read, of a later key.
    mutating func goBeforeRead(_ table: Int, _ row: Int, _ policy: RemovalPolicy?) {
        switch policy {
        case .keep:
            tables[table].goneBeforeRead.insert(Int32(row))
            breakSpared(table, row)
        case nil:
            tables[table].goneBeforeRead.insert(Int32(row))
            vanished += 1
            unspare(table, row)
        case .delete, .mark:
            tables[table].goneBeforeRead.remove(Int32(row))
            unspare(table, row)
        }
    }

    /// Notes that a row was read after all of its key or table went: it is of a key that came back.
    ///
    /// - Parameter kept: How the rest is remembered.
    mutating func sparedNewer(_ table: Int, _ row: Int, _ kept: Kept) {
        tables[table].goneBeforeRead.insert(Int32(row))
        if tables[table].rows[row].flags.contains(.spared) {
            guard tables[table].mapping.isScore else { return breakSpared(table, row) }
            // Of adds that nobody knows it stays unknown how many they were.
            if tables[table].spared[Int32(row)]?.isUnknown == true { vanished += 1 }
            tables[table].spared[Int32(row), default: Spared()].isBroken = true
            // What was kept in doubt starts afresh.
            if kept == .doubtful { tables[table].spared[Int32(row)] = Spared(isBroken: true) }
            return
        }
        let shape = tables[table].rows[row].shape
        // What a command had made of it before that, nobody knows.
        if tables[table].mapping.isTotal, shape == .value { vanished += 1 }
        guard shape == .value || shape == .untouched || shape == .merge,
            tables[table].rows[row].flags.isDisjoint(with: [.setAside, .others]),
            tables[table].kept[Int32(row)] == nil
        else { return }
        tables[table].kept[Int32(row)] = .ended
        touch(table, row)
    }

    /// Notes that the application removed a member before the place at which it was read.
    mutating func removeBeforeRead(_ table: Int, _ row: Int) {
        tables[table].goneBeforeRead.remove(Int32(row))
        if tables[table].rows[row].shape == .missing {
            // From here on the stream says everything.
            tables[table].rows[row].readOffset = .min
            return remove(table, row, .deleted)
        }
        guard tables[table].rows[row].flags.contains(.spared) else { return }
        if tables[table].mapping.removal.onDelete == .keep {
            // What was read is of one that is still to come.
            let sum = tables[table].spared[Int32(row)]?.score ?? 0
            unspare(table, row)
            tables[table].rows[row].readOffset = .min
            tables[table].fill(row, with: .unchanged)
            begin(table, row, with: sum)
            remove(table, row, .deleted)
        } else if canForgetRead(table, row) {
            forgetRead(table, row)
            remove(table, row, .deleted)
        } else {
            unspare(table, row)
        }
    }

    /// Takes what was added to rows that are still to be read, or were read beyond a cut: the database
    /// has it then, whatever a gap, a restart or the end of their keys makes of the read.
    ///
    /// What a dead letter says that was to be added before goes along, so that it is no less than the row lacks.
    mutating func takeSums(_ table: Int, at offset: Int64) -> [(row: Int, sum: Cell)] {
        guard !tables[table].spared.isEmpty, !tables[table].isWiped else { return [] }
        var sums: [(row: Int, sum: Cell)] = []
        for (slot, spared) in tables[table].spared where spared.hasSum && !spared.isAnew {
            let state = tables[table].rows[Int(slot)]
            let isUnread = state.shape == .opaque || state.shape == .missing
            guard isUnread || state.isSparedOpen(at: offset), state.flags.contains(.spared),
                !state.flags.contains(.gone),
                !tables[table].keys[Int(state.key)].flags.contains(.cleared),
                let sum = self.sum(table, slot, spared)
            else { continue }
            sums.append((Int(slot), sum))
            tables[table].spared[slot]?.delta = 0
            tables[table].spared[slot]?.real = 0
            tables[table].spared[slot]?.letter = 0
        }
        return sums
    }

    private func sum(_ table: Int, _ slot: Int32, _ spared: Spared) -> Cell? {
        let isSetAside = tables[table].rows[Int(slot)].flags.contains(.setAside)
        // Of adds that nobody knows, the letter alone says that there were some; and where nothing came beside
        // it, it stays: its key has not come back.
        guard !isSetAside || !spared.isUnknown && spared.lacksAdds else { return nil }
        if tables[table].mapping.isScore {
            return isSetAside && tables[table].letterSums[slot] == nil
                ? nil : .addReal(spared.score)
        }
        return switch spared.pending {
        case nil: isSetAside ? nil : .add(spared.delta)
        case .add(let sum): .add(sum.clampedAdding(spared.delta))
        // What the row was to be may not be all that it was to be.
        case .total, .score: nil
        }
    }

    /// Notes that what a dead letter says is on its way once more.
    mutating func endLetter(_ table: Int, _ row: Int) {
        guard tables[table].rows[row].flags.contains(.setAside) else { return }
        tables[table].rows[row].flags.remove(.setAside)
        tables[table].letterSums[Int32(row)] = nil
        endPending(table, Int32(row))
    }
}
