/// What a cut took out of the buffer.
struct CutRows {
    var tables: [TableChanges] = []
    var deadLetters: [DeadLetter] = []
    var revived: [DeadLetter] = []
    var loose: [LooseRow] = []
}

extension RowBuffer {
    /// Takes everything that is to be written.
    ///
    /// Rows that are still opaque stay, and are named as loose; so are rows whose value was read at
    /// a later offset than the cut's.
    ///
    /// - Parameters:
    ///   - waits: Whether rows that a read did not find wait for the next cut, if what the stream says up
    ///     to there decides over them; else there is no room for that.
    ///   - isLast: Whether the stream does not go on from there, but after a gap or for another instance.
    ///   - whole: Tables in which no row is left without a key but of keys that were trimmed; these are
    ///     read once more.
    mutating func cut(
        at offset: Int64, waits: Bool, isLast: Bool, rereading whole: [Int] = [],
    ) -> CutRows {
        var result = CutRows()
        putOffUntil = .min
        for table in tables.indices {
            let sums = takeSums(table, at: offset)
            guard tables[table].hasDirty || !sums.isEmpty else { continue }
            var builder = TableCut(mapping: tables[table].mapping, table: table)
            for (row, sum) in sums {
                let isSetAside = builder.add(sum, to: row, of: tables[table])
                endLetter(table, row)
                if isSetAside { noteLetter(table, row, sum) }
            }
            for row in tables[table].takeDirtyRows() {
                take(Int(row), of: table, offset: offset, isLast: isLast, into: &builder)
            }
            takeClears(of: table, offset: offset, waits: waits, into: &builder)
            takeAppended(of: table, into: &builder)
            takeTable(table, into: &builder)
            builder.finish(into: &result)
        }
        for table in whole { rereadTrimmed(table) }
        forgetGoneBeforeRead(offset)
        result.loose = looseRows(at: offset)
        readOffsetMax = .min
        if opaqueCount == 0 { mayBeStored = false }
        return result
    }

    private mutating func take(
        _ row: Int, of table: Int, offset: Int64, isLast: Bool, into cut: inout TableCut,
    ) {
        tables[table].rows[row].flags.remove(.queued)
        guard tables[table].rows[row].flags.contains(.dirty) else { return }
        tables[table].rows[row].flags.remove(.dirty)
        let shape = tables[table].rows[row].shape
        guard shape != .opaque, shape != .missing else {
            let key = Int(tables[table].rows[row].key)
            if let kept = tables[table].kept[Int32(row)], tables[table].mapping.isOneRowPerKey {
                let identity = RowIdentity(key: tables[table].keys[key].bytes)
                cut.keep(identity, kept)
                // What the row should be stands only there, whatever has its name now.
                if let misfit = tables[table].rows[row].misfit, misfit.code == .vanished {
                    cut.setAside(identity, misfit)
                    tables[table].rows[row].misfit = nil
                    tables[table].rows[row].flags.insert(.setAside)
                }
            }
            return
        }
        if tables[table].rows[row].isSparedOpen(at: offset) {
            if isLast { return readOnceMore(table, row) }
            putOffUntil = max(putOffUntil, tables[table].rows[row].readOffset)
            return touch(table, row)
        }
        if isLeavingLetter(table, row) {
            let key = Int(tables[table].rows[row].key)
            if isUndecided(table, key, cut: offset) || isDeferred(table, key) {
                return touch(table, row)
            }
        }
        let isPart = shape == .merge || shape == .update
        let isSetAside = cut.add(row, of: tables[table])
        if isSetAside {
            tables[table].rows[row].flags.insert(.setAside)
            // A value that does not fit is not worth its memory: the row is read when it changes.
            if tables[table].rows[row].shape == .value {
                tables[table].rows[row].shape = .untouched
                tables[table].fill(row, with: .unchanged)
            }
        } else {
            tables[table].rows[row].flags.remove(.setAside)
        }
        let leavesLetter =
            isSetAside && shape == .untouched && tables[table].rows[row].misfit == nil
        if !leavesLetter {
            if !tables[table].letterSums.isEmpty { tables[table].letterSums[Int32(row)] = nil }
            // Another letter has its place.
            if isSetAside { tables[table].pendingTotals[Int32(row)] = nil }
        }
        tables[table].rows[row].misfit = nil
        settle(row, of: table)
        // A part of a row is worth nothing later: the letter is to hold the whole value.
        if isSetAside, isPart { lookAgain(table, row) }
        if !tables[table].spared.isEmpty { tables[table].spared[Int32(row)] = nil }
    }

    /// What the buffer knows of a row once it is on its way.
    private mutating func settle(_ row: Int, of table: Int) {
        let kept = tables[table].kept[Int32(row)]
        if !tables[table].rows[row].flags.isDisjoint(with: [.gone, .marked]), kept != .gone {
            tables[table].rows[row].flags.subtract([.gone, .marked, .swept])
            tables[table].rows[row].shape = .absent
            tables[table].fill(row, with: .null)
            return
        }
        let isSpared = tables[table].rows[row].flags.contains(.spared)
        let isScore = tables[table].mapping.isScore && tables[table].rows[row].shape == .value
        // It is known as Redis has it, and whether the database has more, the commit alone knows.
        if isSpared, isScore, kept == nil { return }
        if kept == .gone || kept == .back || isSpared {
            // The database has more than Redis, or may have: adds go on top there.
            tables[table].rows[row].flags.subtract([.gone, .spared, .swept])
            tables[table].rows[row].shape = .untouched
            tables[table].fill(row, with: .unchanged)
            return
        }
        switch tables[table].rows[row].shape {
        case .merge, .update, .untouched:
            tables[table].rows[row].flags.subtract([.swept, .removed])
            tables[table].rows[row].shape = .untouched
            tables[table].fill(row, with: .unchanged)
        case .value, .absent, .opaque, .missing: break
        }
    }

    private mutating func takeTable(_ table: Int, into cut: inout TableCut) {
        if tables[table].isWiped { cut.wipe() }
        if let kept = tables[table].keptTable { cut.keep(RowIdentity(key: []), kept) }
        tables[table].isWiped = false
        tables[table].keptTable = nil
        tables[table].kept = [:]
        tables[table].keptKeys = [:]
        setForgottenAside(table, into: &cut)
    }

    // What is still to be read may turn out to be of another type, or be read by another instance, which
    // knows nothing of it.
    private mutating func setForgottenAside(_ table: Int, into cut: inout TableCut) {
        guard !tables[table].forgotten.isEmpty else { return }
        for slot in tables[table].forgotten.sorted() {
            var row = Int(slot)
            var key = row
            if tables[table].mapping.isOneRowPerKey {
                let shape = tables[table].rows[row].shape
                guard shape == .opaque || shape == .missing else { continue }
                key = Int(tables[table].rows[row].key)
            } else {
                let flags = tables[table].keys[key].flags
                guard !flags.isDisjoint(with: [.opaque, .missing]) else { continue }
                let none: Bytes = []
                row = tables[table].member(none.span, of: key)
            }
            cut.setAside(RowIdentity(key: tables[table].keys[key].bytes), Self.vanishedMisfit)
            tables[table].rows[row].flags.insert(.setAside)
            vanished += 1
        }
        tables[table].forgotten = []
    }

    private mutating func takeClears(
        of table: Int, offset: Int64, waits: Bool, into cut: inout TableCut,
    ) {
        var later: [Int] = []
        for index in tables[table].dirtyKeys.indices {
            let key = Int(tables[table].dirtyKeys[index])
            tables[table].keys[key].flags.remove(.queued)
            if let kept = tables[table].keptKeys[Int32(key)] {
                cut.keep(RowIdentity(key: tables[table].keys[key].bytes), kept)
            }
            guard tables[table].keys[key].flags.contains(.cleared) else { continue }
            if isUndecided(table, key, cut: offset) {
                if putOff(table, key, hasRoom: waits) { later.append(key) }
                continue
            }
            // Whether it went before it was read, the stream has not said yet.
            if tables[table].keys[key].readOffset > offset { sweepUnproven(table, key) }
            cut.clear(key, of: tables[table])
            if tables[table].keys[key].flags.contains(.swept) { forgetAbsent(table, key) }
            tables[table].keys[key].flags.subtract(Key.Flags.ofClear)
        }
        tables[table].dirtyKeys.removeAll(keepingCapacity: true)
        for key in later { touchKey(table, key) }
    }

    // Which rows of a key outlived an earlier one, the database alone knows, and so which are gone.
    private mutating func forgetAbsent(_ table: Int, _ key: Int) {
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            guard state.shape == .absent, !state.flags.contains(.dirty) else { return }
            buffer.tables[table].fill(row, with: .unchanged)
            buffer.tables[table].rows[row].shape = .untouched
        }
    }

    private mutating func takeAppended(of table: Int, into cut: inout TableCut) {
        guard tables[table].mapping.type == .stream else { return }
        cut.append(tables[table].appended, of: tables[table])
        tables[table].appended.removeAll()
    }

    private func looseRows(at offset: Int64) -> [LooseRow] {
        guard opaqueCount > 0 || looseOffsetMax > offset else { return [] }
        var loose: [LooseRow] = []
        for table in tables.indices {
            let buffer = tables[table]
            for (index, row) in buffer.rows.enumerated() where !row.flags.contains(.free) {
                let isOpen =
                    row.shape == .opaque || row.shape == .missing || row.isSparedOpen(at: offset)
                guard isOpen || row.readOffset > offset else { continue }
                let key = buffer.keys[Int(row.key)]
                loose.append(
                    LooseRow(
                        table: buffer.mapping.name,
                        identity: RowIdentity(key: key.bytes, member: row.member),
                        offset: isOpen ? nil : row.readOffset,
                        replaces: isOpen && buffer.mapping.isTotal
                            && !row.flags.contains(.spared),
                        lacksAdds: isOpen && row.flags.isSuperset(of: [.spared, .setAside])
                            && buffer.spared[Int32(index)]?.lacksAdds == true,
                    )
                )
            }
            for key in buffer.keys where !key.flags.contains(.free) {
                let isOpen = !key.flags.isDisjoint(with: [.opaque, .missing, .tentative])
                guard isOpen || key.readUntil > offset else { continue }
                loose.append(
                    LooseRow(
                        table: buffer.mapping.name,
                        identity: RowIdentity(key: key.bytes),
                        offset: isOpen ? nil : key.readUntil,
                    )
                )
            }
        }
        return loose
    }

    // MARK: Room

    /// Forgets rows that need not be written, to make room.
    ///
    /// Kept are rows with a dead letter, and rows whose value is newer than the stream that was
    /// processed: forgetting those would apply the changes up to there twice.
    mutating func forgetClean(processed: Int64) {
        for table in tables.indices {
            for key in tables[table].keys.indices {
                let flags = tables[table].keys[key].flags
                let busy: Key.Flags = [.free, .cleared, .opaque, .queued, .reading, .missing]
                // A key that is read page by page stays itself; of its rows each has its own offset.
                guard
                    flags.contains(.scanning)
                        || flags.isDisjoint(with: busy)
                            && tables[table].keys[key].readUntil <= processed
                else { continue }
                forgetClean(table, key, processed: processed)
            }
        }
    }

    private mutating func forgetClean(_ table: Int, _ key: Int, processed: Int64) {
        let isOneRow = tables[table].mapping.isOneRowPerKey
        var isKeyUsed =
            tables[table].mapping.type == .stream && tables[table].hasAppended
            || tables[table].keys[key].flags.contains(.scanning)
        forEachRow(table, key) { buffer, row in
            let busy: Row.Flags = [.dirty, .queued, .setAside, .reading, .gone]
            let state = buffer.tables[table].rows[row]
            if !state.flags.isDisjoint(with: busy) || state.readOffset > processed
                || state.shape == .opaque || state.shape == .missing
            {
                isKeyUsed = true
            } else if !isOneRow {
                if buffer.tables[table].keys[key].flags.contains(.scanning) {
                    buffer.tables[table].keys[key].flags.insert(.forgotten)
                }
                buffer.tables[table].freeRow(row)
            }
        }
        if !isKeyUsed { tables[table].freeKey(key) }
    }
}

extension TableBuffer {
    var hasAppended: Bool { !appended.entries.isEmpty }
    /// Whether all rows of the table went.
    var hasTableChange: Bool { isWiped || keptTable != nil }
    var hasDirty: Bool {
        !dirtyRows.isEmpty || !dirtyKeys.isEmpty || hasAppended || hasTableChange
    }

    /// The rows that may be dirty; empties the list.
    fileprivate mutating func takeDirtyRows() -> [Int32] {
        let taken = dirtyRows
        dirtyRows = []
        dirtyRows.reserveCapacity(min(taken.count, 1 << 16))
        return taken
    }
}
