// A command that removes members without naming them, as ZPOPMIN does, has the key read. The rows of
// members that the read does not find go then, but not those that outlived an earlier key of the name.
// The database knows these. And the read is newer than the stream: what stands before it may say that the
// key went by itself, and that what was read is of one that came back. So such a clear is tentative until
// the stream has come to the read.
extension RowBuffer {
    /// Has the rows of a key go that a read did not find, but for those that outlived an earlier key.
    ///
    /// - Parameter before: The key's flags before the clear.
    mutating func clearTentatively(_ table: Int, _ key: Int, before: Key.Flags) {
        let ofClear: Key.Flags = [.cleared, .marking, .swept, .unproven]
        if before.contains(.cleared) || tables[table].keptKeys[Int32(key)] != nil {
            // All that the database has goes already, or outlived the key since the last cut.
            tables[table].keys[key].flags.subtract(ofClear)
            tables[table].keys[key].flags.formUnion(before.intersection(ofClear))
            return
        }
        sweepLooked(table, key, before: before)
        if tables[table].keys[key].flags.contains(.swept) {
            tables[table].keys[key].flags.insert(.tentative)
        }
    }

    /// Takes a tentative clear back.
    mutating func takeBackClear(_ table: Int, _ key: Int) {
        guard tables[table].keys[key].flags.contains(.tentative) else { return }
        tables[table].keys[key].flags.subtract([.cleared, .marking, .swept, .tentative])
    }

    /// See ``takeBackClear(_:_:)``: of all keys that were read beyond an offset. They are still to be read.
    mutating func takeBackClears(beyond offset: Int64) {
        for table in tables.indices {
            for slot in tables[table].dirtyKeys.map(Int.init)
            where isUndecided(table, slot, cut: offset) {
                takeBackClear(table, slot)
                tables[table].keys[slot].flags.insert(.tentative)
            }
        }
    }

    /// Has a row go that a read of its key did not find. One with a dead letter may have outlived an
    /// earlier key.
    ///
    /// - Parameter read: What the key was said to be when it was read.
    mutating func removeUnseen(_ table: Int, _ row: Int, of read: Key.Flags) {
        let state = tables[table].rows[row]
        if !read.isDisjoint(with: [.looked, .swept]),
            state.shape == .untouched || state.shape == .opaque,
            tables[table].mapping.canKeep
        {
            sweepRemoved(table, row)
        } else {
            remove(table, row, .deleted)
        }
    }

    /// The stream says, before the place of the read, that the key went.
    ///
    /// - Parameter cause: Why it went, or nil when nobody knows.
    mutating func resolveTentative(_ table: Int, _ key: Int, _ cause: RemovalCause?) {
        guard tables[table].keys[key].flags.contains(.tentative) else { return }
        switch cause.map({ tables[table].mapping.removal[$0] }) {
        case .keep, nil:
            takeBackClear(table, key)
            noteKept(table, key, cause)
            let start = tables[table].keys[key].readOffset
            forEachRow(table, key) { buffer, row in
                guard buffer.tables[table].rows[row].readOffset < start else {
                    return buffer.sparedNewer(table, row)
                }
                // It stays with the others.
                guard buffer.tables[table].rows[row].shape == .untouched else { return }
                buffer.tables[table].rows[row].flags.subtract([.swept, .removed])
            }
        case .delete?:
            tables[table].keys[key].flags.subtract([.tentative, .marking])
            if !tables[table].isShared { tables[table].keys[key].flags.remove(.swept) }
        case .mark?:
            tables[table].keys[key].flags.remove(.tentative)
            tables[table].keys[key].flags.insert(.marking)
            if !tables[table].isShared { tables[table].keys[key].flags.remove(.swept) }
        }
    }

    /// Whether a key has a tentative clear that waits for the next cut. Of a large key there is no room to
    /// know all that was read until it is decided.
    func isPutOff(_ table: Int, _ key: Int, cut offset: Int64) -> Bool {
        isUndecided(table, key, cut: offset)
            && !tables[table].keys[key].flags.contains(.scanning)
    }

    private func isUndecided(_ table: Int, _ key: Int, cut offset: Int64) -> Bool {
        let state = tables[table].keys[key]
        return state.flags.isSuperset(of: [.cleared, .tentative]) && state.readOffset > offset
    }

    /// Has a tentative clear wait for the next cut. What was read is written once more then, so that the
    /// clear leaves it.
    mutating func putOffClear(_ table: Int, _ key: Int) {
        putOffUntil = max(putOffUntil, tables[table].keys[key].readOffset)
        forEachRow(table, key) { buffer, row in
            guard buffer.tables[table].rows[row].shape == .value else { return }
            buffer.touch(table, row)
        }
    }
}
