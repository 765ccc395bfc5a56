extension PipelineMachine {
    /// What to do now. Asked again after each input and each action's end.
    public mutating func next(now: Duration) -> Action {
        if halt != nil { return .wait(until: nil) }
        if isCauseWanted || wantsVerdict, !isAskingCauses, lookAheadUntil == nil, isLinkUp {
            isAskingCauses = true
            return .askCauses
        }
        // What a waiting client wrote is in the database, or in the batch on its way.
        if !isPending, !isDraining { isCutRequested = false }
        if wantsCut(now: now) {
            if closingSince == nil { closingSince = now }
            if canCut(now: now) { return .commit(cut(now: now)) }
        } else {
            closingSince = nil
        }
        if let action = read(now: now) { return action }
        let lookUp = scan(now: now) ?? sweep(now: now) ?? reconcileSweep(now: now)
        if let lookUp { return lookUp }
        if isDraining, isSettled { return .finish }
        return .wait(until: deadline(now: now))
    }

    /// Whether the database has everything that was processed.
    public var isSettled: Bool {
        flight == nil && !isRetrying && reading == nil && interpreter.buffer.dirtyCount == 0
            && (interpreter.buffer.opaqueCount == 0 || hasLoose || baseline.isRunning)
            && (committed.position == processed || processed == nil)
    }

    /// The time of the oldest write that is not committed.
    public var oldestWrite: Duration? { flight?.since ?? dirtySince }

    /// The rows that wait.
    public var dirtyCount: Int { interpreter.buffer.dirtyCount }
    /// The rows that wait for a read.
    public var opaqueCount: Int { interpreter.buffer.opaqueCount }
    /// Bytes of memory that the buffer takes, about.
    public var memory: Int { interpreter.buffer.memory }
    /// Whether the rows do not equal Redis yet.
    public var isBaselineRunning: Bool { baseline.isRunning }
    /// Rows that may have no key, by table.
    public var strayTables: Set<String> { strays }

    /// Forgets the values that need not be written.
    package mutating func forgetClean() {
        interpreter.buffer.forgetClean(processed: processed?.offset ?? 0)
    }

    private func wantsCut(now: Duration) -> Bool {
        guard flight == nil, !isRetrying, let processed else { return false }
        if gap != nil || wantsCutAtStop { return true }
        let dirty = interpreter.buffer.dirtyCount
        // A baseline ends with a commit; a client that waits is answered by one.
        if baseline.ends(at: processed.offset) || closesReconciliation { return true }
        // Rows that were written, and wait for the stream, ask for no cut by their number.
        let isMany = dirty >= policy.rowsMax && processed.offset >= interpreter.buffer.putOffUntil
        if isPending, isCutRequested || isMany { return true }
        // A cut makes room only of what it takes along.
        if mayCutMakeRoom, isRoomWanted { return true }
        if let dirtySince, isPending, dirtySince + policy.interval <= now { return true }
        if isDraining { return isBehind }
        // Rows wait for their interval; a position without rows is written by and by.
        return !isPending && isBehind && positionWritten + policy.positionInterval <= now
    }

    // Whether a commit without rows would say something new: where the stream is, or that rows which
    // were loose are not any more.
    private var isBehind: Bool {
        guard let processed else { return false }
        if committed.position != processed { return true }
        return hasLoose && interpreter.buffer.opaqueCount == 0
            && interpreter.buffer.looseOffsetMax <= processed.offset
    }

    private func canCut(now: Duration) -> Bool {
        guard reading == nil, let processed else { return false }
        if gap != nil || isRoomWanted && mayCutMakeRoom { return true }
        if baseline.isRunning, !baseline.ends(at: processed.offset) {
            return interpreter.buffer.dirtyCount > 0 || committed.position != processed
        }
        if interpreter.buffer.opaqueCount == 0,
            interpreter.buffer.readOffsetMax <= processed.offset
        {
            return true
        }
        // No more of the stream comes until this is committed: rows read beyond it are loose.
        if wantsCutAtStop, interpreter.buffer.opaqueCount == 0 { return true }
        // Rows that can't be closed in time are committed loose.
        guard let closingSince else { return false }
        return closingSince + closingMax <= now
    }

    private var closingMax: Duration {
        // A key of which only some pages are read is not committed for a comparison's sake.
        if interpreter.buffer.scanCount > 0 { return policy.scanClosingMax }
        return wantsCutAtStop ? policy.stopClosingMax : policy.closingMax
    }

    private mutating func cut(now: Duration) -> Batch {
        guard let processed else { preconditionFailure("there is no cut before the first contact") }
        var to = committed
        to.sequence += 1
        to.position = gap ?? processed
        if gap != nil { interpreter.buffer.abandonScans() }
        // What the stream would decide is not to come: a baseline or the next start reads it anew.
        if gap != nil || isDraining {
            interpreter.buffer.takeBackClears(beyond: processed.offset)
        }
        if isStopped { stop?.isCut = true }
        let incomplete = Set(interpreter.buffer.incomplete.map { interpreter.mappings[$0].name })
        interpreter.buffer.incomplete = []
        reconciliation?.left.formUnion(incomplete)
        let endsBaseline = gap == nil && baseline.ends(at: processed.offset)
        let closesReconciliation = closesReconciliation
        let rows = interpreter.buffer.cut(
            at: processed.offset, waits: !isRoomWanted, isLast: gap != nil || isDraining,
            rereading: wholeTables(endsBaseline, closesReconciliation, incomplete))
        counters.vanished = interpreter.buffer.vanished
        counters.doubtful = interpreter.buffer.doubtful
        let isOfBaseline = baseline.isRunning
        if endsBaseline {
            baseline.phase = .done
            interpreter.buffer.noteUnseenLetters()
        }
        let sweepsDoubtful = sweepsDoubtful
        if closesReconciliation { closeReconciliation() }
        if let gap { begin(at: gap) }
        to.isBaselineDone = !baseline.isRunning
        strays.formUnion(incomplete)
        strays.formUnion(interpreter.buffer.incomplete.map { interpreter.mappings[$0].name })
        interpreter.buffer.incomplete = []
        to.strays = strays
        setReadsUnknown()

        var batch = Batch(from: committed, to: to)
        // What is read is often as it was, but for one member or field.
        batch.comparesPuts = isOfBaseline || !capture.isExact
        batch.tables = rows.tables
        for index in batch.tables.indices { batch.tables[index].sweepsDoubtful = sweepsDoubtful }
        batch.deadLetters = rows.deadLetters
        batch.revived = rows.revived
        // A baseline reads everything again after a crash: only what is newer need be remembered.
        let single = Set(interpreter.mappings.filter(\.isOneRowPerKey).map(\.name))
        let loose =
            baseline.isRunning
            ? rows.loose.filter { $0.offset != nil && single.contains($0.table) } : rows.loose
        if hasLoose || !loose.isEmpty { batch.loose = loose }
        hasLoose = !loose.isEmpty
        counters.looseRows += loose.count
        counters.setAside += rows.deadLetters.count
        flight = Flight(
            to: to, rows: batch.rowCount, since: dirtySince,
            isClosed: to.isBaselineDone && !loose.contains { $0.offset == nil },
            isOfBaseline: isOfBaseline,
        )
        barrenOffset = batch.rowCount == 0 && isMemoryFull ? processed.offset : nil
        dirtySince = nil
        closingSince = nil
        isCutRequested = false
        lookAtLater()
        if interpreter.buffer.opaqueCount == 0 { suspects = [:] }
        if interpreter.buffer.memory > policy.cleanMemoryMax {
            interpreter.buffer.forgetClean(processed: processed.offset)
        }
        return batch
    }

    /// Goes on in a new history, or in swapped databases, of which nothing is known.
    private mutating func begin(at position: Position) {
        interpreter.buffer.forgetKnowledge()
        catchUpOffset = .min
        processed = position
        received = position.offset
        gap = nil
        isSwap = false
        strays = []
        startBaseline()
    }

    // Where a baseline found no row without a key, or a person had all of them deleted.
    private func wholeTables(
        _ endsBaseline: Bool, _ closesReconciliation: Bool, _ incomplete: Set<String>,
    ) -> [Int] {
        guard endsBaseline || closesReconciliation else { return [] }
        return interpreter.mappings.indices.filter { table in
            let name = interpreter.mappings[table].name
            return endsBaseline && !strays.contains(name) && !incomplete.contains(name)
                || closesReconciliation && isReconciled(name)
        }
    }

    mutating func setReadsUnknown() {
        for table in interpreter.mappings.indices {
            interpreter.buffer.tables[table].readsUnknown =
                baseline.isRunning || strays.contains(interpreter.mappings[table].name)
        }
    }

    mutating func startBaseline() {
        counters.missing = 0
        counters.baselineChanges = 0
        stop = nil
        for table in interpreter.mappings.indices {
            interpreter.buffer.tables[table].beginSweep(false)
        }
        stopReconciling("the stream had a gap, and every key is read again")
        baseline.start()
    }

    // What is read may be large. It waits for what is on its way, and for rows that can't be forgotten
    // before the stream is where they were read.
    mutating func hasRoomToRead() -> Bool {
        guard isMemoryFull else { return true }
        guard flight == nil, !mayCutMakeRoom, !isCatchingUp else { return false }
        forgetClean()
        guard isMemoryFull else { return true }
        if let processed, interpreter.buffer.looseOffsetMax > processed.offset {
            catchUpOffset = interpreter.buffer.looseOffsetMax
            isStreamWanted = true
            return false
        }
        if interpreter.buffer.scanCount > 0 { interpreter.buffer.keepLargestFieldScan() }
        // Nothing else makes room.
        return true
    }

    private mutating func read(now: Duration) -> Action? {
        guard reading == nil, isLinkUp, gap == nil, interpreter.buffer.opaqueCount > 0 else {
            return nil
        }
        let isScanning = interpreter.buffer.scanCount > 0
        guard baseline.isRunning || closingSince != nil || isMemoryFull || isScanning,
            pauseUntil <= now
        else { return nil }
        guard hasRoomToRead() else { return nil }
        var items: [RowBuffer.Opaque] = []
        var weight = 0
        while weight < policy.readsMax, var item = interpreter.buffer.nextToRead() {
            if let row = item.row {
                item.isContinuation = interpreter.buffer.isScanningFields(item.table, row)
            }
            items.append(item)
            let isPage = item.row == nil || item.isContinuation
            weight += isPage ? policy.readsMax : rowCosts[item.table]
        }
        guard !items.isEmpty else { return nil }
        reading = items
        return .read(
            items.map {
                interpreter.buffer.readItem(for: $0, pageMembers: policy.pageMembers)
            })
    }

    private mutating func scan(now: Duration) -> Action? {
        guard case .scanning(let prefix, let cursor) = baseline.phase, scanning == nil, isLinkUp,
            gap == nil, pauseUntil <= now, interpreter.buffer.opaqueCount < policy.readsMax,
            hasRoomToRead()
        else { return nil }
        scanning = baseline.generation
        let walk = baseline.walks[prefix]
        return .scan(
            database: walk.database, cursor: cursor, match: walk.glob, count: policy.scanCount)
    }

    private mutating func sweep(now: Duration) -> Action? {
        guard case .sweeping(let table, let after) = baseline.phase, sweeping == nil, isLinkUp,
            gap == nil, !isRetrying, pauseUntil <= now
        else { return nil }
        sweeping = baseline.generation
        if after == nil { interpreter.buffer.tables[table].beginSweep() }
        return .sweep(table: table, after: after, limit: policy.sweepMax)
    }

    private func deadline(now: Duration) -> Duration? {
        var deadlines: [Duration] = []
        if flight == nil {
            if let dirtySince { deadlines.append(dirtySince + policy.interval) }
            if let closingSince { deadlines.append(closingSince + closingMax) }
            if isBehind {
                deadlines.append(positionWritten + policy.positionInterval)
            }
        }
        if pauseUntil > now { deadlines.append(pauseUntil) }
        return deadlines.filter { $0 > now }.min()
    }
}
