// Rows that were read although they may have outlived their keys: what is read replaces the row, unless
// the database remembers that it did. Then what was added since goes on top of it.
extension KeptPlan {
    mutating func resolveSpared() {
        let rows = changes.spared.identities
        guard !rows.isEmpty else { return }
        var replaced: [Int] = []
        let deadline = mapping.deadline
        var added = Merge(
            columns: [0] + (deadline.map { [$0] } ?? []),
            actions: deadline == nil ? [.add] : [.add, .set], isUpsert: true, mapping: mapping)
        for index in rows.indices {
            let row = rows[index]
            let isAnew = changes.sparedIsAnew[index]
            let before = isAnew ? known[row] ?? wideBefore(row) : stateBefore(row)
            guard let state = before, state == .gone || state == .back && !isAnew else {
                replaced.append(index)
                if keptNow[rows[index]] == nil { end(rows[index]) }
                continue
            }
            let value = changes.spared.values[0]
            // All that the key has came back since it was gone; or what was added to it now.
            let isWhole = state == .gone && !changes.sparedIsBroken[index]
            guard mapping.isCounter else {
                remember(rows[index], .back, instead: state)
                if case .score(let score)? = changes.sparedPending[index] {
                    let sum = isWhole ? value.reals[index] : changes.sparedReals[index]
                    changes.puts.append(changes.spared, index, score: score + sum)
                    continue
                }
                let sum =
                    isWhole
                    ? value.reals[index] + changes.sparedLetters[index]
                    : changes.sparedReals[index]
                added.rows.append(changes.spared, index, score: sum)
                continue
            }
            let whole = value.isNull[index] ? 0 : value.integers[index]
            var delta = isWhole ? whole : changes.sparedAdds[index]
            remember(rows[index], .back, instead: state)
            switch changes.sparedPending[index] {
            case .total(let total)?:
                changes.puts.append(
                    changes.spared, index, total: total.clampedAdding(delta), deadline: deadline)
                continue
            case .add(let sum)?: delta = delta.clampedAdding(sum)
            case .score?, nil: break
            }
            guard delta != 0 || deadline != nil else { continue }
            added.rows.append(changes.spared, index, total: delta, deadline: deadline)
        }
        guard replaced.count < rows.count else { return changes.mergeSpared() }
        changes.spared = changes.spared.selecting(replaced)
        changes.mergeSpared()
        if added.rows.count > 0 { changes.merges.append(added) }
    }
}

extension TableChanges {
    /// Writes the spared rows as all others.
    mutating func mergeSpared() {
        for index in spared.identities.indices { puts.append(spared, index) }
        spared = spared.selecting([])
        sparedAdds = []
        sparedReals = []
        sparedLetters = []
        sparedPending = []
        sparedIsBroken = []
        sparedIsAnew = []
    }
}

extension RowSet {
    mutating func append(_ other: RowSet, _ row: Int) {
        appendKey(other, row)
        for index in values.indices { values[index].append(other.values[index], row) }
    }

    mutating func append(_ other: RowSet, _ row: Int, total: Int64, deadline: Int?) {
        appendKey(other, row)
        values[0].append(integer: total)
        if let deadline { values[1].append(other.values[deadline], row) }
    }

    mutating func append(_ other: RowSet, _ row: Int, score: Double) {
        appendKey(other, row)
        values[0].append(real: score)
    }

    private mutating func appendKey(_ other: RowSet, _ row: Int) {
        identities.append(other.identities[row])
        for index in key.indices { key[index].append(other.key[index], row) }
    }
}
