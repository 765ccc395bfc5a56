/// Builds the part of a batch that concerns one table.
struct TableCut {
    private let mapping: TableMapping
    private var changes: TableChanges
    private var mergeAt: [MergeShape: Int] = [:]
    private var deadLetters: [DeadLetter] = []
    private var revived: [DeadLetter] = []

    init(mapping: TableMapping, table: Int) {
        self.mapping = mapping
        changes = TableChanges(table: table, mapping: mapping)
    }

    /// Adds what is to become of a row; true when the row can't be written and is set aside.
    mutating func add(_ row: Int, of table: borrowing TableBuffer) -> Bool {
        let key = Int(table.rows[row].key)
        let identity = RowIdentity(key: table.keys[key].bytes, member: table.rows[row].member)
        let wasSetAside = table.rows[row].flags.contains(.setAside)
        do throws(Misfit) {
            if let misfit = table.rows[row].misfit { throw misfit }
            try add(row, of: table, identity)
            // No row has a name that does not fit: none is to be marked, and none to go.
            if table.rows[row].flags.contains(.marked) {
                try? changes.marks.append(identity, mapping)
            }
            let isKept = keep(row, of: table, identity)
            // Its last state is only in the dead letter, which stays as the row does.
            if wasSetAside, isKept, table.rows[row].shape == .untouched { return true }
            if wasSetAside { revived.append(letter(identity, nil)) }
            // Whether the row goes, and its letter with it, only the database knows.
            return wasSetAside && table.rows[row].flags.contains(.swept)
                && table.rows[row].shape == .untouched
        } catch {
            let start = row * table.width
            let cells = table.cells[start..<start + table.width]
            let shape = table.rows[row].shape
            var letter = letter(identity, error)
            if shape == .value || shape == .merge || shape == .update {
                letter = DeadLetter(
                    table: letter.table, identity: identity,
                    operation: shape == .value ? .put : .merge, value: mapping.letterValue(cells),
                    code: letter.code, message: letter.message)
            }
            deadLetters.append(letter)
            _ = keep(row, of: table, identity)
            return true
        }
    }

    /// Adds what was added to a row that is still to be read; true when that is set aside.
    mutating func add(_ sum: Cell, to row: Int, of table: borrowing TableBuffer) -> Bool {
        let identity = RowIdentity(
            key: table.keys[Int(table.rows[row].key)].bytes, member: table.rows[row].member)
        var cells = [Cell](repeating: .unchanged, count: table.width)
        cells[0] = sum
        do {
            try merge(identity, cells[...], isUpsert: true, beginsWithAdd: mapping.canKeep)
            if table.rows[row].flags.contains(.setAside) { revived.append(letter(identity, nil)) }
            return false
        } catch {
            deadLetters.append(
                DeadLetter(
                    table: mapping.name, identity: identity, operation: .merge,
                    value: mapping.letterValue(cells[...]), code: error.code.rawValue,
                    message: error.message))
            return true
        }
    }

    private mutating func keep(
        _ row: Int, of table: borrowing TableBuffer, _ identity: RowIdentity,
    ) -> Bool {
        // An empty member would stand for the whole key.
        guard let kept = table.kept[Int32(row)],
            mapping.isOneRowPerKey || !identity.member.isEmpty
        else { return false }
        keep(identity, kept)
        return true
    }

    private mutating func add(
        _ row: Int, of table: borrowing TableBuffer, _ identity: RowIdentity,
    ) throws(Misfit) {
        let start = row * table.width
        var cells = table.cells[start..<start + table.width]
        if !mapping.sources.isEmpty, [.value, .merge].contains(table.rows[row].shape) {
            let columns = mapping.values.prefix(mapping.sources.count)
            let filled = try ValueSource.cells(of: cells[start], mapping.sources, columns)
            cells.replaceSubrange(start..<start + filled.count, with: filled)
        }
        switch table.rows[row].shape {
        case .value:
            if table.rows[row].flags.contains(.spared) {
                try changes.spared.append(identity, mapping, cells)
                let spared = table.spared[Int32(row)] ?? Spared()
                changes.sparedAdds.append(spared.delta)
                changes.sparedReals.append(spared.score)
                changes.sparedLetters.append(spared.letter)
                changes.sparedPending.append(spared.pending)
                changes.sparedIsBroken.append(spared.isBroken)
                changes.sparedIsAnew.append(spared.isAnew)
            } else {
                try changes.puts.append(identity, mapping, cells)
            }
            if table.isWiped || table.keys[Int(table.rows[row].key)].flags.contains(.cleared) {
                try changes.clearsExcept.append(identity, mapping)
            }
        case .merge:
            let beginsWithAdd = mapping.canKeep && table.rows[row].beginsWithAdd
            try merge(identity, cells, isUpsert: true, beginsWithAdd: beginsWithAdd)
        case .update: try merge(identity, cells, isUpsert: false, beginsWithAdd: false)
        case .absent: try? changes.removes.append(identity, mapping)
        case .untouched where table.rows[row].flags.contains(.swept):
            // No row has a name that does not fit.
            guard (try? changes.swept.append(identity, mapping)) != nil else { return }
            changes.sweptIsUnknown.append(table.rows[row].flags.contains(.unknown))
        case .untouched, .opaque, .missing: break
        }
    }

    private mutating func merge(
        _ identity: RowIdentity, _ cells: ArraySlice<Cell>, isUpsert: Bool, beginsWithAdd: Bool,
    ) throws(Misfit) {
        var shape = MergeShape(isUpsert: isUpsert, beginsWithAdd: beginsWithAdd)
        for (column, cell) in cells.enumerated() {
            shape.actions |= UInt128(cell.action?.rawValue ?? 0) << UInt128(column * 2)
        }
        let index: Int
        if let known = mergeAt[shape] {
            index = known
        } else {
            index = changes.merges.count
            mergeAt[shape] = index
            changes.merges.append(newMerge(cells, isUpsert, beginsWithAdd))
        }
        let changed = cells.filter { $0 != .unchanged }
        try changes.merges[index].rows.append(identity, mapping, changed)
    }

    private func newMerge(
        _ cells: ArraySlice<Cell>, _ isUpsert: Bool, _ beginsWithAdd: Bool,
    ) -> Merge {
        let changed = cells.enumerated().compactMap { column, cell in
            cell.action.map { (column, $0) }
        }
        return Merge(
            columns: changed.map(\.0), actions: changed.map(\.1), isUpsert: isUpsert,
            beginsWithAdd: beginsWithAdd, mapping: mapping,
        )
    }

    /// Adds a key of which all rows go.
    mutating func clear(_ key: Int, of table: borrowing TableBuffer) {
        let identity = RowIdentity(key: table.keys[key].bytes)
        do throws(Misfit) {
            let flags = table.keys[key].flags
            if flags.contains(.swept) {
                try changes.sweptKeys.append(identity, mapping)
                changes.sweptKeysIsUnknown.append(flags.contains(.unknown))
            } else if flags.contains(.marking) {
                try changes.clearMarks.append(identity, mapping)
            } else {
                try changes.clears.append(identity, mapping)
            }
        } catch {
            // Such a key never had rows: its members were set aside, each with this reason.
        }
    }

    /// Adds that a row can't be written.
    mutating func setAside(_ identity: RowIdentity, _ misfit: Misfit) {
        deadLetters.append(letter(identity, misfit))
    }

    /// Adds that a row, a key or the whole table outlived its key.
    mutating func keep(_ identity: RowIdentity, _ kept: Kept) {
        changes.kept.append(KeptRow(identity: identity, state: kept))
    }

    /// All rows go, as the policy for a flush says.
    mutating func wipe() { changes.wipe = mapping.removal.onFlush }

    /// Adds the entries of streams.
    mutating func append(_ entries: StreamEntries, of table: borrowing TableBuffer) {
        for (index, entry) in entries.entries.enumerated() {
            let identity = RowIdentity(
                key: table.keys[Int(entry.key)].bytes,
                member: Array("\(entry.milliseconds)-\(entry.sequence)".utf8),
            )
            do throws(Misfit) {
                if let misfit = entry.misfit { throw misfit }
                try changes.appends.append(identity, mapping)
                for column in entries.columns.indices {
                    changes.appends.values[column].append(entries.columns[column], index)
                }
            } catch {
                let letter = letter(identity, error)
                deadLetters.append(
                    DeadLetter(
                        table: letter.table, identity: identity, operation: .append,
                        value: entry.value, code: letter.code, message: letter.message))
            }
        }
    }

    /// Hands over what was built.
    consuming func finish(into cut: inout CutRows) {
        cut.deadLetters += deadLetters
        cut.revived += revived
        if changes.count > 0 { cut.tables.append(changes) }
    }

    private func letter(_ identity: RowIdentity, _ misfit: Misfit?) -> DeadLetter {
        DeadLetter(
            table: mapping.name,
            identity: identity,
            code: misfit?.code.rawValue ?? "",
            message: misfit?.message ?? "",
        )
    }
}

/// What rows of one merge have in common.
private struct MergeShape: Hashable {
    let isUpsert: Bool
    let beginsWithAdd: Bool
    /// The action of each column, two bits each.
    var actions: UInt128 = 0
}

extension Cell {
    /// How the cell is merged into a row whose value is not known.
    fileprivate var action: Merge.Action? {
        switch self {
        case .unchanged: nil
        case .add, .addReal: .add
        case .fields(let map): map.replaces ? .set : .mergeObject
        case .null, .integer, .real, .bytes: .set
        }
    }
}

extension RowSet {
    /// Appends a row, or nothing when it throws.
    package mutating func append(
        _ identity: RowIdentity, _ mapping: TableMapping, _ cells: some Sequence<Cell> = [],
    ) throws(Misfit) {
        let count = identities.count
        do throws(Misfit) {
            try appendKey(identity, mapping)
            for (index, cell) in cells.enumerated() { try values[index].append(cell) }
            identities.append(identity)
        } catch {
            for index in key.indices { key[index].truncate(to: count) }
            for index in values.indices { values[index].truncate(to: count) }
            throw error
        }
    }

    private mutating func appendKey(
        _ identity: RowIdentity, _ mapping: TableMapping,
    ) throws(Misfit) {
        guard let parts = mapping.keys.split(identity.key.span) else {
            preconditionFailure("a key that does not match its table's pattern was buffered")
        }
        let bytes = identity.key.span
        for (index, part) in parts.enumerated() {
            do throws(Misfit) {
                try key[index].append(text: bytes.extracting(part))
            } catch {
                let column = mapping.keys.columns[index]
                throw Misfit(
                    .key, "expected <\(column.name)> of the key to be \(column.type.rawValue)"
                )
            }
        }
        guard let member = mapping.member, key.count > parts.count else { return }
        do throws(Misfit) {
            try key[parts.count].append(text: identity.member.span)
        } catch {
            throw Misfit(.key, "expected member <\(member.name)> to be \(member.type.rawValue)")
        }
    }
}
