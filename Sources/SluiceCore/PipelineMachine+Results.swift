extension PipelineMachine {
    // MARK: Commits

    /// Notes that the batch on its way is in the database.
    public mutating func committed(_ outcome: BatchOutcome, now: Duration) {
        guard let flight else { preconditionFailure("nothing was to be committed") }
        self.flight = nil
        committed = flight.to
        if flight.isClosed, committed.position?.history == processed?.history {
            closedOffset = max(closedOffset, committed.position?.offset ?? 0)
            hasClosed = true
        }
        positionWritten = now
        counters.commits += 1
        counters.rows += flight.rows
        counters.setAside += outcome.refused.count
        if flight.isOfBaseline { counters.baselineChanges += outcome.changed }
        for letter in outcome.refused { interpreter.refuse(letter) }
        interpreter.buffer.endPendingTotals()
    }

    // MARK: Reads

    /// Takes the answers to the read under way, in its order.
    ///
    /// - Parameters:
    ///   - results: One for each item.
    ///   - offset: The offset at which they hold.
    ///   - until: Where the stream was after the read.
    ///   - history: The history that the server said it is in.
    public mutating func readFinished(
        _ results: [ReadResult], offset: Int64, until: Int64, history: ReplicationID,
        now: Duration,
    ) {
        guard let items = reading else { return }
        // Another history's offset means nothing here, and an older one would be a lie.
        guard gap == nil, let processed, history == processed.history, offset >= processed.offset,
            results.count == items.count, !isReadStale
        else { return readFailed(now: now, pause: policy.baselinePause) }
        reading = nil
        barrenOffset = nil
        for (item, result) in zip(items, results) {
            interpreter.buffer.apply(result, to: item, at: offset, until: until)
        }
        learnCosts(of: results, items)
        if capture.isExact {
            interpreter.buffer.resolveMissing(processed: processed.offset)
        }
        interpreter.buffer.finishFieldScans(processed: processed.offset)
        if baseline.isRunning {
            counters.baselineReads += items.count
            // What is read once all keys were found is covered by the loose rows of the last cut.
            if !baseline.isFinishing { baseline.floor = max(baseline.floor, offset) }
            pauseUntil = now + policy.baselinePause
        } else {
            counters.reads += items.count
            if interpreter.buffer.scanCount > 0 { pauseUntil = now + policy.baselinePause }
        }
        if dirtySince == nil, interpreter.buffer.dirtyCount > 0 { dirtySince = now }
    }

    // Grows at once and shrinks slowly: large values come in a row.
    private mutating func learnCosts(of results: [ReadResult], _ items: [RowBuffer.Opaque]) {
        var costs: [Int: (sum: Int, count: Int)] = [:]
        for (item, result) in zip(items, results) {
            let cost = costs[item.table] ?? (0, 0)
            costs[item.table] = (cost.sum + result.cost, cost.count + 1)
        }
        for (table, cost) in costs {
            let before = rowCosts[table]
            rowCosts[table] = max(1, cost.sum / cost.count, before - (before + 7) / 8)
        }
    }

    /// Notes that the read under way has no answer; it is tried again after a pause.
    public mutating func readFailed(now: Duration, pause: Duration) {
        guard let items = reading else { return }
        reading = nil
        isReadStale = false
        for item in items { interpreter.buffer.returnToRead(item) }
        pauseUntil = max(pauseUntil, now + pause)
    }

    // MARK: The baseline

    /// Takes the keys that a scan found.
    ///
    /// - Parameters:
    ///   - keys: The keys.
    ///   - cursor: Where the next scan goes on, `0` after the last.
    ///   - offset: An offset at or after the one at which the scan was made.
    ///   - history: The history that the server said it is in.
    public mutating func scanFinished(
        _ keys: [Bytes], cursor: Bytes, offset: Int64, history: ReplicationID, now: Duration,
    ) {
        let isCurrent = scanning == baseline.generation
        scanning = nil
        guard case .scanning(let prefix, _) = baseline.phase, gap == nil, isCurrent else { return }
        guard history == processed?.history else {
            return scanFailed(now: now, pause: policy.baselinePause)
        }
        // A key that went before this is not among them, though the stream may not have said so yet.
        baseline.floor = max(baseline.floor, offset)
        let database = baseline.walks[prefix].database
        for key in keys { interpreter.noteForBaseline(key, in: database) }
        if dirtySince == nil, interpreter.buffer.opaqueCount > 0 { dirtySince = now }
        pauseUntil = now + policy.baselinePause
        if cursor != Baseline.firstCursor {
            baseline.phase = .scanning(prefix: prefix, cursor: cursor)
        } else if prefix + 1 < baseline.walks.count {
            baseline.phase = .scanning(prefix: prefix + 1, cursor: Baseline.firstCursor)
        } else {
            sweepTable(after: -1)
        }
    }

    /// Notes that a scan has no answer; it is tried again after a pause.
    public mutating func scanFailed(now: Duration, pause: Duration) {
        scanning = nil
        pauseUntil = max(pauseUntil, now + pause)
    }

    /// Takes what a look-up of a table's rows found.
    ///
    /// - Parameters:
    ///   - rows: How many rows the page has.
    ///   - missing: Those that have no key or member in Redis.
    ///   - outlived: Those of them that the database remembers to have outlived theirs.
    ///   - last: The page's last row, or nil when the table has no more.
    ///   - offset: The offset at which Redis was asked, or a later one.
    ///   - history: The history that the server said it is in.
    public mutating func sweepFinished(
        rows: Int, missing: [RowIdentity], outlived: [RowIdentity: Kept], last: RowIdentity?,
        offset: Int64, history: ReplicationID, now: Duration,
    ) {
        let asked = sweeping
        sweeping = nil
        if asked == reconciliationNumber {
            return reconcileSwept(
                rows, missing: missing, outlived: outlived, last: last, offset: offset,
                history: history, now: now)
        }
        guard case .sweeping(let table, _) = baseline.phase, gap == nil,
            asked == baseline.generation
        else { return }
        guard history == processed?.history else {
            return sweepFailed(now: now, pause: policy.baselinePause)
        }
        baseline.floor = max(baseline.floor, offset)
        let missing = missing.count { outlived[$0] == nil }
        if missing > 0 {
            counters.missing += missing
            strays.insert(interpreter.mappings[table].name)
        }
        if let last {
            baseline.phase = .sweeping(table: table, after: last)
        } else {
            sweepTable(after: table)
        }
    }

    /// Notes that a look-up failed; it is tried again after a pause.
    public mutating func sweepFailed(now: Duration, pause: Duration) {
        sweeping = nil
        pauseUntil = max(pauseUntil, now + pause)
    }

    private mutating func sweepTable(after table: Int) {
        let next = interpreter.mappings.indices.first {
            $0 > table && interpreter.mappings[$0].canMiss
        }
        if let next {
            baseline.phase = .sweeping(table: next, after: nil)
        } else {
            baseline.phase = .finishing
        }
    }
}

extension Interpreter {
    /// Has a key read for a baseline, unless its value is known.
    mutating func noteForBaseline(_ key: Bytes, in database: Int) {
        guard buffer.isExact || !Mark.isOwn(key) else { return }
        for table in mappings.indices
        where mappings[table].database == database && mappings[table].keys.matches(key.span) {
            let slot = buffer.tables[table].key(key.span)
            if mappings[table].isOneRowPerKey {
                let row = Int(buffer.tables[table].keys[slot].first)
                let state = buffer.tables[table].rows[row]
                let isKnown = [.value, .absent, .missing, .opaque].contains(state.shape)
                // One that outlived its key is told by the stream how it comes back.
                let kept = buffer.tables[table].kept[Int32(row)] ?? .ended
                if isKnown || kept != .ended { continue }
            } else {
                let state = buffer.tables[table].keys[slot]
                // What was read beyond the stream is all of the key, and the stream goes on from there.
                let isKnown = buffer.isExact && state.readOffset != .min
                let isKept = buffer.tables[table].keptKeys[Int32(slot)] != nil
                if isKnown || isKept || state.flags.contains(.missing) { continue }
            }
            buffer.makeKeyOpaque(table, slot, .none)
        }
    }

    /// Whether a key has a row for each of its members in a table.
    func hasMembers(table name: String) -> Bool {
        mappings.contains { $0.name == name && !$0.isOneRowPerKey && $0.type != .stream }
    }

    /// Has the rows of a key read again that were not cleared.
    mutating func readAgain(_ letter: DeadLetter) {
        guard let table = mappings.firstIndex(where: { $0.name == letter.table }),
            mappings[table].keys.matches(letter.identity.key.span)
        else { return }
        let key = buffer.tables[table].key(letter.identity.key.span)
        let busy: Key.Flags = [.opaque, .missing, .cleared, .scanning]
        guard buffer.tables[table].keys[key].flags.isDisjoint(with: busy),
            buffer.tables[table].keptKeys[Int32(key)] == nil
        else { return }
        // What stayed in the database when an earlier key went stays.
        buffer.makeKeyOpaque(table, key, .perhaps)
    }

    /// Has a row read that was loose before this instance started.
    mutating func restore(_ loose: LooseRow) {
        guard let table = mappings.firstIndex(where: { $0.name == loose.table }),
            mappings[table].keys.matches(loose.identity.key.span)
        else { return }
        // What the database has is newer than the position: up to there, nothing replaces it.
        if loose.identity.member.isEmpty {
            let slot = buffer.tables[table].key(loose.identity.key.span)
            buffer.makeKeyOpaque(table, slot, .perhaps)
            // What had changed it is forgotten.
            buffer.noteType(table, slot, nil)
            guard mappings[table].isOneRowPerKey else { return }
            let row = Int(buffer.tables[table].keys[slot].first)
            buffer.noteRestored(table, row)
            guard let offset = loose.offset else {
                return buffer.spare(table, row, restoring: loose)
            }
            buffer.tables[table].rows[row].readOffset = offset
            buffer.looseOffsetMax = max(buffer.looseOffsetMax, offset)
        } else if let (table, row) = slot(loose.table, loose.identity) {
            buffer.makeOpaque(table, row, isOwn: false)
            buffer.noteRestored(table, row)
            if loose.offset == nil { buffer.spare(table, row, restoring: loose) }
        }
    }

    mutating func slot(_ name: String, _ identity: RowIdentity) -> (Int, Int)? {
        // A table that the file no longer names, or a pattern that changed: nothing to remember.
        guard let table = mappings.firstIndex(where: { $0.name == name }),
            mappings[table].keys.matches(identity.key.span),
            // The entries of a stream are no rows of the buffer.
            mappings[table].type != .stream || identity.member.isEmpty
        else { return nil }
        let key = buffer.tables[table].key(identity.key.span)
        if mappings[table].isOneRowPerKey {
            return (table, Int(buffer.tables[table].keys[key].first))
        }
        return (table, buffer.tables[table].member(identity.member.span, of: key))
    }
}
