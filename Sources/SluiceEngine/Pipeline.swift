public import Logging
internal import NIOCore
public import NIOPosix
internal import RESPWire
public import ServiceLifecycle
public import SluiceCore
public import SluiceRedis

/// Carries out what a ``PipelineMachine`` decides, for one source and one sink.
///
/// The actor runs on an event loop, where the replication link's bytes arrive: so the one thread that
/// reads the stream parses it and owns the buffer, and nothing is locked or handed over per command.
public actor Pipeline: Service {
    /// The largest argument that is held; rows with a larger value are set aside.
    public static let argumentBytesMax = 64 << 20
    /// How long a flush waits for Redis to be reached.
    static let flushPatience = Duration.seconds(10)
    /// The most of the stream that is taken in while it is not known why a key went, in bytes.
    static let aheadBytesMax = 64 << 20

    let endpoint: RedisEndpoint
    /// The server that is followed now.
    var server: RedisEndpoint
    let sink: any Sink
    let mappings: [TableMapping]
    let policy: PipelinePolicy
    let logger: Logger
    let loop: any EventLoop
    let doorbell: Doorbell
    private let showBaseline: (@Sendable (BaselineProgress) -> Void)?
    private let start = ContinuousClock.now

    /// The Redis databases that tables are mapped from.
    var databases: Set<Int> { Set(mappings.map(\.database)) }

    var machine: PipelineMachine?
    var link: ReplicationLink?
    var reader: KeyReader?
    var keyEvents: KeyEvents?
    /// Whether key events are listened to, and whether the server publishes them.
    var isListening = false
    var isHearingWanted = false
    var hasKeyEvents = true
    let configuresRedis: Bool
    /// How the source says what changed.
    let capture: Capture
    let marksPolicy: MarksPolicy
    var marking = MarksState()
    /// When it was last heard what changed, in milliseconds of this process.
    var lastListened: Int64?
    /// The name that the database gave itself.
    var identity: String?
    /// Wakes the task that takes marks.
    let marksBell: Doorbell
    /// Whether one byte less is acknowledged while another replica is attached, and whether one is.
    private let holdsBack: Bool
    private var hasOtherReplica = true
    var info: ServerInfo?
    var state = PipelineStatus.State.opening
    var reason: String?
    /// Why Redis refuses to let rows be read, while it does.
    var readRefusal: String?
    var setAside: [String: Int] = [:]
    /// How many flushes of Redis the log has.
    var flushesSaid = 0
    /// How many commands it has that did not say which keys they write.
    var unsaidSaid = 0
    var isDraining = false
    /// Whether there may be dead letters that can be tried again.
    var hasLetters = false
    /// How long a dead letter waits for its first retry.
    let retryAfter: Duration
    /// What a person wants of a batch that waits: whether its rows are set aside.
    var resumption: Bool?
    var flushes: [Flush] = []
    /// Somebody who waits for a pass over rows without a key.
    var reconciler: CheckedContinuation<ReconcileOutcome, Never>?
    /// Somebody who compares the database with Redis at an exact offset.
    var comparison = ComparisonState()
    var pending = ByteBuffer()
    var decoder = CommandDecoder(argumentBytesMax: argumentBytesMax)
    var skipRemaining = 0
    var random = SystemRandomNumberGenerator()
    var linkError: RedisError?
    var acknowledged: Int64 = -1
    var hasStreamed = false
    /// Whether the link is past its handshake.
    var isStreaming = false
    var streamingSince = Duration.zero
    /// Whether anything of the stream has arrived since the handshake.
    var hasReceived = false

    /// Somebody who waits until the database has everything up to an offset.
    struct Flush {
        let offset: Int64
        let history: ReplicationID
        let continuation: CheckedContinuation<Bool, Never>
    }

    /// The event loop, on which the link's bytes arrive.
    nonisolated public var unownedExecutor: UnownedSerialExecutor {
        unsafe loop.executor.asUnownedSerialExecutor()
    }

    /// Creates a pipeline, which does nothing until ``run()``.
    ///
    /// - Parameters:
    ///   - endpoint: The server.
    ///   - sink: The database.
    ///   - mappings: The tables, in the file's order.
    ///   - policy: The limits.
    ///   - group: Where the event loop is taken from.
    ///   - capture: How the source says what changed.
    ///   - marksPolicy: How one that only names keys is followed.
    ///   - configuresRedis: Whether key events may be turned on at the server.
    ///   - holdsBack: Whether one byte less is acknowledged while another replica is attached.
    ///   - retryAfter: How long a dead letter waits for its first retry.
    ///   - showBaseline: Shows how a baseline goes on; without it, log lines do.
    ///   - logger: Where what happens is noted.
    public init(
        endpoint: RedisEndpoint, sink: any Sink, mappings: [TableMapping],
        policy: PipelinePolicy, group: MultiThreadedEventLoopGroup,
        capture: Capture = .replication, marksPolicy: MarksPolicy = MarksPolicy(),
        configuresRedis: Bool = true,
        holdsBack: Bool = false, retryAfter: Duration = .seconds(60),
        showBaseline: (@Sendable (BaselineProgress) -> Void)? = nil, logger: Logger,
    ) {
        self.endpoint = endpoint
        server = endpoint
        self.sink = sink
        self.mappings = mappings
        self.policy = policy
        self.logger = logger
        self.configuresRedis = configuresRedis
        self.capture = capture
        self.marksPolicy = marksPolicy
        self.holdsBack = holdsBack
        self.retryAfter = retryAfter
        self.showBaseline = showBaseline
        loop = group.next()
        doorbell = Doorbell(loop: loop)
        marksBell = Doorbell(loop: loop)
    }

    /// Settles rows until it is shut down gracefully, or until a failure that only a person can mend.
    public func run() async throws {
        try await withGracefulShutdownHandler {
            try await runUntilDrained()
        } onGracefulShutdown: {
            self.loop.execute { self.assumeIsolated { $0.drain() } }
        }
    }

    private func runUntilDrained() async throws {
        defer { failFlushes() }
        while !isDraining {
            guard let stored = try await openSink() else { break }
            do {
                try await follow(stored)
                break
            } catch let error as SinkError where error.response == .fenced {
                logger.warning("Starting again from the database", metadata: ["why": "\(error)"])
                machine = nil
                answerReconciler()
            }
        }
        link?.close()
        reader?.close()
        keyEvents?.close()
        marking.close()
        await sink.close()
    }

    /// Waits for some time, or until the task is cancelled.
    func pause(_ duration: Duration) async throws {
        let alarm = loop.scheduleTask(in: .nanoseconds(duration.nanoseconds)) {}
        try await withTaskCancellationHandler {
            try await alarm.futureResult.get()
        } onCancel: {
            alarm.cancel()
        }
        try Task.checkCancellation()
    }

    var now: Duration { start.duration(to: .now) }

    private func drain() {
        isDraining = true
        machine?.drain()
        marksBell.ring()
        doorbell.ring()
    }

    // MARK: Opening

    /// Opens the sink, as often as it takes; nil when it was shut down meanwhile.
    private func openSink() async throws -> StoredState? {
        var backoff = Backoff()
        while !isDraining {
            state = .opening
            do throws(SinkError) {
                let stored = try await sink.open()
                if backoff.failureCount > 0 { logger.info("The database is there") }
                reason = nil
                return stored
            } catch {
                guard error.response != .halt else { throw error }
                if backoff.failureCount == 0 {
                    logger.warning("Waiting for the database", metadata: ["why": "\(error)"])
                }
                reason = "\(error)"
                let pause = backoff.next(using: &random)
                // Who stands by looks more often than the one that writes is given time.
                let isStandby = error.code == SinkError.locked
                await doorbell.wait(atMost: isStandby ? min(pause, sink.renewal ?? pause) : pause)
            }
        }
        return nil
    }

    // MARK: Following

    private func follow(_ stored: StoredState) async throws {
        let machine = PipelineMachine(
            mappings: mappings, policy: policy, capture: capture, stored: stored,
            seed: random.next(),
        )
        self.machine = consume machine
        hasLetters = !stored.deadLetters.isEmpty
        identity = stored.identity
        failure = nil
        acknowledged = -1
        // Discarding: what a commit returns is not kept, however many there are.
        await withDiscardingTaskGroup { group in
            if capture.isExact {
                group.addTask { await self.keepLink() }
                group.addTask { await self.acknowledgeEachSecond() }
            } else {
                group.addTask { await self.keepMarks() }
            }
            group.addTask { await self.retryByAndBy() }
            group.addTask { await self.renewLease() }
            if endpoint.isSentinel { group.addTask { await self.watchMaster() } }
            do {
                try await self.act(in: &group)
            } catch {
                self.failure = self.failure ?? error
            }
            if isDraining { try? await self.clearSettled() }
            self.lose()
            group.cancelAll()
        }
        if let failure { throw failure }
    }

    private func act(in group: inout DiscardingTaskGroup) async throws {
        while true {
            try Task.checkCancellation()
            if let error = failure { throw error }
            if isHearingWanted {
                isHearingWanted = false
                group.addTask { await self.hear() }
            }
            answerReconciler()
            answerComparison()
            guard let action = machine?.next(now: now) else { return }
            switch action {
            case .commit(let batch):
                group.addTask { await self.commit(batch) }
                // What the buffer had no room for goes into the next.
                processHeld()
            case .read(let items): group.addTask { await self.read(items) }
            case .scan(let database, let cursor, let match, let count):
                group.addTask { await self.scan(database, cursor, match, count) }
            case .sweep(let table, let after, let limit):
                group.addTask { await self.sweep(table, after, limit) }
            case .askCauses:
                group.addTask { [capture] in
                    await capture.isExact ? self.askCauses() : self.askVerdicts()
                }
            case .finish:
                sendAcknowledgement(isWanted: true)
                link?.close()
                return
            case .wait(let deadline):
                if machine?.isStreamWanted == true {
                    machine?.isStreamWanted = false
                    processHeld()
                }
                showProgress()
                await doorbell.wait(atMost: deadline.map { $0 - now })
            }
        }
    }

    /// A failure that ends following; noted by the tasks, thrown by the loop.
    var failure: (any Error)? {
        didSet { doorbell.ring() }
    }

    var progressShown: Duration = .zero

    /// Says how a baseline goes on, every few seconds.
    private func showProgress() {
        guard let counters = machine?.counters, machine?.isBaselineRunning == true else {
            if state == .baseline {
                state = .streaming
                showBaseline?(BaselineProgress(read: 0, keys: 0, isDone: true))
            }
            return
        }
        if state == .streaming {
            state = .baseline
            progressShown = now
            logger.info("Baseline: reading every mapped key")
        }
        let pause: Duration = showBaseline == nil ? .seconds(2) : .milliseconds(100)
        guard now - progressShown >= pause else { return }
        progressShown = now
        if let showBaseline {
            let keys = databases.reduce(0) { $0 + (info?.keyCount($1) ?? 0) }
            return showBaseline(
                BaselineProgress(read: counters.baselineReads, keys: keys, isDone: false))
        }
        logger.info(
            "Baseline",
            metadata: ["read": "\(counters.baselineReads)", "rows": "\(counters.rows)"])
    }

    // MARK: Acknowledging

    private func acknowledgeEachSecond() async {
        while !Task.isCancelled {
            await countReplicas()
            sendAcknowledgement(isWanted: true)
            doorbell.ring()
            // A server begins to send only at the first acknowledgement after it has cleaned up.
            let isBeginning = isStreaming && !hasReceived && now - streamingSince < .seconds(3)
            try? await pause(isBeginning ? .milliseconds(50) : .seconds(1))
        }
        // Whoever cancels this wants the loop to notice.
        doorbell.ring()
    }

    // Redis fails over to a replica that has acknowledged everything: to one that is none, too.
    private func countReplicas() async {
        guard holdsBack, isStreaming, let reader, reader.isActive else { return }
        hasOtherReplica = (try? await reader.info()).map { $0.replicaCount > 1 } ?? true
    }

    /// Tells Redis what the database has, if that is more than before or asked for.
    func sendAcknowledgement(isWanted: Bool) {
        guard machine != nil else { return }
        let settled = machine?.settledOffset() ?? nil
        let offset = settled ?? 0
        // Not before the stream flows: an offset of another history would stay at the server, which
        // keeps the highest, and each acknowledgement puts off the snapshot that it waits to send.
        if offset > acknowledged || isWanted, isStreaming, let link, link.isActive {
            // What Redis appends for a WAIT makes up for the byte; a write without one is late by it.
            let isShort = holdsBack && hasOtherReplica && offset > 0
            link.acknowledge(isShort ? offset - 1 : offset, includesAOF: info?.hasFACK ?? false)
            acknowledged = offset
        }
        machine?.isAcknowledgementWanted = false
        answerFlushes(settled)
    }

    /// Answers those who wait for an offset; in another history it will never come.
    private func answerFlushes(_ offset: Int64?) {
        guard isStreaming, let history = machine?.processed?.history else { return }
        let waiting = flushes
        flushes = []
        for flush in waiting {
            if flush.history != history {
                flush.continuation.resume(returning: false)
            } else if let offset, flush.offset <= offset {
                flush.continuation.resume(returning: true)
            } else {
                flushes.append(flush)
            }
        }
    }

    private func failFlushes() {
        for flush in flushes { flush.continuation.resume(returning: false) }
        flushes = []
        machine?.abandonReconciliation()
        answerReconciler()
        refuseComparison()
    }
}
