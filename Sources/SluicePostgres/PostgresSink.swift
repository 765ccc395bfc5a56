internal import NIOPosix
public import SluiceCore

/// Settles rows in PostgreSQL.
///
/// An advisory lock of the session says who writes, and the epoch in `sluice_position` stops whoever
/// writes without it. A session that the server has not heard of for a lease's time is ended by who
/// waits for its lock, so that a process that hangs, or a connection of which one end is gone, holds
/// nobody up. A connection that was lost is made anew by the next call; whether a commit had arrived is
/// read from the position then.
public actor PostgresSink: Sink {
    private let url: String
    private let source: String
    private let mappings: [TableMapping]
    private let createsTables: Bool
    private let retryAfter: Duration
    private let lease: Duration
    private let statementLimit: Duration
    private let pool = NIOThreadPool(numberOfThreads: 1)
    private let state: SessionBox

    // Touched only on the one thread of the pool.
    private final class SessionBox: @unchecked Sendable {
        var session: PostgresSession?
        /// The epoch that was taken last; another one means that somebody else writes.
        var epoch: Int64?
        /// How long a statement may take.
        var statementLimit: Duration

        init(statementLimit: Duration) { self.statementLimit = statementLimit }

        /// Gives statements more time, because one that took too long would do so for ever.
        func lengthen(to limit: Duration, _ error: SinkError) -> SinkError {
            let old = statementLimit
            statementLimit = limit
            return SinkError(
                error.response, code: error.code, error.message,
                hint:
                    "no statement may take longer than \(old); the next attempt is given \(limit). Does "
                    + "another session hold a lock, or a trigger take long?")
        }
    }

    /// How often the server is to hear of this instance.
    nonisolated public var renewal: Duration? { lease / 3 }

    /// Creates a sink, which does nothing until it is opened.
    ///
    /// - Parameters:
    ///   - url: The address, as libpq takes it.
    ///   - source: The name under which the position is stored.
    ///   - mappings: The tables, in the file's order.
    ///   - createsTables: Whether tables that are missing are made.
    ///   - retryAfter: How long a dead letter waits for its first retry.
    ///   - lease: How long an instance that is not heard of keeps others from writing.
    ///   - statementLimit: How long a statement may take at first. One that took longer is given twice as
    ///     long when it is tried again, up to 16 times this limit.
    public init(
        url: String, source: String, mappings: [TableMapping], createsTables: Bool,
        retryAfter: Duration = .seconds(60), lease: Duration = .seconds(10),
        statementLimit: Duration = .seconds(55),
    ) {
        self.url = url
        self.source = source
        self.mappings = mappings
        self.createsTables = createsTables
        self.retryAfter = retryAfter
        self.lease = lease
        self.statementLimit = statementLimit
        state = SessionBox(statementLimit: statementLimit)
        pool.start()
    }

    /// Makes or checks the tables, and becomes the writer.
    public func open() async throws(SinkError) -> StoredState {
        let (creates, state) = (createsTables, state)
        _ = try? await pool.runIfActive { state.epoch = nil }
        return try await run { session throws(SinkError) in
            let stored = try session.prepare(createsTables: creates)
            state.epoch = stored.checkpoint.epoch
            return stored
        }
    }

    /// Lets the server hear of this instance.
    public func renew() async throws(SinkError) {
        try await run { session throws(SinkError) in try session.renew() }
    }

    /// Commits a batch.
    public func apply(_ batch: Batch) async throws(SinkError) -> BatchOutcome {
        let (state, limit) = (state, statementLimit)
        return try await run { session throws(SinkError) in
            let outcome = try session.apply(batch)
            // For the next session. What needed no time says nothing of a batch that did.
            state.statementLimit = max(limit, state.statementLimit / 2)
            return outcome
        }
    }

    /// The identities of a page of rows, in the order of their primary key.
    public func page(
        table: Int, after: RowIdentity?, limit: Int,
    ) async throws(SinkError) -> [RowIdentity] {
        try await run { session throws(SinkError) in
            try session.page(table: table, after: after, limit: limit)
        }
    }

    /// Those of some rows that outlived their keys.
    public func outlived(
        _ rows: [RowIdentity], table: Int,
    ) async throws(SinkError) -> [RowIdentity: Kept] {
        try await run { session throws(SinkError) in try session.outlived(rows, table: table) }
    }

    /// The last entries that the table of a stream has, one for each key.
    public func lastEntries(
        table: Int, keys: [Bytes],
    ) async throws(SinkError) -> [Bytes?] {
        try await run { session throws(SinkError) in
            try session.lastEntries(table: table, keys: keys)
        }
    }

    /// Tries to write rows that were set aside.
    public func retry(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) async throws(SinkError) -> LetterOutcome {
        try await run { session throws(SinkError) in try session.retry(choice, at: checkpoint) }
    }

    /// Forgets the values of rows that were set aside.
    public func discard(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) async throws(SinkError) -> Int {
        try await run { session throws(SinkError) in try session.discard(choice, at: checkpoint) }
    }

    /// Lets another instance write, and closes the connection.
    public func close() async {
        _ = try? await pool.runIfActive { [state] in
            state.session?.release()
            state.session = nil
        }
        try? await pool.shutdownGracefully()
    }

    /// Runs blocking work on the sink's own thread, with a connection that stands.
    private func run<Value: Sendable>(
        _ work: @escaping @Sendable (PostgresSession) throws(SinkError) -> Value,
    ) async throws(SinkError) -> Value {
        let (url, source, mappings, state) = (url, source, mappings, state)
        let (retryAfter, lease, limit) = (retryAfter, lease, statementLimit)
        do {
            return try await pool.runIfActive {
                let session =
                    try state.session
                    ?? PostgresSession(
                        url: url, source: source, mappings: mappings, retryAfter: retryAfter,
                        lease: lease, epoch: state.epoch, statementLimit: state.statementLimit)
                state.session = session
                do throws(SinkError) {
                    return try work(session)
                } catch {
                    // After a failure nobody knows what state the connection is in.
                    state.session = nil
                    guard error.code == PostgresCodes.cancelled else { throw error }
                    let limit = min(state.statementLimit * 2, limit * 16)
                    throw state.lengthen(to: limit, error)
                }
            }
        } catch let error as SinkError {
            throw error
        } catch {
            throw SinkError(.fenced, code: "sink.closed", "the sink was closed: \(error)")
        }
    }
}
