// Sets and sorted sets are read page by page, each page at its own offset.
//
// The key counts as read at the offset of the first page: changes up to there are in what the pages
// say, because a scan returns whatever was there from its beginning to its end. Changes after it are
// taken from the stream, member by member: each member that was seen counts as read at its page's
// offset, and one that was not seen yet is read alone if a change does not say its result.
extension RowBuffer {
    /// Takes in a page of members.
    mutating func applyPage(
        _ elements: [Bytes], next: Bytes, _ table: Int, _ key: Int, at offset: Int64,
    ) {
        if !tables[table].keys[key].flags.contains(.scanning) {
            beginScan(table, key, at: offset)
        }
        putMembers(elements, table, key, at: offset)
        tables[table].keys[key].readUntil = offset
        guard next != Baseline.firstCursor else {
            if !isExact || isDeferred(table, key) { clearUnseen(table, key) }
            dropUnseen(table, key)
            tables[table].keys[key].flags.remove(.looked)
            return leaveOpaque(table, key: key)
        }
        tables[table].keys[key].cursor = next
        queueRead(table, key: key)
    }

    private mutating func beginScan(_ table: Int, _ key: Int, at offset: Int64) {
        scanCount += 1
        let before = tables[table].keys[key].flags
        tables[table].keys[key].flags.insert(.scanning)
        // Why it is read holds until it is read to its end, as it may begin anew.
        tables[table].keys[key].flags.subtract(Key.Flags.ofRead.subtracting(.looked))
        endVanished(table, key)
        // For a baseline nothing has changed the key: what the stream says of its members holds.
        guard !tables[table].keys[key].flags.contains(.baseline) else { return }
        tables[table].keys[key].readOffset = offset
        // A command of the stream put all of the key in the place of what was there. Where one member
        // may be all that changed, the rows stay until it is known which are there.
        if isExact { clearBeforePut(table, key, before) }
        // What the key has now is what the pages will say, and the stream after this one.
        forEachRow(table, key) { buffer, row in
            guard buffer.tables[table].rows[row].readOffset < offset,
                !buffer.tables[table].rows[row].flags.contains(.gone),
                // That an earlier key went before it was read is still to be written.
                buffer.tables[table].rows[row].misfit?.code != .vanished
            else { return }
            buffer.leaveOpaque(table, row)
            buffer.tables[table].fill(row, with: .unchanged)
            buffer.tables[table].rows[row].shape = .untouched
            buffer.tables[table].rows[row].misfit = nil
            buffer.tables[table].rows[row].flags.subtract(
                [.dirty, .gone, .marked, .spared, .swept])
            buffer.tables[table].forgetKept(row)
        }
    }

    // Has the rows of a key go that no page said, if all that the pages said is still known.
    private mutating func clearUnseen(_ table: Int, _ key: Int) {
        let flags = tables[table].keys[key].flags
        tables[table].keys[key].flags.remove(.tentative)
        guard !flags.contains(.baseline) else { return }
        guard !flags.contains(.forgotten) else {
            incomplete.insert(table)
            return
        }
        let start = tables[table].keys[key].readOffset
        clearBeforePut(table, key, flags.subtracting(.tentative))
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            if state.shape == .value, state.readOffset >= start { buffer.touch(table, row) }
        }
    }

    /// Has all rows of a key go that are not put, if members that go take their rows with them.
    ///
    /// - Parameter read: What the key was said to be when it was read.
    mutating func clearBeforePut(_ table: Int, _ key: Int, _ read: Key.Flags) {
        let policy = tables[table].mapping.removal.onDelete
        guard policy != .keep else { return }
        let isLooked = read.contains(.looked)
        if isLooked, isExact, tables[table].readsUnknown { return removeKnown(table, key) }
        let before = tables[table].keys[key].flags
        let marks = policy != .delete
        tables[table].keys[key].flags.formUnion(marks ? [.cleared, .marking] : .cleared)
        tables[table].keys[key].flags.subtract([.swept, .unproven])
        if isLooked {
            clearTentatively(table, key, before: before)
        } else if tables[table].isShared, !read.contains(.own), !before.contains(.cleared) {
            tables[table].keys[key].flags.insert(.unproven)
        }
        touchKey(table, key)
    }

    /// Has the rows of a key stay that go for what was read of it; those that the stream said to go do.
    mutating func forgetClear(_ table: Int, _ key: Int) {
        takeBackClear(table, key)
        tables[table].keys[key].flags.remove(.unproven)
        guard tables[table].keys[key].flags.contains(.certain) else {
            tables[table].keys[key].flags.subtract(Key.Flags.ofClear)
            return
        }
        // What was read may have said that those go too which outlived an earlier key.
        if tables[table].isShared { tables[table].keys[key].flags.insert(.swept) }
    }

    /// Puts members that were read.
    mutating func putMembers(_ elements: [Bytes], _ table: Int, _ key: Int, at offset: Int64) {
        let step = tables[table].mapping.type == .sortedSet ? 2 : 1
        for index in stride(from: 0, to: elements.count - step + 1, by: step) {
            let member = elements[index]
            let row = tables[table].member(member.span, of: key)
            beginPut(table, row)
            if step == 2 {
                let score = elements[index + 1]
                putScore(table, row, score.span)
            }
            tables[table].rows[row].readOffset = offset
        }
    }

    // Dead letters of members that are not there any more go.
    private mutating func dropUnseen(_ table: Int, _ key: Int) {
        guard !tables[table].keys[key].flags.contains(.baseline) else { return }
        let start = tables[table].keys[key].readOffset
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            guard state.flags.contains(.setAside), state.shape == .untouched,
                state.misfit == nil, state.readOffset < start
            else { return }
            buffer.removeUnseen(table, row, of: buffer.tables[table].keys[key].flags)
        }
    }

    /// Ends reading a key page by page.
    mutating func endScan(_ table: Int, _ key: Int) {
        guard tables[table].keys[key].flags.contains(.scanning) else { return }
        tables[table].keys[key].flags.subtract([.scanning, .forgotten])
        tables[table].keys[key].cursor = []
        scanCount -= 1
    }

    /// Begins anew with reading a key page by page, because all of it may have changed.
    mutating func restartScan(_ table: Int, _ key: Int) {
        guard tables[table].keys[key].flags.contains(.scanning) else { return }
        endScan(table, key)
        // Rows go with the first page of the new reading, not before any of them is known again.
        if isExact, !tables[table].keys[key].flags.contains(.baseline) { forgetClear(table, key) }
        queueRead(table, key: key)
    }

    /// Leaves keys that were not read to their end as they are: what was not seen stays, because nobody
    /// will say any more whether it is there.
    mutating func abandonScans() {
        guard scanCount > 0 else { return }
        for table in tables.indices {
            for key in tables[table].keys.indices
            where tables[table].keys[key].flags.contains(.scanning) { forgetClear(table, key) }
        }
    }

    /// Begins anew with all such keys: a cursor means something only to the server that gave it.
    mutating func restartScans() {
        guard scanCount > 0 else { return }
        restartFieldScans()
        for table in tables.indices {
            for key in tables[table].keys.indices { restartScan(table, key) }
        }
    }
}
