internal import Logging
internal import NIOCore
internal import SluiceCore
internal import SluiceRedis

/// How a source that only names the keys which changed is followed.
public struct MarksPolicy: Hashable, Sendable {
    /// How often every key is read anew, because tracking can't say everything.
    public var auditInterval: Duration

    /// Creates a policy.
    public init(auditInterval: Duration = .seconds(21_600)) {
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
    /// Marks of keys that no table maps, to be cleared with the next step, by database.
    var unmapped: [Int: [Bytes]] = [:]
    /// Whether every key is to be read once the baseline under way has ended.
    var isGapWanted = false
    /// When the server is to be shown next that marks are still taken.
    var signAt = Duration.zero

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
        marking.unmapped = [:]
        marking.isGapWanted = false
        lastListened = nil
        await listenForCauses(isOld: info.isOld)
        let history = ReplicationID(run)
        switch capture {
        case .replication: preconditionFailure("a stream has no marks")
        case .dirtySet:
            let continues = try await claim(info)
            machine?.marksBegin(history: history, continues: continues)
        case .tracking:
            let prefixes = TrackingLink.prefixes(mappings)
            marking.tracking = try await TrackingLink.connect(
                to: server, prefixes: prefixes, on: loop)
            // What changed before, nobody says.
            // Its histories are not those of a dirty set.
            machine?.marksBegin(history: ReplicationID("tracking-" + run), continues: false)
        }
        logger.info("Following", metadata: ["server": "\(info.name)", "capture": "\(capture)"])
        reason = nil
        isStreaming = true
        state = .streaming
        marking.auditAt = now + marksPolicy.auditInterval
        doorbell.ring()
    }

    /// Becomes the one that takes marks; true when none was cleared that the database has not.
    private func claim(_ info: ServerInfo) async throws(RedisError) -> Bool {
        if let refusal = info.markEvictionRefusal { throw refusal }
        let set = try await MarkSet.connect(to: server, on: loop)
        marking.set = set
        await loadFunctions(info)
        let committed = machine?.committed
        var continues = true
        for database in databases.sorted() {
            let claim = try await set.claim(
                epoch: committed?.epoch ?? 0, target: target, in: database)
            let isMine = claim.target == target && claim.sequence <= committed?.sequence ?? -1
            continues = continues && isMine
        }
        return continues
    }

    // The database's own name: who writes to another must not take the same marks.
    private var target: String { identity ?? "" }

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

    func listenForCauses(isOld: Bool) async {
        keyEvents?.close()
        keyEvents = nil
        isListening = false
        guard mappings.contains(where: \.wantsEvents) else { return }
        do throws(RedisError) {
            let events = try await KeyEvents.connect(
                to: server, on: loop, isOld: isOld, mappings: mappings)
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
            try await waitForRound(at: next)
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
        // What is on its way is read and settled by the stop, which also clears its marks.
        while !Task.isCancelled { await marksBell.wait(atMost: .seconds(1)) }
    }

    /// How often a server is asked whether it is there, and told that marks are still taken.
    private static let signOfLife = Duration.seconds(5)

    private func waitForRound(at time: Duration) async throws(RedisError) {
        while time > now, !marking.isWanted, !isDraining, reader?.isActive == true {
            await marksBell.wait(atMost: min(time - now, .seconds(1)))
            try await showSign()
        }
    }

    private func showSign() async throws(RedisError) {
        guard now >= marking.signAt else { return }
        marking.signAt = now + Self.signOfLife
        try await marking.tracking?.ping()
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
        var taken = 0
        var total: Int?
        while !Task.isCancelled, !isDraining {
            try await waitForRoom()
            if isDraining || Task.isCancelled { return }
            let answer = try await set.take(
                settled: settledMarks(in: database), sequence: machine?.committed.sequence ?? 0,
                count: MarkSet.takeMax, in: database)
            if isListening, marking.reliableSince == .min { marking.reliableSince = answer.time }
            taken += answer.marks.count
            total = total ?? answer.marks.count + answer.waiting
            // What was marked since the round began may be taken before marks of a clock that is ahead.
            let isEnd = answer.marks.count < MarkSet.takeMax || taken >= 2 * (total ?? 0)
            // The machine may have begun to read meanwhile.
            await waitUntilFree()
            let oldest = answer.marks.first?.since ?? answer.time
            let age = Duration.milliseconds(answer.time - oldest)
            let mine = answer.marks.filter { machine?.isMapped($0) == true }
            guard let offset = hand(over: mine, age: age) else {
                // What they stand for was not read: no earlier round clears them.
                return marking.ledger.forget(answer.marks)
            }
            marking.ledger.taken(mine, at: offset)
            marking.unmapped[database, default: []] += answer.marks
                .filter { machine?.isMapped($0) != true }.map(\.key)
            if isEnd { return }
            machine?.requestCut()
            doorbell.ring()
        }
    }

    private func takeTracked() async throws(RedisError) {
        guard let tracking = marking.tracking else { return }
        try await waitForRoom()
        if isDraining || Task.isCancelled { return }
        let start = Int64(now.seconds * 1_000)
        // A server that became a replica goes on naming keys.
        try await reader?.expectMaster()
        let answer = try await tracking.listen()
        if isListening, marking.reliableSince == .min { marking.reliableSince = start }
        marking.isGapWanted = marking.isGapWanted || answer.isGap
        // One after the other: a baseline that always begins anew never ends.
        let isBusy = machine?.isBaselineRunning == true
        if isBusy { marking.auditAt = now + marksPolicy.auditInterval }
        let isAudit = now >= marking.auditAt
        if !isBusy, marking.isGapWanted || isAudit, let history = machine?.processed?.history {
            marking.auditAt = now + marksPolicy.auditInterval
            marking.isGapWanted = false
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
            try await waitForRoom()
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
    private func waitForRoom() async throws(RedisError) {
        while !Task.isCancelled, !isDraining, let isHolding = machine?.isHolding,
            isHolding
                || (machine?.dirtyCount ?? 0) + (machine?.opaqueCount ?? 0) >= policy.rowsMax
        {
            doorbell.ring()
            await marksBell.wait(atMost: .milliseconds(100))
            // While the database is away, too.
            try await showSign()
        }
    }

    private func waitUntilFree() async {
        while !Task.isCancelled, !isDraining, machine?.isHolding == true {
            await marksBell.wait(atMost: .milliseconds(100))
        }
    }

    private func settledMarks(in database: Int) -> [Bytes] {
        let unmapped = marking.unmapped.removeValue(forKey: database) ?? []
        guard let offset = machine?.settledOffset() ?? nil else { return unmapped }
        return unmapped
            + marking.ledger.settled(upTo: offset, in: database, limit: MarkSet.takeMax)
    }

    /// Clears the marks of everything that the database has, and shows that this instance lives.
    func clearSettled() async throws(RedisError) {
        guard let set = marking.set, set.isActive else { return }
        marking.signAt = now + Self.signOfLife
        for database in databases.sorted() {
            var settled: [Bytes]
            repeat {
                settled = settledMarks(in: database)
                _ = try await set.take(
                    settled: settled, sequence: machine?.committed.sequence ?? 0, count: 0,
                    in: database)
            } while !settled.isEmpty
        }
    }
}
