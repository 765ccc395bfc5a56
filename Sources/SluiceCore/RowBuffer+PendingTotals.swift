/// What the dead letter of a counter or a score holds, and the database does not have.
public enum PendingTotal: Hashable, Sendable {
    /// What is to be added to the row, which has more than Redis because it outlived its key.
    case add(Int64)
    /// What the row was to be.
    case total(Int64)
    /// What a score was to be.
    case score(Double)
}

// A total that outlived its key is more than Redis has. What it was to be, or what was to be added to it, and
// was refused, stands only in its dead letter: what comes then goes on top of that.
extension RowBuffer {
    /// Notes what a row's dead letter holds of its total.
    mutating func notePending(_ table: Int, _ row: Int, _ pending: PendingTotal?) {
        guard pending != nil || !tables[table].pendingTotals.isEmpty else { return }
        tables[table].pendingTotals[Int32(row)] = pending
        if tables[table].rows[row].flags.contains(.spared) {
            tables[table].spared[Int32(row), default: Spared()].pending = pending
        }
    }

    /// What a row's dead letter holds of its total, for what takes it along into the row.
    mutating func takePending(_ table: Int, _ row: Int) -> PendingTotal? {
        guard !tables[table].pendingTotals.isEmpty else { return nil }
        let pending = tables[table].pendingTotals.removeValue(forKey: Int32(row))
        return tables[table].rows[row].flags.contains(.setAside) ? pending : nil
    }

    /// Forgets the totals of rows whose letters ended with a commit.
    mutating func endPendingTotals() {
        for table in tables.indices where !tables[table].pendingTotals.isEmpty {
            for slot in Array(tables[table].pendingTotals.keys)
            where !tables[table].rows[Int(slot)].flags.contains(.setAside) {
                endPending(table, slot)
            }
        }
    }

    /// Forgets the totals of letters of which a person forgot the values.
    mutating func discardPending(_ choice: LetterChoice) {
        for table in tables.indices
        where choice.table ?? tables[table].mapping.name == tables[table].mapping.name {
            for slot in Array(tables[table].pendingTotals.keys)
                + Array(tables[table].letterSums.keys)
            {
                let row = tables[table].rows[Int(slot)]
                let key = tables[table].keys[Int(row.key)].bytes
                guard choice.key ?? key == key, choice.member ?? row.member == row.member else {
                    continue
                }
                endPending(table, slot)
                tables[table].letterSums[slot] = nil
                tables[table].spared[slot]?.letter = 0
            }
        }
    }

    /// Notes a dead letter of what was to be added to a row that is still to be read.
    mutating func noteLetter(_ table: Int, _ row: Int, _ sum: Cell) {
        tables[table].rows[row].flags.insert(.setAside)
        switch sum {
        case .add(let delta): notePending(table, row, .add(delta))
        case .addReal(let delta):
            noteLetterSum(table, row, delta)
            tables[table].spared[Int32(row)]?.letter += delta
        default: break
        }
    }

    /// Notes what a dead letter says that was to be added to a score.
    mutating func noteLetterSum(_ table: Int, _ row: Int, _ sum: Double?) {
        guard sum != nil || !tables[table].letterSums.isEmpty else { return }
        tables[table].letterSums[Int32(row)] = sum
    }

    mutating func endPending(_ table: Int, _ slot: Int32) {
        tables[table].pendingTotals[slot] = nil
        tables[table].spared[slot]?.pending = nil
    }

    /// Begins a row that outlived its key with what its dead letter holds.
    mutating func begin(_ table: Int, _ row: Int, with pending: PendingTotal, and delta: Int64 = 0)
    {
        switch pending {
        case .add(let sum):
            makeMerge(table, row, isAdd: true)
            tables[table].set(row, 0, .add(sum.clampedAdding(delta)))
        case .total(let total):
            tables[table].fill(row, with: .null)
            tables[table].rows[row].shape = .value
            tables[table].set(row, 0, .integer(total.clampedAdding(delta)))
        case .score(let score):
            beginScore(table, row, score)
        }
        touch(table, row)
    }

    /// Begins a total that outlived its key with what its dead letter holds, and what was added to it.
    mutating func begin(_ table: Int, _ row: Int, with pending: PendingTotal, and added: Spared) {
        guard case .score(let score) = pending else {
            return begin(table, row, with: pending, and: added.delta)
        }
        beginScore(table, row, score + added.real)
    }

    /// Begins a score that outlived its key with what it was to be, and what was added to it.
    mutating func beginScore(_ table: Int, _ row: Int, _ score: Double) {
        tables[table].fill(row, with: .null)
        tables[table].rows[row].shape = .value
        tables[table].set(row, 0, .real(score))
        touch(table, row)
    }

    /// What a score's dead letter says that was to be added, for what takes it along into the row.
    mutating func takeLetterSum(_ table: Int, _ row: Int) -> Double? {
        guard !tables[table].letterSums.isEmpty else { return nil }
        return tables[table].letterSums.removeValue(forKey: Int32(row))
    }

    /// Begins a score with what was added to it, on top of what the database has.
    mutating func begin(_ table: Int, _ row: Int, with sum: Double) {
        makeMerge(table, row, isAdd: true)
        tables[table].set(row, 0, .addReal(sum))
        touch(table, row)
    }

    /// Takes a refused change of a row along, of which the key went while the change was on its way.
    mutating func foldRefused(_ table: Int, _ row: Int) {
        let cell = tables[table].width > 0 ? tables[table].cells[row * tables[table].width] : .null
        let folded: Int64? =
            switch cell {
            case .add(let delta): delta
            case .unchanged: 0
            default: nil
            }
        if case .addReal(let delta) = cell {
            if let sum = takeLetterSum(table, row) {
                return begin(table, row, with: sum + delta)
            }
            if case .score(let score)? = takePending(table, row) {
                return beginScore(table, row, score + delta)
            }
        }
        if let folded, let pending = takePending(table, row) {
            return begin(table, row, with: pending, and: folded)
        }
        if tables[table].rows[row].shape == .update {
            // A deadline says nothing of the value, which the letter has.
            tables[table].fill(row, with: .unchanged)
            tables[table].rows[row].shape = .untouched
        } else {
            vanished += 1
            tables[table].rows[row].misfit = Self.vanishedMisfit
        }
        touch(table, row)
    }

    /// Has a row read to which changes were folded while the database refused it.
    mutating func readFolded(_ table: Int, _ row: Int) {
        let cell = tables[table].width > 0 ? tables[table].cells[row * tables[table].width] : .null
        makeOpaque(table, row, isOwn: false)
        switch cell {
        case .add(let delta):
            spare(table, row)
            noteSpared(table, row, delta)
        case .addReal(let delta):
            spare(table, row)
            noteSpared(table, row, delta)
        // A deadline says nothing of the value.
        case .unchanged: spare(table, row)
        default: break
        }
    }
}

extension DeadLetter {
    /// What it holds of a counter's total, or of a whole score.
    func pending(_ mapping: TableMapping) -> PendingTotal? {
        guard mapping.isTotal, let value else { return nil }
        var start = LetterObject()
        start.append(Bytes(mapping.values[0].name.utf8), text: [])
        let before = start.finished().dropLast(2)
        guard mapping.isCounter else {
            guard operation == .put else { return nil }
            return Self.digits(value, after: before).flatMap { Number.real($0.span) }
                .map(PendingTotal.score)
        }
        switch operation {
        case .merge:
            let marker = before.dropLast() + Bytes("{\"add\":\"".utf8)
            // A value that was set where the deadline was to stay.
            return Self.number(value, after: marker).map(PendingTotal.add)
                ?? Self.number(value, after: before).map(PendingTotal.total)
        case .put: return Self.number(value, after: before).map(PendingTotal.total)
        case .append, .remove, .mark, .clear: return nil
        }
    }

    /// What it holds that was to be added to a score.
    func addedScore(_ mapping: TableMapping) -> Double? {
        guard mapping.isScore, let value else { return nil }
        var start = LetterObject()
        start.append(Bytes(mapping.values[0].name.utf8), text: [])
        let marker = start.finished().dropLast(3) + Bytes("{\"add\":\"".utf8)
        return Self.digits(value, after: marker).flatMap { Number.real($0.span) }
    }

    private static func number(_ value: Bytes, after start: some Collection<UInt8>) -> Int64? {
        digits(value, after: start).flatMap { Number.integer($0.span) }
    }

    private static func digits(_ value: Bytes, after start: some Collection<UInt8>) -> Bytes? {
        guard value.starts(with: start) else { return nil }
        return Bytes(value.dropFirst(start.count).prefix { $0 != UInt8(ascii: "\"") })
    }
}
