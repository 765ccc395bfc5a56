internal import Logging
internal import SluiceCore
internal import SluiceRedis

extension Pipeline {
    /// Commits a batch, as often as it takes.
    func commit(_ taken: Batch) async {
        var batch = await Self.ordered(taken)
        var backoff = Backoff()
        while true {
            do throws(SinkError) {
                let outcome = try await sink.apply(batch)
                return committed(batch, outcome, backoff)
            } catch {
                if error.response == .fenced { return failure = error }
                if Task.isCancelled { return }
                if backoff.failureCount == 0 {
                    let level: Logger.Level = error.response == .halt ? .error : .warning
                    logger.log(
                        level: level, "The database does not take what is ready; trying on",
                        metadata: ["why": "\(error)"])
                }
                state = error.response == .halt ? .halted : .retrying
                reason = "\(error)"
                // A halt needs a person, whose repair is noticed by trying again.
                let pause =
                    error.response == .halt ? Backoff.pauseMax : backoff.next(using: &random)
                if error.response == .halt { _ = backoff.next(using: &random) }
                if await self.pause(after: error, pause) { batch.acceptsRefusals = true }
            }
        }
    }

    // Away from the event loop, which reads the stream meanwhile.
    @concurrent private static func ordered(_ batch: Batch) async -> Batch {
        batch.ordered()
    }

    private func committed(_ batch: Batch, _ outcome: BatchOutcome, _ backoff: Backoff) {
        machine?.committed(outcome, now: now)
        if backoff.failureCount > 0 {
            logger.info(
                "The database takes rows again", metadata: ["tries": "\(backoff.failureCount)"])
            state = .streaming
            reason = nil
        }
        if batch.to.isBaselineDone, !batch.from.isBaselineDone { sayBaselineDone() }
        for letter in batch.deadLetters + outcome.refused { note(letter) }
        sendAcknowledgement(isWanted: false)
        // The commit may have made room.
        processHeld()
        doorbell.ring()
    }

    private func sayBaselineDone() {
        let counters = machine?.counters ?? PipelineCounters()
        logger.info(
            "Baseline done",
            metadata: [
                "read": "\(counters.baselineReads)", "rows_changed": "\(counters.baselineChanges)",
                "rows_without_key": "\(counters.missing)",
            ])
    }

    /// Counts a row that was set aside, and says so once for each table and reason.
    private func note(_ letter: DeadLetter) {
        let reason = "\(letter.table): \(letter.code)"
        if setAside[reason] == nil {
            logger.warning(
                "A row was set aside; further ones with this reason are counted in the status",
                metadata: [
                    "table": "\(letter.table)", "code": "\(letter.code)",
                    "why": "\(letter.message)",
                ])
        }
        setAside[reason, default: 0] += 1
        hasLetters = true
    }

    /// Reads rows at an exact offset.
    func read(_ items: [ReadItem]) async {
        do throws(RedisError) {
            guard let reader, reader.isActive else {
                throw RedisError(.retry, "the reader is not connected")
            }
            let items = try await itemsToRead(items)
            let answer = try await reader.read(items)
            readRefusal = nil
            let place = place(answer.offset, answer.history)
            machine?.readFinished(
                answer.results, offset: place.offset,
                until: capture.isExact ? answer.until : place.offset, history: place.history,
                now: now)
        } catch {
            logger.debug("A read failed", metadata: ["why": "\(error)"])
            machine?.readFailed(now: now, pause: Backoff.pauseMin)
            if error == .noMaster, !capture.isExact { leaveServer() }
            if error.response == .halt {
                if readRefusal == nil {
                    logger.warning(
                        "Redis refuses a read, and rows wait for it; trying on",
                        metadata: ["why": "\(error)"])
                }
                readRefusal = "\(error)"
            }
            renewReader()
        }
        processHeld()
        doorbell.ring()
    }

    // What is read of streams goes on after what the database has, where nothing else says so.
    private func itemsToRead(_ items: [ReadItem]) async throws(RedisError) -> [ReadItem] {
        guard !capture.isExact else { return items }
        do throws(SinkError) {
            return try await afterLastEntries(items)
        } catch {
            throw RedisError(.retry, "the database does not say what it has of a stream: \(error)")
        }
    }

    // Without a stream, what is read holds after the last round of marks that was taken.
    private func place(
        _ offset: Int64, _ history: ReplicationID,
    ) -> (offset: Int64, history: ReplicationID) {
        guard !capture.isExact, let processed = machine?.processed else { return (offset, history) }
        return (processed.offset, processed.history)
    }

    /// Looks for keys.
    func scan(_ database: Int, _ cursor: Bytes, _ match: Bytes, _ count: Int) async {
        do throws(RedisError) {
            guard let reader, reader.isActive else {
                throw RedisError(.retry, "the reader is not connected")
            }
            let found = try await reader.scan(
                cursor: cursor, match: match, count: count, in: database)
            let place = place(found.place.offset, found.place.history)
            machine?.scanFinished(
                found.keys, cursor: found.cursor, offset: place.offset, history: place.history,
                now: now)
        } catch {
            machine?.scanFailed(now: now, pause: Backoff.pauseMin)
            renewReader()
        }
        doorbell.ring()
    }

    /// Asks why keys went.
    func askCauses() async {
        do throws(RedisError) {
            guard let keyEvents, keyEvents.isActive else {
                throw RedisError(.retry, "nobody listens to key events")
            }
            let answer = try await keyEvents.barrier()
            if !answer.isReliable, hasKeyEvents {
                hasKeyEvents = false
                logger.warning(
                    "Redis does not say why keys go: rows of removed keys stay, and are counted",
                    metadata: ["hint": "CONFIG SET notify-keyspace-events \(KeyEvents.flags)"])
            }
            machine?.causesAnswered(
                answer.events, offset: answer.offset, history: answer.history,
                isReliable: answer.isReliable, isUndisturbed: answer.isUndisturbed)
        } catch {
            logger.debug("Key events were lost", metadata: ["why": "\(error)"])
            machine?.causesLost()
            if isStreaming, isListening { link?.close() }
        }
        processHeld()
        doorbell.ring()
    }

    /// Looks up a page of the database's rows in Redis.
    func sweep(_ table: Int, _ after: RowIdentity?, _ limit: Int) async {
        do {
            guard let reader, reader.isActive else {
                throw RedisError(.retry, "the reader is not connected")
            }
            let rows = try await sink.page(table: table, after: after, limit: limit)
            let found = try await reader.missing(
                rows, of: mappings[table],
                isShared: mappings.contains {
                    $0.name != mappings[table].name && $0.overlaps(mappings[table])
                })
            let outlived = try await sink.outlived(found.rows, table: table)
            let place = place(found.place.offset, found.place.history)
            machine?.sweepFinished(
                rows: rows.count, missing: found.rows, outlived: outlived,
                last: rows.count < limit ? nil : rows.last, offset: place.offset,
                history: place.history, now: now)
        } catch {
            logger.debug("A look-up failed", metadata: ["why": "\(error)"])
            machine?.sweepFailed(now: now, pause: Backoff.pauseMin)
            renewReader()
        }
        doorbell.ring()
    }

    /// Lets the database hear of this instance.
    func renewLease() async {
        guard let renewal = sink.renewal else { return }
        while !Task.isCancelled {
            try? await pause(renewal)
            do throws(SinkError) {
                try await sink.renew()
            } catch {
                if error.response == .fenced, !Task.isCancelled { failure = error }
            }
        }
    }

    /// A reader that was lost comes back with the link.
    func renewReader() {
        if isStreaming, reader?.isActive != true { leaveServer() }
    }
}
