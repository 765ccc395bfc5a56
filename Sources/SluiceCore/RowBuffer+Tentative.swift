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
        tables[table].keys[key].flags.subtract([.cleared, .marking, .swept, .tentative, .certain])
        forEachRow(table, key) { buffer, row in
            guard buffer.isLeavingLetter(table, row) else { return }
            buffer.tables[table].rows[row].flags.subtract([.swept, .removed, .dirty])
        }
    }

    /// Whether a row is to go for a clear, and has a dead letter that is to go with it.
    func isLeavingLetter(_ table: Int, _ row: Int) -> Bool {
        tables[table].rows[row].shape == .untouched
            && tables[table].rows[row].flags.isSuperset(of: [.setAside, .swept, .removed])
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

    /// Has rows go that are known to be of a key, and were not found by a read of it. Others may have
    /// outlived an earlier key in a time that was not seen: they stay, and a comparison counts them.
    mutating func removeKnown(_ table: Int, _ key: Int) {
        noteTrimmed(table, key)
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            if state.shape == .absent, state.misfit == nil { buffer.sweepRemoved(table, row) }
        }
    }

    /// Notes that rows of a key may be there that are not in Redis.
    mutating func noteTrimmed(_ table: Int, _ key: Int) {
        if !tables[table].noteTrimmed(tables[table].keys[key].bytes) { incomplete.insert(table) }
    }

    /// Reads keys of a table once more from which members went while rows without a key were there: all of
    /// these are gone now, so that what the reads do not find goes.
    mutating func rereadTrimmed(_ table: Int) {
        for bytes in tables[table].takeTrimmed() {
            let key = tables[table].key(bytes.span)
            // What was found missing goes as a whole, or stays.
            guard !tables[table].keys[key].flags.contains(.missing) else { continue }
            readAnew(table, key)
        }
    }

    // Has a key read once more of which more may be known than the stream has said.
    private mutating func readAnew(_ table: Int, _ key: Int) {
        tables[table].keys[key].readOffset = .min
        tables[table].keys[key].readUntil = .min
        forEachRow(table, key) { $0.tables[table].rows[$1].readOffset = .min }
        makeKeyOpaque(table, key, .perhaps)
    }

    /// Has a row go that a read of its key did not find. One with a dead letter may have outlived an
    /// earlier key.
    ///
    /// - Parameter read: What the key was said to be when it was read.
    mutating func removeUnseen(_ table: Int, _ row: Int, of read: Key.Flags) {
        let state = tables[table].rows[row]
        // Nobody knows whose it is.
        let isUnknown = isExact && tables[table].readsUnknown && read.contains(.looked)
        if isUnknown, state.shape == .untouched { return }
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
        let policy = cause.map { tables[table].mapping.removal[$0] }
        // What goes at the end of a scan goes then, whatever the stream says meanwhile.
        if isDeferred(table, key), policy != .keep, policy != nil { return }
        switch policy {
        case .keep, nil:
            takeBackClear(table, key)
            let kept = noteKept(table, key, cause)
            let start = tables[table].keys[key].readOffset
            forEachRow(table, key) { buffer, row in
                guard buffer.tables[table].rows[row].readOffset < start else {
                    return buffer.sparedNewer(table, row, kept)
                }
                // It stays with the others.
                guard buffer.tables[table].rows[row].shape == .untouched else { return }
                buffer.tables[table].rows[row].flags.subtract([.swept, .removed])
            }
        case .delete?:
            tables[table].keys[key].flags.insert(.certain)
            tables[table].keys[key].flags.subtract([.tentative, .marking])
            if !tables[table].isShared { tables[table].keys[key].flags.remove(.swept) }
        case .mark?:
            tables[table].keys[key].flags.remove(.tentative)
            tables[table].keys[key].flags.formUnion([.marking, .certain])
            if !tables[table].isShared { tables[table].keys[key].flags.remove(.swept) }
        }
    }

    /// Whether the clear of a key that is read page by page was put off until its last page.
    func isDeferred(_ table: Int, _ key: Int) -> Bool {
        let flags = tables[table].keys[key].flags
        return flags.contains(.tentative) && !flags.contains(.cleared)
    }

    /// Has a clear wait that a cut comes to before it is decided: of a key that is read page by page until
    /// its last page, of any other for the next cut; where there is no room, until the key is read again.
    ///
    /// - Returns: Whether it waits for the next cut.
    mutating func putOff(_ table: Int, _ key: Int, hasRoom: Bool) -> Bool {
        if tables[table].keys[key].flags.contains(.scanning) {
            takeBackClear(table, key)
            tables[table].keys[key].flags.insert(.tentative)
            return false
        }
        guard hasRoom else {
            readAnew(table, key)
            return false
        }
        putOffClear(table, key)
        return true
    }

    /// Whether the stream may still say that a key with a tentative clear went before the last page that
    /// was read of it.
    func isUndecided(_ table: Int, _ key: Int, cut offset: Int64) -> Bool {
        let state = tables[table].keys[key]
        return state.flags.isSuperset(of: [.cleared, .tentative])
            && max(state.readOffset, state.readUntil) > offset
    }

    /// Has a tentative clear wait for the next cut. What was read is written once more then, so that the
    /// clear leaves it.
    private mutating func putOffClear(_ table: Int, _ key: Int) {
        let state = tables[table].keys[key]
        putOffUntil = max(putOffUntil, state.readOffset, state.readUntil)
        forEachRow(table, key) { buffer, row in
            guard buffer.tables[table].rows[row].shape == .value else { return }
            buffer.touch(table, row)
        }
    }
}
