public import SluiceCore
internal import SluiceRedis

/// What came of looking for rows without a key.
public enum ReconcileOutcome: Sendable {
    /// What was found in each table; deleted, if that was asked for.
    case counted([String: Reconciliation.Count])
    /// It was not done, or not to its end, with the reason.
    case refused(String)
}

extension Pipeline {
    // MARK: Requests from outside

    /// Waits until the database has everything that was written to Redis before the call.
    ///
    /// - Returns: False when Redis can't be asked, or the pipeline ended before.
    public func flush() async -> Bool {
        // A link that was lost is renewed in a moment; a FLUSHALL alone may cost a server its replicas.
        let end = now + Self.flushPatience
        var place = await whereabouts()
        while place == nil, now < end, !isDraining {
            try? await pause(.milliseconds(50))
            place = await whereabouts()
        }
        guard let place else { return false }
        machine?.requestCut()
        return await withCheckedContinuation { continuation in
            flushes.append(
                Flush(offset: place.offset, history: place.history, continuation: continuation))
            sendAcknowledgement(isWanted: false)
            doorbell.ring()
        }
    }

    // Where the stream is now, or nil when Redis can't be asked.
    private func whereabouts() async -> (offset: Int64, history: ReplicationID)? {
        if !capture.isExact { return await roundForFlush() }
        guard isStreaming, let reader, reader.isActive, let info = try? await reader.info() else {
            // It may be lost alone, and nothing else may need it for long.
            renewReader()
            return nil
        }
        guard let offset = info.offset, let history = info.history, info.isMaster else {
            return nil
        }
        return (offset, history)
    }

    private var hearsCauses: Bool? {
        guard PipelineMachine.needsCauses(mappings) else { return nil }
        guard isStreaming, isListening else { return false }
        guard capture == .replication else { return (marking.reliableSince ?? .min) != .min }
        return machine?.hearsCauses ?? false
    }

    /// What the pipeline is doing.
    public func status() -> PipelineStatus {
        guard machine != nil else {
            return PipelineStatus(
                state: state, capture: capture, reason: reason, server: info?.name,
                committedOffset: 0,
                processedOffset: 0, history: nil, lagSeconds: 0, marksInFlight: 0, dirtyRows: 0,
                opaqueRows: 0,
                bufferBytes: 0, bufferBytesMax: policy.memoryMax, isBaselineDone: false,
                strayTables: [], hearsCauses: hearsCauses, setAside: setAside,
                counters: PipelineCounters(),
            )
        }
        let committed = machine?.committed
        let oldest = machine?.oldestWrite ?? nil
        return PipelineStatus(
            state: machine?.halt == nil ? state : .halted,
            capture: capture,
            reason: machine?.halt.map { "\($0)" } ?? reason ?? readRefusal,
            server: info?.name,
            committedOffset: max(machine?.acknowledgement() ?? 0, committed?.position?.offset ?? 0),
            processedOffset: machine?.processed?.offset ?? 0,
            history: machine?.processed?.history.digits,
            lagSeconds: oldest.map { (now - $0).seconds } ?? 0,
            marksInFlight: marking.ledger.count,
            dirtyRows: machine?.dirtyCount ?? 0,
            opaqueRows: machine?.opaqueCount ?? 0,
            bufferBytes: machine?.memory ?? 0,
            bufferBytesMax: policy.memoryMax,
            isBaselineDone: committed?.isBaselineDone ?? false,
            strayTables: (machine?.strayTables ?? []).sorted(),
            hearsCauses: hearsCauses,
            setAside: setAside,
            counters: machine?.counters ?? PipelineCounters(),
        )
    }

    /// Has rows read from Redis again, and what is read committed.
    ///
    /// It returns when all of them are about to be read; a flush after it waits for the rows.
    ///
    /// - Parameter rows: The rows, by table. Tables that the configuration does not name are ignored.
    /// - Returns: False when the database has not taken what was dirty of them, so that it must be asked
    ///   for again.
    public func lookAgain(_ rows: [String: [RowIdentity]]) async -> Bool {
        let end = now + Self.flushPatience
        for (table, rows) in rows { machine?.lookAgain(rows, table: table) }
        doorbell.ring()
        while machine?.isLookingLater == true, !isDraining {
            guard now < end, !Task.isCancelled else { return false }
            try? await pause(.milliseconds(10))
        }
        return !isDraining
    }

    /// Counts the rows that have no key in Redis, and deletes them if limits are given.
    ///
    /// Rows that outlived their keys as a policy says, and rows of tables that keep what the
    /// application removed, are neither counted nor deleted.
    ///
    /// - Parameters:
    ///   - limits: The most rows of each table that may be deleted; nil only counts.
    ///   - includesDoubtful: Whether rows count too that stay only because nobody knows why their
    ///     keys went.
    public func reconcile(
        limits: [String: Int]?, includesDoubtful: Bool,
    ) async -> ReconcileOutcome {
        guard machine != nil, reconciler == nil else {
            return .refused("the database is not open, or another pass is under way")
        }
        let reason = machine?.reconcile(limits: limits, includesDoubtful: includesDoubtful)
        if let reason = reason ?? nil { return .refused(reason) }
        doorbell.ring()
        return await withCheckedContinuation { reconciler = $0 }
    }

    /// Answers who waits for a pass that is over.
    func answerReconciler() {
        guard let reconciler, machine?.isReconciled != false else { return }
        let last = machine?.reconciliation ?? nil
        self.reconciler = nil
        switch last?.phase {
        case .done: reconciler.resume(returning: .counted(last?.counts ?? [:]))
        case .stopped(let reason): reconciler.resume(returning: .refused(reason))
        case .sweeping, .closing, nil:
            reconciler.resume(returning: .refused("the instance started again meanwhile"))
        }
    }
}
