internal import Foundation
internal import GRDB
internal import NIOPosix
public import SluiceCore
internal import SluiceSQL

/// Settles rows in a SQLite file.
///
/// The file is in WAL mode with `synchronous = FULL`, so a commit survives a power cut. A lock on a
/// file beside it (`NAME-sluice`) says who writes.
public actor SQLiteSink: Sink {
    /// How long a statement waits for another program's lock on the database.
    private static let busyMax: TimeInterval = 5

    private let path: String
    private let source: String
    private let mappings: [TableMapping]
    private let createsTables: Bool
    private let retryAfter: Duration
    private let pool = NIOThreadPool(numberOfThreads: 1)
    private var session: SQLiteSession?
    private var lock: FileLock?

    /// Creates a sink, which does nothing until it is opened.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - source: The name under which the position is stored.
    ///   - mappings: The tables, in the file's order.
    ///   - createsTables: Whether tables that are missing are made.
    public init(
        path: String, source: String, mappings: [TableMapping], createsTables: Bool,
        retryAfter: Duration = .seconds(60),
    ) {
        self.path = path
        self.source = source
        self.mappings = mappings
        self.createsTables = createsTables
        self.retryAfter = retryAfter
        pool.start()
    }

    /// Makes or checks the tables, and becomes the writer.
    public func open() async throws(SinkError) -> StoredState {
        session = nil
        if lock == nil { lock = try FileLock(path: path + "-sluice") }
        let (path, source, mappings, creates) = (path, source, mappings, createsTables)
        let retryAfter = retryAfter
        let opened = try await run { () throws(SinkError) in
            let session = try SQLiteSession(
                path: path, source: source, mappings: mappings, retryAfter: retryAfter)
            return (session, try session.prepare(createsTables: creates))
        }
        session = opened.0
        return opened.1
    }

    /// Commits a batch.
    public func apply(_ batch: Batch) async throws(SinkError) -> BatchOutcome {
        let session = try current()
        return try await run { () throws(SinkError) in try session.apply(batch) }
    }

    /// The identities of a page of rows, in the order of their primary key.
    public func page(
        table: Int, after: RowIdentity?, limit: Int,
    ) async throws(SinkError) -> [RowIdentity] {
        let session = try current()
        return try await run { () throws(SinkError) in
            try session.page(table: table, after: after, limit: limit)
        }
    }

    /// Those of some rows that outlived their keys.
    public func outlived(
        _ rows: [RowIdentity], table: Int,
    ) async throws(SinkError) -> [RowIdentity: Kept] {
        let session = try current()
        return try await run { () throws(SinkError) in try session.outlived(rows, table: table) }
    }

    /// The last entries that the table of a stream has, one for each key.
    public func lastEntries(
        table: Int, keys: [Bytes],
    ) async throws(SinkError) -> [Bytes?] {
        let session = try current()
        return try await run { () throws(SinkError) in
            try session.lastEntries(table: table, keys: keys)
        }
    }

    /// Tries to write rows that were set aside.
    public func retry(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) async throws(SinkError) -> LetterOutcome {
        let session = try current()
        return try await run { () throws(SinkError) in try session.retry(choice, at: checkpoint) }
    }

    /// Forgets the values of rows that were set aside.
    public func discard(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) async throws(SinkError) -> Int {
        let session = try current()
        return try await run { () throws(SinkError) in try session.discard(choice, at: checkpoint) }
    }

    /// Lets another instance write, and closes the connection.
    public func close() async {
        session = nil
        lock = nil
        try? await pool.shutdownGracefully()
    }

    private func current() throws(SinkError) -> SQLiteSession {
        guard let session else {
            throw SinkError(.fenced, code: "sink.closed", "the database is not open")
        }
        return session
    }

    /// Runs blocking work on the sink's own thread.
    private func run<Value: Sendable>(
        _ work: @escaping @Sendable () throws(SinkError) -> Value,
    ) async throws(SinkError) -> Value {
        do {
            return try await pool.runIfActive(work)
        } catch let error as SinkError {
            throw error
        } catch {
            throw SinkError(.fenced, code: "sink.closed", "the sink was closed: \(error)")
        }
    }
}

/// A lock that the kernel gives back when the process ends, however it ends.
final class FileLock: Sendable {
    private let descriptor: Int32

    init(path: String) throws(SinkError) {
        descriptor = unsafe Foundation.open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw SinkError(
                .halt, code: "sqlite.open", "can't write beside the database: \(path)",
                hint: "does the folder exist, and may this user write in it?",
            )
        }
        // All is set by now: when this throws, deinit closes the file.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw SinkError(
                .retry, code: "sink.locked", "another instance writes to this database",
                hint: "this one takes over when the other ends",
            )
        }
    }

    deinit { Foundation.close(descriptor) }
}
