/// What a database remembers of a source, and what an instance starts from.
public struct StoredState: Sendable {
    /// The last commit, with the epoch that this instance has taken.
    public let checkpoint: Checkpoint
    /// Rows that must be read before the first commit.
    public let loose: [LooseRow]
    /// Rows that were set aside.
    public let deadLetters: [DeadLetter]
    /// A name that the database gave itself when the source was first written to.
    public let identity: String

    /// Creates a state.
    public init(
        checkpoint: Checkpoint, loose: [LooseRow] = [], deadLetters: [DeadLetter] = [],
        identity: String = "",
    ) {
        self.identity = identity
        self.checkpoint = checkpoint
        self.loose = loose
        self.deadLetters = deadLetters
    }
}

/// What came of a batch.
public struct BatchOutcome: Hashable, Sendable {
    /// Rows that the database refused; they are dead letters now, and the rest is committed.
    public let refused: [DeadLetter]
    /// Rows that were put with other values than the database had, where that was asked for.
    public let changed: Int

    /// Creates an outcome.
    public init(refused: [DeadLetter] = [], changed: Int = 0) {
        self.refused = refused
        self.changed = changed
    }
}

/// Which dead letters are meant.
public struct LetterChoice: Hashable, Sendable {
    /// Those of this table, or of all.
    public var table: String?
    /// Those of this key, or of all.
    public var key: Bytes?
    /// That of this member, or all.
    public var member: Bytes?
    /// Only those of which the time has come.
    public var isDueOnly: Bool
    /// The most that are taken at once.
    public var limit: Int
    /// The bytes of values at which no more are taken at once.
    public var bytesMax = 16 << 20

    /// Creates a choice.
    public init(
        table: String? = nil, key: Bytes? = nil, member: Bytes? = nil, isDueOnly: Bool = false,
        limit: Int = 1_000,
    ) {
        self.table = table
        self.key = key
        self.member = member
        self.isDueOnly = isDueOnly
        self.limit = limit
    }
}

/// What came of dead letters that were tried again.
public struct LetterOutcome: Hashable, Sendable {
    /// Rows that are written now.
    public var written: [DeadLetter] = []
    /// Rows that are refused still.
    public var refused: [DeadLetter] = []
    /// Rows of which only a part is known, so that they must be read.
    public var unread: [DeadLetter] = []
    /// Whether more were chosen than were taken at once.
    public var hasMore = false

    /// Creates an outcome.
    public init() {}
}

/// A place where rows come to rest. The engine leans on these promises, which the conformance suite
/// in `SluiceTesting` checks:
///
/// - **All or nothing.** A batch's rows, dead letters, loose rows and position are committed in one
///   transaction. When ``apply(_:)`` throws, either all of it was committed or nothing.
/// - **Once.** A batch whose `to` is what the database holds already was committed by an earlier
///   attempt: applying it again changes nothing and succeeds.
/// - **Fenced.** A batch whose `from` is not what the database holds changes nothing and throws
///   ``SinkError/Response/fenced``.
/// - **Rows, not batches, are refused.** A row that the database can't take becomes a dead letter
///   in the same transaction, and the rest is committed.
///
/// The engine calls one method at a time.
public protocol Sink: Sendable {
    /// How often ``renew()`` is to be called, or nil for never.
    var renewal: Duration? { get }

    /// Says that this instance lives, so that no other takes over. May be called while another method
    /// is under way.
    ///
    /// - Throws: ``SinkError/Response/fenced`` when another instance has taken over.
    func renew() async throws(SinkError)

    /// Makes Sluice's own tables if they are missing, makes or checks the mapped ones, becomes the
    /// writer by raising the epoch, and returns what the database holds.
    ///
    /// Waits while another instance writes: then it throws with the code `sink.locked`, and is
    /// called again.
    func open() async throws(SinkError) -> StoredState

    /// Commits a batch.
    func apply(_ batch: Batch) async throws(SinkError) -> BatchOutcome

    /// The identities of rows in the order of their primary key.
    ///
    /// - Parameters:
    ///   - table: The table's place in the file.
    ///   - after: The last identity of the page before, or nil for the first page.
    ///   - limit: The most rows of a page.
    func page(
        table: Int, after: RowIdentity?, limit: Int,
    ) async throws(SinkError) -> [RowIdentity]

    /// Those of some rows of a table that the database remembers to have outlived their keys, and how.
    ///
    /// - Parameter table: The table's place in the file.
    func outlived(
        _ rows: [RowIdentity], table: Int,
    ) async throws(SinkError) -> [RowIdentity: Kept]

    /// The last entries that the table of a stream has, one for each key; nil where it has none.
    ///
    /// - Parameter table: The table's place in the file.
    func lastEntries(table: Int, keys: [Bytes]) async throws(SinkError) -> [Bytes?]

    /// Tries to write rows that were set aside, from the values that are kept with them.
    ///
    /// Rows that are written are no dead letters any more. The database's position does not move.
    ///
    /// - Parameter checkpoint: What was committed last; anything else in the database throws
    ///   ``SinkError/Response/fenced``.
    func retry(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) async throws(SinkError) -> LetterOutcome

    /// Forgets the values of rows that were set aside, and tries no more to write them.
    ///
    /// That the database has them otherwise than Redis stays known.
    ///
    /// - Returns: How many there were.
    func discard(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) async throws(SinkError) -> Int

    /// Lets another instance write, and closes connections.
    func close() async
}

extension Sink {
    /// Never: the operating system knows who lives.
    public var renewal: Duration? { nil }

    /// Does nothing.
    public func renew() async throws(SinkError) {}
}
