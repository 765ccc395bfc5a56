extension RowBuffer {
    /// Notes that what a row became can't be written.
    mutating func setAside(_ table: Int, _ row: Int, _ misfit: Misfit) {
        leaveOpaque(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .untouched
        tables[table].rows[row].misfit = misfit
        touch(table, row)
    }

    /// Notes that what a key with many rows became can't be written: a row without a member says so.
    mutating func setAside(_ table: Int, key: Int, _ misfit: Misfit) {
        let none: Bytes = []
        let row = tables[table].member(none.span, of: key)
        tables[table].rows[row].misfit = misfit
        touch(table, row)
    }

    // MARK: Keys of another type

    /// Whether a key that is not of a table's type is another table's, or nobody's.
    ///
    /// The first table that maps the key is to say so when none maps its type. Types of modules are no
    /// mistake: nobody maps them.
    func isOthers(_ key: Int, of table: Int, _ result: ReadResult) -> Bool {
        let bytes = tables[table].keys[key].bytes
        let sharing = tables.indices.filter {
            tables[$0].mapping.database == tables[table].mapping.database
                && tables[$0].mapping.keys.matches(bytes.span)
        }
        guard sharing.count > 1 else { return false }
        guard let name = result.typeName,
            let type = RedisType.allCases.first(where: { $0.name.utf8.elementsEqual(name) })
        else { return true }
        return sharing.contains { tables[$0].mapping.type == type } || sharing.first != table
    }

    /// What a row of a key says that is of another type than its table maps.
    func wrongType(_ table: Int, _ result: ReadResult) -> Misfit {
        let found = result.typeName.map { ", not \(String(decoding: $0, as: UTF8.self))" } ?? ""
        return Misfit(
            .wrongType, "expected a key of type \(tables[table].mapping.type.rawValue)\(found)")
    }

    /// A key is of another type than a table maps from an offset on: the application put another value
    /// in the place of what was there.
    mutating func leave(_ table: Int, key: Int, at offset: Int64) {
        guard tables[table].mapping.type != .stream else {
            return endMistyped(table, key: key, at: offset)
        }
        guard tables[table].mapping.isOneRowPerKey else {
            return leaveMembers(table, key, at: offset)
        }
        let row = Int(tables[table].keys[key].first)
        guard isCurrent(table, row: row, at: offset) else { return unspare(table, row) }
        leave(table, row)
    }

    /// Has a row go whose key is of another type now, unless it outlived an earlier key of its own: that
    /// only the database knows, if nothing has put the row since.
    mutating func leave(_ table: Int, _ row: Int) {
        let flags = tables[table].rows[row].flags
        let shape = tables[table].rows[row].shape
        // Its end has been seen, and what comes now is no return.
        guard !flags.contains(.gone), shape != .absent else { return }
        if shape == .missing {
            return resolveMissing(
                Opaque(table: table, key: Int(tables[table].rows[row].key), row: row))
        }
        // What stays is remembered with the cause.
        let isPut = shape == .value || shape == .merge
        if isPut || tables[table].mapping.removal.onDelete == .keep, !flags.contains(.swept) {
            return remove(table, row, .deleted)
        }
        tables[table].rows[row].flags.insert(.swept)
        tables[table].rows[row].flags.remove(.unknown)
        sweepOut(table, row)
    }

    private mutating func leaveMembers(_ table: Int, _ key: Int, at offset: Int64) {
        let state = tables[table].keys[key]
        guard offset > state.readOffset else { return }
        if state.flags.contains(.missing) {
            return resolveMissing(Opaque(table: table, key: key, row: nil))
        }
        let isPut = isPut(table, key)
        // Its end has been seen, and what comes now is no return.
        guard isPut || tables[table].keptKeys[Int32(key)] == nil else { return }
        clear(table, key, at: offset, .deleted)
        if !isPut { sweepWhatIsCleared(table, key, before: state.flags) }
    }

    /// Has the rows of a key that are to be cleared go only if they did not outlive an earlier key.
    mutating func sweepWhatIsCleared(_ table: Int, _ key: Int, before: Key.Flags) {
        let wasCleared = before.contains(.cleared) && !before.contains(.swept)
        guard tables[table].keys[key].flags.contains(.cleared), !wasCleared else { return }
        tables[table].keys[key].flags.insert(.swept)
        tables[table].keys[key].flags.remove(.unknown)
    }

    // Whether the buffer has a member of a key, so that the key was of its table's type.
    private func isPut(_ table: Int, _ key: Int) -> Bool {
        var row = Int(tables[table].keys[key].first)
        while row >= 0 {
            let shape = tables[table].rows[row].shape
            if shape == .value || shape == .merge, !tables[table].rows[row].flags.contains(.gone) {
                return true
            }
            row = Int(tables[table].rows[row].next)
        }
        return false
    }

    /// Notes that a stream's key is of another type. Its entries are no rows here: the row that says so
    /// ends when the key is a stream again, or gone.
    mutating func setMistyped(_ table: Int, key: Int, _ misfit: Misfit) {
        setAside(table, key: key, misfit)
        tables[table].rows[Int(tables[table].keys[key].first)].flags.insert(.mistyped)
    }

    /// A stream's key is of no other type any more.
    mutating func endMistyped(_ table: Int, key: Int) {
        let row = Int(tables[table].keys[key].first)
        guard row >= 0, tables[table].rows[row].flags.contains(.mistyped) else { return }
        tables[table].rows[row].flags.remove(.mistyped)
        tables[table].rows[row].misfit = nil
        touch(table, row)
    }

    /// A stream's key went, or is a stream again, at an offset.
    mutating func endMistyped(_ table: Int, key: Int, at offset: Int64) {
        guard offset > tables[table].keys[key].readOffset else { return }
        endMistyped(table, key: key)
    }
}
