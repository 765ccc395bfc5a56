internal import Logging
internal import SluiceCore
internal import SluiceRedis

extension Pipeline {
    /// Commits a batch, as often as it takes.
    func commit(_ taken: Batch) async {
        let batch = await Self.ordered(taken)
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
                try? await self.pause(pause)
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
        for letter in batch.deadLetters + outcome.refused { note(letter) }
        sendAcknowledgement(isWanted: false)
        // The commit may have made room.
        processHeld()
        doorbell.ring()
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
    }

    /// Reads rows at an exact offset.
    func read(_ items: [ReadItem]) async {
        do throws(RedisError) {
            guard let reader, reader.isActive else {
                throw RedisError(.retry, "the reader is not connected")
            }
            let answer = try await reader.read(items)
            readRefusal = nil
            machine?.readFinished(
                answer.results, offset: answer.offset, until: answer.until,
                history: answer.history, now: now)
        } catch {
            logger.debug("A read failed", metadata: ["why": "\(error)"])
            machine?.readFailed(now: now, pause: Backoff.pauseMin)
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

    /// Looks for keys.
    func scan(_ cursor: Bytes, _ match: Bytes, _ count: Int) async {
        do throws(RedisError) {
            guard let reader, reader.isActive else {
                throw RedisError(.retry, "the reader is not connected")
            }
            let found = try await reader.scan(cursor: cursor, match: match, count: count)
            machine?.scanFinished(
                found.keys, cursor: found.cursor, offset: found.place.offset,
                history: found.place.history, now: now)
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
            let missing = try await reader.countMissing(rows, of: mappings[table])
            machine?.sweepFinished(
                missing: missing.count, last: rows.count < limit ? nil : rows.last,
                offset: missing.place.offset, history: missing.place.history, now: now)
        } catch {
            logger.debug("A look-up failed", metadata: ["why": "\(error)"])
            machine?.sweepFailed(now: now, pause: Backoff.pauseMin)
            renewReader()
        }
        doorbell.ring()
    }

    /// A reader that was lost comes back with the link.
    private func renewReader() {
        if isStreaming, reader?.isActive != true { link?.close() }
    }

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
        guard isStreaming, let reader, reader.isActive, let info = try? await reader.info(),
            let offset = info.offset, let history = info.history, info.isMaster
        else { return nil }
        return (offset, history)
    }

    /// What the pipeline is doing.
    public func status() -> PipelineStatus {
        guard machine != nil else {
            return PipelineStatus(
                state: state, reason: reason, server: info?.name, committedOffset: 0,
                processedOffset: 0, history: nil, lagSeconds: 0, dirtyRows: 0, opaqueRows: 0,
                bufferBytes: 0, bufferBytesMax: policy.memoryMax, isBaselineDone: false,
                strayTables: [], setAside: setAside, counters: PipelineCounters(),
            )
        }
        let committed = machine?.committed
        let oldest = machine?.oldestWrite ?? nil
        return PipelineStatus(
            state: machine?.halt == nil ? state : .halted,
            reason: machine?.halt.map { "\($0)" } ?? reason ?? readRefusal,
            server: info?.name,
            committedOffset: max(machine?.acknowledgement() ?? 0, committed?.position?.offset ?? 0),
            processedOffset: machine?.processed?.offset ?? 0,
            history: machine?.processed?.history.digits,
            lagSeconds: oldest.map { (now - $0).seconds } ?? 0,
            dirtyRows: machine?.dirtyCount ?? 0,
            opaqueRows: machine?.opaqueCount ?? 0,
            bufferBytes: machine?.memory ?? 0,
            bufferBytesMax: policy.memoryMax,
            isBaselineDone: committed?.isBaselineDone ?? false,
            strayTables: (machine?.strayTables ?? []).sorted(),
            setAside: setAside,
            counters: machine?.counters ?? PipelineCounters(),
        )
    }
}
