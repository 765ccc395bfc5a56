internal import Logging
internal import NIOCore
internal import RESPWire
internal import SluiceCore
internal import SluiceRedis

extension Pipeline {
    /// Keeps a link to the server, as often as it breaks.
    func keepLink() async {
        var backoff = Backoff()
        var isFirst = true
        while !Task.isCancelled {
            var error = RedisError(.retry, "the link to Redis was closed")
            do throws(RedisError) {
                try await connect()
                await withTaskCancellationHandler {
                    await link?.closed()
                } onCancel: { [link] in
                    link?.close()
                }
                error = linkError ?? error
            } catch let refusal {
                error = refusal
            }
            lose()
            if Task.isCancelled { return }
            if hasStreamed {
                isFirst = false
                backoff.reset()
            }
            hasStreamed = false
            // At the start a person is there to act; later, a change on the server may pass.
            if error.response == .halt, isFirst { return failure = error }
            if backoff.failureCount == 0, !isDraining {
                logger.warning("Waiting for Redis", metadata: ["why": "\(error)"])
            }
            reason = "\(error)"
            state = .connecting
            try? await pause(backoff.next(using: &random))
        }
    }

    /// Leaves a server that is the master no more, though it may still stand: what is written to it
    /// now will be thrown away.
    func watchMaster() async {
        while !Task.isCancelled {
            try? await pause(.seconds(1))
            guard isStreaming, let master = try? await endpoint.resolved(on: loop),
                isStreaming, master.address != server.address
            else { continue }
            logger.warning(
                "Another server is the master now",
                metadata: ["from": "\(server.address)", "to": "\(master.address)"])
            leaveServer()
        }
    }

    /// Closes what the server is followed by, so that it is looked for anew.
    func leaveServer() {
        link?.close()
        if !capture.isExact { reader?.close() }
        marking.close()
        marksBell.ring()
    }

    private func connect() async throws(RedisError) {
        linkError = nil
        if state != .halted { state = .connecting }
        server = try await endpoint.resolved(on: loop)
        let reader = try await KeyReader.connect(to: server, on: loop)
        self.reader = reader
        let info = try await reader.info()
        if endpoint.isSentinel, !info.isMaster {
            throw RedisError(.retry, "\(server.address) is no master yet, or no more")
        }
        if let refusal = info.refusal(capture) { throw refusal }
        self.info = info
        // What is replayed may have had deadlines that ended before now.
        let isReplayed = machine?.processed != nil && info.offset != machine?.processed?.offset
        machine?.learn(
            try await reader.commands(),
            mayFieldsExpire: info.knowsFieldDeadlines
                && (isReplayed || databases.contains(where: info.hasFieldDeadlines)))
        await listen()
        let relay = LinkRelay(pipeline: self)
        link = try await ReplicationLink.connect(
            to: server, on: loop, position: machine?.processed, delegate: relay,
        )
    }

    /// Listens to key events if why a key went matters; without them, rows of removed keys stay.
    private func listen() async {
        keyEvents?.close()
        keyEvents = nil
        isListening = false
        guard PipelineMachine.needsCauses(mappings) else { return }
        do throws(RedisError) {
            let events = try await KeyEvents.connect(to: server, on: loop, mappings: mappings)
            keyEvents = events
            if configuresRedis, let flags = try await events.configure() {
                logger.info(
                    "Turned on key events, which say why keys go",
                    metadata: ["notify-keyspace-events": "\(flags)"])
            }
            isListening = true
            hasKeyEvents = true
        } catch {
            keyEvents?.close()
            keyEvents = nil
            guard hasKeyEvents else { return }
            hasKeyEvents = false
            logger.warning(
                "Can't learn why keys go: rows of removed keys stay, and are counted",
                metadata: ["why": "\(error)"])
        }
    }

    /// Notes where key events begin to be complete. Asked only now, because the first replica of a
    /// server begins a history.
    func hear() async {
        guard let events = keyEvents, let answer = try? await events.barrier(),
            events === keyEvents
        else { return }
        machine?.causesHeard(
            from: answer.offset, history: answer.history, isReliable: answer.isReliable)
    }

    /// Lets go of the connections; what was processed stays.
    func lose() {
        isStreaming = false
        machine?.linkLost()
        reader?.close()
        keyEvents?.close()
        link?.close()
        marking.close()
        pending.clear()
        decoder.reset()
        skipRemaining = 0
        marksBell.ring()
        doorbell.ring()
    }

    // MARK: What the link reports

    func continued(_ history: ReplicationID?) {
        machine?.linkContinued(history: history)
        begin()
    }

    func resynchronised(_ history: ReplicationID, _ offset: Int64) {
        let isFirst = machine?.processed == nil
        machine?.linkResynchronised(Position(history: history, offset: offset, database: 0))
        if !isFirst {
            logger.warning("The stream has a gap: every mapped key will be read")
        }
        begin()
    }

    private func begin() {
        logger.info("Following", metadata: ["server": "\(info?.name ?? "Redis")"])
        reason = nil
        acknowledged = -1
        hasStreamed = true
        isStreaming = true
        streamingSince = now
        hasReceived = false
        state = .streaming
        isHearingWanted = isListening
        sendAcknowledgement(isWanted: true)
        doorbell.ring()
    }

    func closed(_ error: RedisError) {
        linkError = error
    }

    /// Takes bytes of the stream; true when more may be read.
    func received(_ bytes: ByteBuffer) -> Bool {
        var bytes = bytes
        hasReceived = true
        if skipRemaining > 0 {
            let count = min(skipRemaining, bytes.readableBytes)
            bytes.moveReaderIndex(forwardBy: count)
            skipRemaining -= count
        }
        if pending.readableBytes == 0 {
            pending = bytes
        } else {
            pending.writeBuffer(&bytes)
        }
        return process()
    }

    /// Goes on with what has arrived, after it was held.
    func processHeld() {
        marksBell.ring()
        guard let link, link.isActive else { return }
        if process() { link.resume() }
    }

    /// Takes the commands that are complete; true when more bytes may be read.
    private func process() -> Bool {
        defer { doorbell.ring() }
        while machine?.isHolding == false {
            do throws(RESPError) {
                guard try takeCommand() else { break }
            } catch {
                logger.error("The stream is malformed", metadata: ["why": "\(error)"])
                link?.close()
                return false
            }
        }
        if lookAhead() { return process() }
        machine?.chunkReceived(now: now)
        sayFlushes()
        if pending.readableBytes == 0 { pending.clear() } else { pending.discardReadBytes() }
        if machine?.isAcknowledgementWanted == true { sendAcknowledgement(isWanted: true) }
        // While only a cause is wanted, more is read: what it is about may be still to come.
        let isWaiting = machine?.isWaitingForCauses == true && !isAheadFull
        return machine?.isHolding == false || isWaiting
    }

    // Whether no more of the stream is taken ahead of a cause.
    private var isAheadFull: Bool { pending.readableBytes >= Self.aheadBytesMax }

    /// Looks at the commands up to where key events are complete; true when all were looked at.
    private func lookAhead() -> Bool {
        guard let until = machine?.lookAheadUntil, let from = machine?.streamOffset else {
            return false
        }
        guard from + Int64(pending.readableBytes) >= until else {
            // What can't be looked at within the limit is in doubt, and goes on.
            if isAheadFull { machine?.lookAheadFailed() }
            return isAheadFull
        }
        var ahead = CommandDecoder(argumentBytesMax: Self.argumentBytesMax)
        let bytes = pending.readableBytesUInt8Span
        var taken = 0
        var offset = from
        while offset < until {
            let rest = bytes.extracting(taken...)
            guard case .command(let length)? = try? ahead.next(rest) else {
                machine?.lookAheadFailed()
                return true
            }
            taken += length
            // A bare line feed is no part of the stream.
            guard !ahead.arguments.isEmpty else { continue }
            machine?.lookAhead(rest, arguments: ahead.arguments)
            offset += Int64(length)
        }
        machine?.lookedAhead()
        return true
    }

    private func sayFlushes() {
        if let count = machine?.counters.unsaid, count > unsaidSaid {
            unsaidSaid = count
            logger.warning(
                "A command wrote that does not say which keys: every key is read again")
        }
        guard let count = machine?.counters.flushes, count > flushesSaid else { return }
        flushesSaid = count
        let others = mappings.filter { $0.removal.onFlush != .keep }.map(\.name)
        let names = others.joined(separator: ", ")
        logger.warning(
            """
            FLUSHALL or FLUSHDB: what was written before is settled, and rows stay unless on_flush \
            says otherwise
            """,
            metadata: others.isEmpty ? [:] : ["tables with on_flush": "\(names)"])
    }

    /// Takes as many whole commands as there are, up to some; false when more bytes are needed.
    private func takeCommand() throws(RESPError) -> Bool {
        var taken = 0
        var skip: (offset: Int, count: Int)?
        // A borrow of the buffer serves many commands; the hold is asked about in between.
        let bytes = pending.readableBytesUInt8Span
        var needsMore = false
        var isHeld = false
        while taken < bytes.count, machine?.isHolding == false {
            let rest = bytes.extracting(taken...)
            let step = try decoder.next(rest)
            switch step {
            case .command(let length):
                if !decoder.arguments.isEmpty,
                    machine?.receive(
                        rest, arguments: decoder.arguments, isOversized: decoder.isOversized,
                        length: length + decoder.skipped,
                    ) == false
                {
                    // It is decoded again when nothing holds any more.
                    isHeld = true
                    break
                }
                taken += length
            case .incomplete: needsMore = true
            case .skip(let offset, let count): skip = (offset, count)
            }
            if needsMore || skip != nil || isHeld { break }
        }
        pending.moveReaderIndex(forwardBy: taken)
        if let skip { drop(skip.count, at: skip.offset) }
        return !needsMore && !isHeld && pending.readableBytes > 0
    }

    /// Takes an argument that is too large out of the stream.
    private func drop(_ count: Int, at offset: Int) {
        let start = pending.readerIndex + offset
        let present = min(count, pending.writerIndex - start)
        var rest = ByteBuffer()
        if var head = pending.getSlice(at: pending.readerIndex, length: offset) {
            rest.writeBuffer(&head)
        }
        let end = start + present
        if var tail = pending.getSlice(at: end, length: pending.writerIndex - end) {
            rest.writeBuffer(&tail)
        }
        pending = rest
        skipRemaining = count - present
    }
}

/// Takes what a link reports to its pipeline, on the event loop that both run on.
final class LinkRelay: ReplicationLinkDelegate {
    private let pipeline: Pipeline

    init(pipeline: Pipeline) {
        self.pipeline = pipeline
    }

    func linkContinued(history: ReplicationID?) {
        pipeline.assumeIsolated { $0.continued(history) }
    }

    func linkResynchronised(history: ReplicationID, offset: Int64) {
        pipeline.assumeIsolated { $0.resynchronised(history, offset) }
    }

    func linkReceived(_ bytes: ByteBuffer) -> Bool {
        pipeline.assumeIsolated { $0.received(bytes) }
    }

    func linkClosed(_ error: RedisError) {
        pipeline.assumeIsolated { $0.closed(error) }
    }
}
