/// How a row stands that outlived its key.
public enum Kept: UInt8, Hashable, Sendable {
    /// Its key is gone. When it comes back, an add goes on top of the row; anything else replaces it.
    case gone = 1
    /// Its key came back, by adds: the row has more than Redis has.
    case back = 2
    /// Nobody knows why its key went. When it comes back, whatever comes replaces the row.
    case doubtful = 3
    /// It ended for this row, though it goes on for the rest of its key or table.
    case ended = 4
}

extension RowBuffer {
    /// Removes a row as its table's policy says.
    ///
    /// - Parameter cause: Why it went, or nil when nobody knows: then the row stays.
    mutating func remove(_ table: Int, _ row: Int, _ cause: RemovalCause?) {
        let policy = cause.map { tables[table].mapping.removal[$0] }
        let isKept = policy == nil || policy == .keep
        guard isThere(table, row), !staysGone(table, row, isKept: isKept) else { return }
        settleReturn(table, row)
        switch policy {
        case .delete where cause == .deleted && mayHaveOutlived(table, row),
            .mark where cause == .deleted && mayHaveOutlived(table, row):
            sweepRemoved(table, row)
        case .delete: delete(table, row)
        case .keep where cause == .unknown || !isExact:
            if cause == .unknown { doubtful += 1 }
            // What is read when its key comes back is not what was added to it.
            keep(table, row, .doubtful)
        case .keep: keep(table, row, .gone)
        case .mark:
            keep(table, row, nil)
            tables[table].rows[row].flags.insert(.marked)
            touch(table, row)
        case nil:
            doubtful += 1
            keep(table, row, .doubtful)
        }
    }

    /// Deletes a row.
    mutating func delete(_ table: Int, _ row: Int) {
        leaveOpaque(table, row)
        tables[table].fill(row, with: .null)
        tables[table].rows[row].shape = .absent
        tables[table].rows[row].flags.subtract([.gone, .marked, .spared, .swept])
        tables[table].rows[row].misfit = nil
        tables[table].forgetGone(row)
        tables[table].forgetKept(row)
        touch(table, row)
    }

    /// Leaves a row in the database although its key is gone; what it was before is still written.
    ///
    /// - Parameter kept: How it is remembered there; nil when its mark says it.
    mutating func keep(_ table: Int, _ row: Int, _ kept: Kept?) {
        let state = tables[table].rows[row]
        if tables[table].isShared, state.shape == .value, !state.flags.contains(.dirty) {
            // The database has it: nothing of it can be forgotten.
            tables[table].fill(row, with: .unchanged)
            tables[table].rows[row].shape = .untouched
        }
        saveBeforeGone(table, row)
        tables[table].rows[row].flags.insert(.gone)
        if let kept {
            tables[table].kept[Int32(row)] = kept
            touch(table, row)
        }
    }

    static let vanishedMisfit = Misfit(
        .vanished, "the key went before its last state could be read")

    // What is known of a row that was to be read and can't be any more.
    private mutating func saveBeforeGone(_ table: Int, _ row: Int) {
        let shape = tables[table].rows[row].shape
        guard shape == .opaque || shape == .missing else { return }
        let flags = tables[table].rows[row].flags
        leaveOpaque(table, row)
        tables[table].rows[row].shape = .untouched
        // What it was looked for now is known: its key went, and it stays.
        let isSwept =
            !flags.contains(.untyped) && flags.contains(.swept)
            || flags.contains(.others) && flags.isDisjoint(with: [.own, .untyped])
        let isForgotten = tables[table].forgotten.remove(Int32(row)) != nil
        tables[table].rows[row].flags.remove(.swept)
        let isScore = tables[table].mapping.isScore
        let isOfLetter = flags.contains(.setAside) && isScore
        if isOfLetter, tables[table].letterSums[Int32(row)] == nil,
            tables[table].spared[Int32(row)]?.lacksAdds == false
        {
            // What it was to be is only in the dead letter, which stays as the row does.
            unspare(table, row)
        } else if flags.contains(.spared), !isLost(table, row) {
            // Only adds, or nothing but a baseline, had made it opaque.
            tables[table].rows[row].flags.remove(.spared)
            guard let spared = tables[table].spared.removeValue(forKey: Int32(row)) else { return }
            // It was only looked for, and the database may have no such row.
            if isSwept, !spared.hasSum, spared.pending == nil { return }
            if isScore {
                guard let pending = spared.pending else {
                    return begin(table, row, with: spared.score)
                }
                tables[table].pendingTotals[Int32(row)] = nil
                return begin(table, row, with: pending, and: spared)
            }
            // An add of nothing makes a row too, if there is none.
            guard spared.delta != 0 || spared.pending != nil || !spared.isBroken else { return }
            tables[table].pendingTotals[Int32(row)] = nil
            begin(table, row, with: spared.pending ?? .add(0), and: spared.delta)
        } else if !isSwept || isForgotten {
            vanished += 1
            tables[table].rows[row].misfit = Self.vanishedMisfit
        }
        touch(table, row)
    }

    // Whether something came to a row that is still to be read which is nowhere else.
    private func isLost(_ table: Int, _ row: Int) -> Bool {
        let isScore = tables[table].mapping.isScore
        let isSetAside = tables[table].rows[row].flags.contains(.setAside)
        return tables[table].spared[Int32(row)]?.isUnknown == true
            || isScore && isSetAside && tables[table].letterSums[Int32(row)] == nil
                && tables[table].spared[Int32(row)]?.pending == nil
    }

    /// Removes all rows of a key as its table's policy says, but for those that were read at a
    /// later offset than the removal's.
    ///
    /// - Parameter isEmptied: Whether a change emptied it, which takes no row along that outlived an
    ///   earlier key.
    mutating func clear(
        _ table: Int, _ key: Int, at offset: Int64, _ cause: RemovalCause?,
        isEmptied: Bool = false,
    ) {
        let policy = cause.map { tables[table].mapping.removal[$0] }
        let before = tables[table].keys[key].flags
        let isScanning = before.contains(.scanning)
        let isAmidPages = wentAmidPages(table, key, at: offset)
        let isUnread = isUnread(table, key) || isAmidPages
        let isPut = tables[table].isShared && isPut(table, key, before: offset)
        let isThere = isThere(table, key: key, before: offset)
        leaveOpaque(table, key: key)
        tables[table].keys[key].flags.subtract(Key.Flags.ofRead)
        if policy != .keep, policy != nil { tables[table].keys[key].flags.remove(.unproven) }
        guard isThere else {
            // Of what came since nobody knows the type; what was put before it went was forgotten.
            let isForgotten = tables[table].forgotten.remove(Int32(key)) != nil
            let isKept = policy == nil || policy == .keep
            let isUntyped = isKept && isUnread && before.contains(.untyped)
            if isUntyped || isKept && wasUnread(table, before) { noteKept(table, key, cause) }
            if isForgotten || isUntyped { vanish(table, key) }
            return
        }
        switch policy {
        case .keep, nil:
            // Members that were not seen yet stay too.
            if isScanning { forgetClear(table, key) }
            // So may any that no page said.
            if isAmidPages { takeBackClear(table, key) }
            tables[table].keys[key].flags.remove(.tentative)
            settleReturns(table, key, at: offset)
            let kept = noteKept(table, key, cause)
            forEachRow(table, key) { buffer, row in
                let state = buffer.tables[table].rows[row]
                guard offset > state.readOffset || state.shape == .missing else {
                    return buffer.sparedNewer(table, row, kept)
                }
                // From here on the stream says everything.
                if state.shape == .missing { buffer.tables[table].rows[row].readOffset = .min }
                buffer.keepWithKey(table, row, kept)
            }
            if isUnread { vanish(table, key) }
        case .delete, .mark:
            dropRows(table, key, at: offset, policy ?? .delete, isEmptied ? .part : nil)
            if isEmptied {
                // The end of a scan that is to come no more would have cleared it.
                if isDeferred(table, key) { tables[table].keys[key].flags.remove(.tentative) }
                if isExact, tables[table].readsUnknown { return removeKnown(table, key) }
                removeLetters(table, key)
                // All that the database has outlived the key since the last cut.
                if tables[table].keptKeys[Int32(key)] != nil { return }
            }
            tables[table].keptKeys[Int32(key)] = nil
            tables[table].keys[key].flags.formUnion([.cleared, .certain])
            if policy == .delete {
                tables[table].keys[key].flags.remove(.marking)
            } else {
                tables[table].keys[key].flags.insert(.marking)
            }
            let isForgotten = tables[table].forgotten.remove(Int32(key)) != nil
            tables[table].keys[key].flags.remove(.tentative)
            if isPut || !tables[table].isShared {
                tables[table].keys[key].flags.remove(.swept)
            } else if cause == .deleted {
                sweepCleared(table, key, before: before)
                if isForgotten { vanish(table, key) }
            }
            touchKey(table, key)
        }
    }

    // A member with a dead letter went with all others, unless it outlived an earlier key.
    private mutating func removeLetters(_ table: Int, _ key: Int) {
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            guard state.flags.contains(.setAside), state.shape == .untouched, state.misfit == nil
            else { return }
            buffer.sweepRemoved(table, row)
        }
    }

    /// Notes that the rows of a key stay although it is gone.
    @discardableResult
    mutating func noteKept(_ table: Int, _ key: Int, _ cause: RemovalCause?) -> Kept {
        let isDoubtful = cause == nil || cause == .unknown
        let kept: Kept = isDoubtful || !isExact ? .doubtful : .gone
        if isDoubtful { doubtful += 1 }
        tables[table].keptKeys[Int32(key)] = kept
        tables[table].forgetTrimmed(tables[table].keys[key].bytes)
        touchKey(table, key)
        return kept
    }

    /// Leaves a row in the database with all others of its key or table.
    private mutating func keepWithKey(_ table: Int, _ row: Int, _ kept: Kept) {
        let isDirty = tables[table].rows[row].flags.contains(.dirty)
        let shape = tables[table].rows[row].shape
        if isDirty || shape == .opaque || shape == .missing {
            return keep(table, row, kept)
        }
        guard shape != .absent else { return }
        unspare(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .untouched
    }

    /// Notes that all keys of a database, or of every one, are gone, but for those read later.
    mutating func flushed(_ database: Int?, at offset: Int64) {
        resolveReplaced(before: offset)
        for table in tables.indices
        where database == nil || tables[table].mapping.database == database {
            switch tables[table].mapping.removal.onFlush {
            case .keep: keepAll(table, at: offset)
            case .delete, .mark: wipe(table, at: offset)
            }
        }
    }

    private mutating func keepAll(_ table: Int, at offset: Int64) {
        for key in tables[table].keys.indices
        where !tables[table].keys[key].flags.contains(.free) {
            settleReturns(table, key, at: offset)
        }
        let ofTable = tables[table].keptTable
        tables[table].keptTable = .gone
        _ = tables[table].takeTrimmed()
        let isOneRow = tables[table].mapping.isOneRowPerKey
        for key in tables[table].keys.indices
        where !tables[table].keys[key].flags.contains(.free) {
            ownStored(table, key)
            // Members that were not seen yet stay too.
            let isScanning = tables[table].keys[key].flags.contains(.scanning)
            if isScanning, offset > tables[table].keys[key].readOffset { forgetClear(table, key) }
            let state = tables[table].keys[key]
            let isMissing = state.flags.contains(.missing)
            let isOlder = offset > state.readOffset || isMissing
            // What was read of a later key replaced what this one had.
            let isAmidPages = wentAmidPages(table, key, at: offset)
            let isUnread =
                isOlder
                ? isUnread(table, key) || wasUnread(table, state.flags) || isAmidPages : !isOneRow
            if isAmidPages { takeBackClear(table, key) }
            if isOlder {
                leaveOpaque(table, key: key)
                tables[table].keys[key].flags.subtract(Key.Flags.ofRead)
                tables[table].keys[key].flags.remove(.tentative)
            }
            if !isOlder { sweepUnproven(table, key) }
            let isTentative = (isAmidPages || !isOlder) && state.flags.contains(.tentative)
            if isTentative { takeBackClear(table, key) }
            // What a later read of the key did not find stays with all others.
            let start = isOlder ? .min : state.readOffset
            // What was read missing before its removal was seen: from here on the stream says all.
            if isMissing { tables[table].keys[key].readOffset = .min }
            if tables[table].mapping.type == .stream {
                endMistyped(table, key: key, at: offset)
                continue
            }
            // What went before the flush is not what it leaves, unless it stayed then.
            let before = tables[table].keptKeys[Int32(key)] ?? ofTable ?? .ended
            if state.flags.contains(.swept), !isTentative {
                tables[table].keptKeys[Int32(key)] = .ended
            }
            forEachRow(table, key) { buffer, row in
                let state = buffer.tables[table].rows[row]
                let isRowOlder = offset > state.readOffset || state.shape == .missing
                if state.shape == .missing { buffer.tables[table].rows[row].readOffset = .min }
                if state.shape == .untouched, state.flags.contains(.swept) {
                    buffer.tables[table].kept[Int32(row)] = before
                } else if isOlder, isRowOlder {
                    buffer.keepWithKey(table, row, .gone)
                } else if state.readOffset >= start {
                    buffer.sparedNewer(table, row, .gone)
                }
            }
            if isUnread { vanish(table, key) }
        }
    }

    /// Whether a change of the key asked for a read that was not made yet.
    func isUnread(_ table: Int, _ key: Int) -> Bool {
        let flags = tables[table].keys[key].flags
        return flags.contains(.opaque) && !flags.contains(.baseline)
            && !tables[table].mapping.isOneRowPerKey && tables[table].mapping.type != .stream
    }

    /// Whether a key went at an offset between the first and the last page that was read of it: what it had
    /// that no page had said by then nobody knows.
    private func wentAmidPages(_ table: Int, _ key: Int, at offset: Int64) -> Bool {
        let state = tables[table].keys[key]
        return state.readOffset != .min && offset > state.readOffset
            && offset <= state.readUntil && !tables[table].mapping.isOneRowPerKey
    }

    /// Whether a key that was found missing had a change that was still to be read. Where the name is
    /// shared, only if it was of the table's type, or may have been.
    func wasUnread(_ table: Int, _ flags: Key.Flags) -> Bool {
        flags.contains(.missing) && !flags.contains(.baseline)
            && (!tables[table].isShared || !flags.isDisjoint(with: [.own, .untyped]))
    }

    /// Notes that a key with many rows went before what a command had made of it could be read.
    mutating func vanish(_ table: Int, _ key: Int) {
        vanished += 1
        setAside(table, key: key, Self.vanishedMisfit)
    }

    private mutating func wipe(_ table: Int, at offset: Int64) {
        tables[table].isWiped = true
        tables[table].keptTable = nil
        _ = tables[table].takeTrimmed()
        for key in tables[table].keys.indices
        where !tables[table].keys[key].flags.contains(.free) {
            let isMissing = tables[table].keys[key].flags.contains(.missing)
            guard offset > tables[table].keys[key].readOffset || isMissing else {
                forEachRow(table, key) { buffer, row in buffer.rewrite(table, row) }
                continue
            }
            if isMissing { tables[table].keys[key].readOffset = .min }
            leaveOpaque(table, key: key)
            tables[table].keys[key].flags.subtract(Key.Flags.ofRead)
            tables[table].keptKeys[Int32(key)] = nil
            dropRows(table, key, at: offset, tables[table].mapping.removal.onFlush)
        }
    }

    // A row that was read after all rows went is written once more, or read if it is not known.
    mutating func rewrite(_ table: Int, _ row: Int) {
        guard !tables[table].rows[row].flags.contains(.setAside) else { return }
        switch tables[table].rows[row].shape {
        case .value: touch(table, row)
        case .untouched, .merge, .update: makeOpaque(table, row, isOwn: false)
        case .absent, .opaque, .missing: break
        }
    }
}
