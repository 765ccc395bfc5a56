extension PipelineMachine {
    // MARK: The link

    /// Notes that the stream goes on where ``processed`` ends.
    ///
    /// - Parameter history: The history's new name, if the server gave one.
    public mutating func linkContinued(history: ReplicationID?) {
        isLinkUp = true
        stage.reset()
        received = processed?.offset ?? 0
        // A resynchronisation that was announced but not begun is not needed after all.
        if !isSwap { gap = nil }
        guard let history, history != processed?.history else { return }
        processed?.history = history
        acknowledgedOffset = 0
        isReadStale = reading != nil
        // What was read from the old server beyond this point, the new one may never have had.
        guard let processed else { return }
        if isSwap { gap = processed }
        interpreter.buffer.rereadBeyond(processed.offset)
        if reconciliation?.floor ?? .min > processed.offset {
            stopReconciling("another server took over, which may not have what was looked up")
        }
        // A baseline does not remember what it has read and written, so it starts again; and the
        // cursor of a scan means something only to the server that gave it.
        if baseline.isScanning || baseline.isRunning && baseline.floor > processed.offset {
            startBaseline()
        }
    }

    /// Notes that the stream begins anew, after a gap of unknown size.
    public mutating func linkResynchronised(_ position: Position) {
        isLinkUp = true
        stop = nil
        stage.reset()
        acknowledgedOffset = 0
        closedOffset = 0
        hasClosed = false
        if processed == nil {
            processed = position
            received = position.offset
            startBaseline()
            setReadsUnknown()
        } else {
            counters.resynchronisations += 1
            gap = position
            isSwap = false
        }
    }

    /// Notes that the link is down. What was processed stays.
    public mutating func linkLost() {
        isLinkUp = false
        stop = nil
        catchUpOffset = .min
        stage.reset()
        received = processed?.offset ?? 0
        causesLost()
    }

    /// Takes the server's description of its commands.
    ///
    /// - Parameter mayFieldsExpire: Whether hashes may have fields with deadlines already.
    public mutating func learn(_ commands: [CommandDescription], mayFieldsExpire: Bool = false) {
        interpreter.learn(commands)
        interpreter.buffer.mayFieldsExpire = mayFieldsExpire
    }

    /// What may be acknowledged to Redis: the database has everything up to there.
    public mutating func acknowledgement() -> Int64 { settledOffset() ?? 0 }

    /// Up to where the database has everything, or nil while that can't be said: a baseline is read.
    public mutating func settledOffset() -> Int64? {
        guard let processed, committed.isBaselineDone, !baseline.isRunning, gap == nil,
            committed.position?.history == processed.history
        else { return nil }
        let isClean =
            flight == nil && interpreter.buffer.dirtyCount == 0
            && interpreter.buffer.opaqueCount == 0 && !hasLoose
        guard isClean || hasClosed else { return nil }
        let offset = isClean ? processed.offset : closedOffset
        acknowledgedOffset = max(acknowledgedOffset, offset)
        return acknowledgedOffset
    }
}
