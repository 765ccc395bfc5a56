internal import Logging
internal import NIOCore
internal import SluiceCore
internal import SluiceRedis

/// How a source that only names the keys which changed is followed.
public struct MarksPolicy: Hashable, Sendable {
    /// A name of the database that the rows go to: two Sluices with different ones would take each
    /// other's marks.
    public var target: String
    /// How often every key is read anew, because tracking can't say everything.
    public var auditInterval: Duration

    /// Creates a policy.
    public init(target: String = "", auditInterval: Duration = .seconds(21_600)) {
        self.target = target
        self.auditInterval = auditInterval
    }
}

/// What is known of a source that only names the keys which changed.
struct MarksState {
    var set: MarkSet?
    var tracking: TrackingLink?
    var ledger = MarkLedger()
    /// When events of keys that went by themselves began to be complete, in the marks' milliseconds.
    var reliableSince: Int64?
    /// Events that were heard and not handed over yet.
    var events: [KeyEvent] = []
    /// Rounds that were begun and ended, to tell those who wait for one.
    var begun = 0
    var ended = 0
    var isWanted = false
    var auditAt = Duration.zero
    /// How many marks wait in Redis, as far as is known.
    var waiting = 0

    func close() {
        set?.close()
        tracking?.close()
    }
}

extension Pipeline {
    /// Keeps connections to the server and takes its marks, as often as they break.
    func keepMarks() async {
        var backoff = Backoff()
        var isFirst = true
        while !Task.isCancelled {
            var error: RedisError
            do throws(RedisError) {
                try await beginMarks()
                isFirst = false
                backoff.reset()
                try await takeMarks()
                // Only a stop ends it without a failure.
                return
            } catch let refusal {
                error = refusal
            }
            lose()
            if Task.isCancelled { return }
            if error.response == .halt, isFirst { return failure = error }
            if backoff.failureCount == 0, !isDraining {
                logger.warning("Waiting for Redis", metadata: ["why": "\(error)"])
            }
            reason = "\(error)"
            state = .connecting
            try? await pause(backoff.next(using: &random))
        }
    }

    // MARK: Connecting

    private func beginMarks() async throws(RedisError) {
        if state != .halted { state = .connecting }
        server = try await endpoint.resolved(on: loop)
        let reader = try await KeyReader.connect(to: server, on: loop, isExact: false)
        self.reader = reader
        let info = try await reader.info()
        if endpoint.isSentinel, info.isReplica {
            throw RedisError(.retry, "\(server.address) is no master yet, or no more")
        }
        if let refusal = info.refusal(capture) { throw refusal }
        guard let run = info.runID else {
            throw RedisError(
                .halt, "INFO does not say run_id, so that a restart of Redis can't be seen",
                hint: "allow INFO to this user: ACL SETUSER … +info")
        }
        self.info = info
        machine?.learn(
            [], mayFieldsExpire: info.knowsFieldDeadlines && info.hasAnyFieldDeadlines)
        marking.ledger = MarkLedger()
        marking.reliableSince = nil
        marking.events = []
        lastListened = nil
        await listenForCauses(isOld: info.isOld)
        let history = ReplicationID(run)
        switch capture {
        case .replication: preconditionFailure("a stream has no marks")
        case .dirtySet:
            try await claim(info)
            machine?.marksBegin(history: history, continues: true)
        case .tracking:
            let prefixes = TrackingLink.prefixes(mappings)
            marking.tracking = try await TrackingLink.connect(
                to: server, prefixes: prefixes, on: loop)
            // What changed before, nobody says.
            machine?.marksBegin(history: history, continues: false)
        }
        logger.info("Following", metadata: ["server": "\(info.name)", "capture": "\(capture)"])
        reason = nil
        isStreaming = true
        state = .streaming
        marking.auditAt = now + marksPolicy.auditInterval
        doorbell.ring()
    }

    private func claim(_ info: ServerInfo) async throws(RedisError) {
        if let refusal = info.markEvictionRefusal { throw refusal }
        let set = try await MarkSet.connect(to: server, on: loop)
        marking.set = set
        await loadFunctions(info)
        let epoch = machine?.committed.epoch ?? 0
        for database in databases.sorted() {
            try await set.claim(epoch: epoch, target: marksPolicy.target, in: database)
        }
    }

    // Applications that mark by MULTI need no functions.
    private func loadFunctions(_ info: ServerInfo) async {
        guard configuresRedis,
            let outcome = try? await MarkFunctions.load(to: server, on: loop, isOld: info.isOld)
        else { return }
        switch outcome {
        case .present: break
        case .loaded: logger.info("Loaded the functions that mark writes")
        case .script(let digest):
            logger.info("Loaded the script that marks writes", metadata: ["sha1": "\(digest)"])
        case .refused(let why):
            logger.info(
                "The functions that mark writes can't be loaded; MULTI marks as well",
                metadata: ["why": "\(why)"])
        }
    }

    private func listenForCauses(isOld: Bool) async {
        keyEvents?.close()
        keyEvents = nil
        isListening = false
        guard PipelineMachine.needsCauses(mappings) else { return }
        do throws(RedisError) {
            let events = try await KeyEvents.connect(to: server, on: loop, isOld: isOld)
            keyEvents = events
            isListening = true
            // Where settings may not be asked for, events may come all the same.
            if configuresRedis, let flags = try? await events.configure() {
                logger.info(
                    "Turned on key events, which say why keys go",
                    metadata: ["notify-keyspace-events": "\(flags)"])
            }
        } catch {
            keyEvents?.close()
            keyEvents = nil
            isListening = false
            logger.info(
                "Can't learn why keys go: on_missing decides", metadata: ["why": "\(error)"])
        }
    }

    // MARK: Rounds

    private func takeMarks() async throws(RedisError) {
        var next = now
        while !Task.isCancelled, !isDraining {
            guard reader?.isActive == true else {
                throw RedisError(.retry, "the connection to Redis was lost")
            }
            while next > now, !marking.isWanted, !isDraining, reader?.isActive == true {
                await marksBell.wait(atMost: next - now)
            }
            marking.isWanted = false
            next = now + policy.interval
            marking.begun += 1
            let round = marking.begun
            try await takeRound()
            marking.ended = round
            machine?.requestCut()
            sendAcknowledgement(isWanted: false)
            doorbell.ring()
        }
        // What is on its way is settled by the stop; its marks go now or at the next start.
        while !Task.isCancelled, machine?.isSettled != true {
            await marksBell.wait(atMost: .milliseconds(20))
        }
        if capture == .dirtySet { try await clearSettled() }
    }

    /// Takes everything that is marked at this time.
    private func takeRound() async throws(RedisError) {
        try await hearCauses()
        switch capture {
        case .replication: return
        case .dirtySet: for database in databases.sorted() { try await takeAll(in: database) }
        case .tracking: try await takeTracked()
        }
    }

    private func takeAll(in database: Int) async throws(RedisError) {
        guard let set = marking.set else { return }
        var started: Int64?
        while !Task.isCancelled, !isDraining {
            await waitForRoom()
            if isDraining || Task.isCancelled { return }
            let epoch = machine?.committed.epoch ?? 0
            let settled = settledMarks(in: database)
            let answer = try await set.take(
                epoch: epoch, settled: settled, count: MarkSet.takeMax, in: database)
            if isListening, marking.reliableSince == .min { marking.reliableSince = answer.time }
            let isEnd =
                answer.marks.count < MarkSet.takeMax
                || answer.marks.last?.since ?? .max > started ?? answer.time
            started = started ?? answer.time
            // The machine may have begun to read meanwhile.
            await waitUntilFree()
            let oldest = answer.marks.first?.since ?? answer.time
            let age = Duration.milliseconds(max(0, answer.time - oldest))
            guard let offset = hand(over: answer.marks, age: age) else { return }
            marking.ledger.taken(answer.marks, at: offset)
            marking.waiting = isEnd ? 0 : MarkSet.takeMax
            if isEnd { return }
            machine?.requestCut()
            doorbell.ring()
        }
    }

    private func takeTracked() async throws(RedisError) {
        guard let tracking = marking.tracking else { return }
        await waitForRoom()
        if isDraining || Task.isCancelled { return }
        let start = Int64(now.seconds * 1_000)
        let answer = try await tracking.listen()
        if isListening, marking.reliableSince == .min { marking.reliableSince = start }
        let isAudit = now >= marking.auditAt
        if answer.isGap || isAudit, let history = machine?.processed?.history {
            marking.auditAt = now + marksPolicy.auditInterval
            logger.info(
                "Every mapped key is read",
                metadata: [
                    "why": isAudit ? "tracking.audit_interval" : "more changed than is named"
                ])
            await waitUntilFree()
            machine?.marksMissed(history: history)
            doorbell.ring()
            return
        }
        let since = lastListened
        lastListened = start
        let marks = answer.keys.flatMap { key in
            databases.map { Mark(key: key, database: $0, since: since) }
        }
        var rest = marks[...]
        repeat {
            await waitForRoom()
            if isDraining || Task.isCancelled { return }
            _ = hand(over: Array(rest.prefix(MarkSet.takeMax)), age: .zero)
            rest = rest.dropFirst(MarkSet.takeMax)
            machine?.requestCut()
            doorbell.ring()
        } while !rest.isEmpty
    }

    // Gives marks, and events that were heard, to the machine; nil when it holds for good.
    private func hand(over marks: [Mark], age: Duration) -> Int64? {
        guard machine?.isHolding == false else { return nil }
        let events = marking.events
        marking.events = []
        return machine?.receive(marks, events, age: age, now: now)
    }

    // As many rows wait as one batch holds, or the buffer is full, or something is read.
    private func waitForRoom() async {
        while !Task.isCancelled, !isDraining, let isHolding = machine?.isHolding,
            isHolding
                || (machine?.dirtyCount ?? 0) + (machine?.opaqueCount ?? 0) >= policy.rowsMax
        {
            doorbell.ring()
            await marksBell.wait(atMost: .milliseconds(100))
        }
    }

    private func waitUntilFree() async {
        while !Task.isCancelled, !isDraining, machine?.isHolding == true {
            await marksBell.wait(atMost: .milliseconds(100))
        }
    }

    private func settledMarks(in database: Int) -> [Bytes] {
        guard let offset = machine?.settledOffset() ?? nil else { return [] }
        return marking.ledger.settled(upTo: offset, in: database, limit: MarkSet.takeMax)
    }

    private func clearSettled() async throws(RedisError) {
        guard let set = marking.set, set.isActive else { return }
        let epoch = machine?.committed.epoch ?? 0
        for database in databases.sorted() {
            while true {
                let settled = settledMarks(in: database)
                if settled.isEmpty { break }
                _ = try await set.take(epoch: epoch, settled: settled, count: 0, in: database)
            }
        }
    }

    // MARK: Causes

    /// Collects the events of keys that went by themselves.
    private func hearCauses() async throws(RedisError) {
        guard isListening, let keyEvents else { return }
        do throws(RedisError) {
            note(try await keyEvents.barrier())
        } catch {
            guard error.response == .retry else { return isListening = false }
            // What happens until it is renewed, nobody says.
            marking.reliableSince = nil
            throw error
        }
    }

    private func note(_ answer: KeyEvents.Answer) {
        marking.events += answer.events
        if !answer.isReliable || !answer.isUndisturbed {
            marking.reliableSince = nil
        } else if marking.reliableSince == nil {
            // The time is that of the next round.
            marking.reliableSince = .min
        }
    }

    /// Asks why keys went that were read missing.
    func askVerdicts() async {
        var events: [KeyEvent] = []
        if isListening, let answer = try? await keyEvents?.barrier() {
            note(answer)
            events = marking.events
            marking.events = []
        } else {
            marking.reliableSince = nil
        }
        let since = marking.reliableSince == .min ? nil : marking.reliableSince
        machine?.causesAnswered(events, reliableSince: since)
        marksBell.ring()
        doorbell.ring()
    }

    // MARK: Streams

    /// The items of a read, with what the database has of their streams.
    func afterLastEntries(_ items: [ReadItem]) async throws(SinkError) -> [ReadItem] {
        let wanted = machine?.streamsToFind ?? []
        guard !wanted.isEmpty else { return items }
        var last = [Bytes?](repeating: nil, count: wanted.count)
        for (table, places) in Dictionary(grouping: wanted.indices, by: { wanted[$0].table }) {
            let keys = places.map { wanted[$0].key }
            let found = try await sink.lastEntries(table: table, keys: keys)
            for (place, id) in zip(places, found) { last[place] = id }
        }
        return machine?.streamsFound(last) ?? items
    }

    // MARK: Flushing

    /// Has everything taken that is marked now, and says at which offset it is.
    func roundForFlush() async -> (offset: Int64, history: ReplicationID)? {
        guard isStreaming else { return nil }
        let wanted = marking.begun + 1
        marking.isWanted = true
        marksBell.ring()
        while marking.ended < wanted {
            guard isStreaming, !isDraining, !Task.isCancelled else { return nil }
            try? await pause(.milliseconds(5))
        }
        guard let processed = machine?.processed else { return nil }
        return (processed.offset, processed.history)
    }
}
