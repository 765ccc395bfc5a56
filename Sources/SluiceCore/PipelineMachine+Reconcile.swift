/// A pass over the database's rows for those that have no key in Redis, when a person asks for it.
///
/// ```
/// sweeping ──last row──▶ closing ──commit──▶ done
///     └──────gap, too many──────────────────▶ stopped
/// ```
public struct Reconciliation: Hashable, Sendable {
    /// What was found in one table.
    public struct Count: Hashable, Sendable, Codable {
        /// The rows of the table.
        public var rows = 0
        /// Those without a key, rows that outlived theirs on purpose not counted.
        public var missing = 0

        /// Creates a count of nothing.
        public init() {}
    }

    /// How a pass ended, or that it goes on.
    public enum Phase: Hashable, Sendable {
        /// The rows of a table are looked up.
        case sweeping(table: Int, after: RowIdentity?)
        /// All were looked up; those to be deleted are read once more and committed.
        case closing
        /// Everything was done.
        case done
        /// Nothing more is done, with the reason.
        case stopped(String)
    }

    /// Where it is.
    public internal(set) var phase: Phase
    /// What was found, by table.
    public internal(set) var counts: [String: Count] = [:]
    /// The most rows that may go, by table; nil when rows are only counted.
    public let limits: [String: Int]?
    /// Whether rows count too that stay only because nobody knows why their keys went.
    public let includesDoubtful: Bool
    /// Where Redis was when rows were looked up last: only from there on a table is what was found.
    var floor = Int64.min
    /// Tables to which rows without a key may have come since their rows were looked up.
    var left: Set<String> = []

    var isOver: Bool {
        switch phase {
        case .sweeping, .closing: false
        case .done, .stopped: true
        }
    }
}

extension PipelineMachine {
    /// Starts to look for rows without a key.
    ///
    /// - Parameters:
    ///   - limits: The most rows that may be deleted, by table; nil to delete none. A table with
    ///     more stops the pass: what was found has changed since it was counted.
    ///   - includesDoubtful: Whether rows count too that stay only because nobody knows why their
    ///     keys went.
    /// - Returns: Nil, or why it can't be done now.
    public mutating func reconcile(
        limits: [String: Int]?, includesDoubtful: Bool = false,
    ) -> String? {
        if let reconciliation, !reconciliation.isOver { return "another pass is under way" }
        guard committed.isBaselineDone, !baseline.isRunning, gap == nil else {
            return "a baseline is being read; try again when it is done"
        }
        reconciliation = Reconciliation(
            phase: .closing, limits: limits, includesDoubtful: includesDoubtful)
        reconciliationNumber -= 1
        sweepNext(after: -1)
        return nil
    }

    /// Has rows read again that may differ from Redis, and what is read written.
    public mutating func lookAgain(_ rows: [RowIdentity], table name: String) {
        guard processed != nil, !baseline.isRunning,
            let table = interpreter.mappings.firstIndex(where: { $0.name == name })
        else { return }
        let later = interpreter.lookAgain(rows, table)
        if !later.isEmpty { lookedAtLater[table, default: []] += later }
        isCutRequested = true
    }

    /// Whether rows are to be read again once what is dirty of them is on its way.
    public var isLookingLater: Bool { !lookedAtLater.isEmpty }

    /// Has rows read that were dirty when they were to be read again.
    mutating func lookAtLater() {
        guard isLookingLater else { return }
        let rows = lookedAtLater
        lookedAtLater = [:]
        // A baseline reads everything.
        guard !baseline.isRunning else { return }
        for (table, rows) in rows { lookAgain(rows, table: interpreter.mappings[table].name) }
    }

    /// Whether no pass is under way, and what the last one deleted is in the database.
    public var isReconciled: Bool {
        guard let reconciliation else { return true }
        return reconciliation.isOver && (flight == nil || reconciliation.limits == nil)
    }

    /// Ends a pass, because the instance stops.
    public mutating func abandonReconciliation() { stopReconciling("the instance stops") }

    /// Ends a pass, because what it stands on is gone.
    mutating func stopReconciling(_ reason: String) {
        if reconciliation?.isOver == false { reconciliation?.phase = .stopped(reason) }
    }

    private mutating func sweepNext(after table: Int) {
        let mappings = interpreter.mappings
        let next = mappings.indices.first { $0 > table && mappings[$0].canMiss }
        if let next {
            reconciliation?.counts[mappings[next].name] = Reconciliation.Count()
            reconciliation?.phase = .sweeping(table: next, after: nil)
        } else {
            let deletes = reconciliation?.limits != nil
            reconciliation?.phase = deletes ? .closing : .done
        }
    }

    /// The next page to look up, or nil.
    mutating func reconcileSweep(now: Duration) -> Action? {
        guard case .sweeping(let table, let after)? = reconciliation?.phase, sweeping == nil,
            isLinkUp, gap == nil, !baseline.isRunning, pauseUntil <= now,
            interpreter.buffer.opaqueCount < policy.readsMax, hasRoomToRead()
        else { return nil }
        sweeping = reconciliationNumber
        if after == nil { interpreter.buffer.tables[table].beginSweep() }
        return .sweep(table: table, after: after, limit: policy.sweepMax)
    }

    /// Takes a page of a pass.
    mutating func reconcileSwept(
        _ rows: Int, missing: [RowIdentity], outlived: [RowIdentity: Kept], last: RowIdentity?,
        offset: Int64, history: ReplicationID, now: Duration,
    ) {
        guard case .sweeping(let table, _)? = reconciliation?.phase else { return }
        guard history == processed?.history, gap == nil else {
            pauseUntil = max(pauseUntil, now + policy.baselinePause)
            return
        }
        let floor = max(reconciliation?.floor ?? .min, offset)
        reconciliation?.floor = floor
        let includesDoubtful = reconciliation?.includesDoubtful ?? false
        let missing = missing.filter { row in
            outlived[row] == nil || outlived[row] == .doubtful && includesDoubtful
        }
        let name = interpreter.mappings[table].name
        reconciliation?.counts[name]?.rows += rows
        reconciliation?.counts[name]?.missing += missing.count
        if let limits = reconciliation?.limits {
            let found = reconciliation?.counts[name]?.missing ?? 0
            guard found <= limits[name] ?? 0 else {
                return stopReconciling(
                    "table \(name) has more rows without a key than were counted before")
            }
            _ = interpreter.lookAgain(missing, table)
            if !missing.isEmpty { isCutRequested = true }
        }
        pauseUntil = max(pauseUntil, now + policy.baselinePause)
        if let last {
            reconciliation?.phase = .sweeping(table: table, after: last)
        } else {
            sweepNext(after: table)
        }
    }

    /// Whether all was read that a pass asked for, and its end is to be committed.
    var closesReconciliation: Bool {
        reconciliation?.phase == .closing && interpreter.buffer.opaqueCount == 0
            && reconciliation?.floor ?? .min <= processed?.offset ?? .min
    }

    /// Whether rows go that stay only because nobody knows why their keys went.
    var sweepsDoubtful: Bool {
        reconciliation?.isOver == false && reconciliation?.includesDoubtful == true
    }

    /// Whether a pass that closes had all rows of a table deleted that have no key.
    func isReconciled(_ table: String) -> Bool {
        guard let reconciliation else { return false }
        return reconciliation.counts[table] != nil && !reconciliation.left.contains(table)
    }

    /// Notes that a batch leaves no row of the pass to be read: it ends with it.
    mutating func closeReconciliation() {
        for name in reconciliation?.counts.keys.sorted() ?? [] where isReconciled(name) {
            strays.remove(name)
        }
        reconciliation?.phase = .done
    }
}
