/// The limits of a pipeline. Every limit has a default, and none can be turned off.
public struct PipelinePolicy: Hashable, Sendable {
    /// The longest that a change waits for its cut.
    public var interval: Duration
    /// The rows at which a cut is made at once.
    public var rowsMax: Int
    /// The memory that the buffer, a batch and its encoding may take together, in bytes.
    public var memoryMax: Int
    /// The most small rows read in one transaction: Redis answers nobody else meanwhile. Of
    /// larger ones fewer are read, as those before were large.
    public var readsMax = 200
    /// The members or fields that one page of a large key holds, about, of which one is read at a time.
    public var pageMembers = 100
    /// The keys that one SCAN looks at.
    public var scanCount = 500
    /// The pause between two chunks of a baseline, so that Redis's other clients do not feel it.
    public var baselinePause = Duration.milliseconds(1)
    /// The rows of the database that are looked up in Redis at a time, to find those without a key.
    public var sweepMax = 250
    /// How long a cut waits for rows to be read before they are committed loose.
    public var closingMax = Duration.seconds(2)
    /// How long a cut waits for keys that are read page by page.
    public var scanClosingMax = Duration.seconds(30)
    /// How long a comparison at an exact offset waits for rows to be read.
    public var stopClosingMax = Duration.milliseconds(200)
    /// How often a position without rows is written.
    public var positionInterval = Duration.seconds(1)

    /// Creates a policy.
    public init(
        interval: Duration = .seconds(1), rowsMax: Int = 50_000, memoryMax: Int = 512 << 20,
    ) {
        precondition(rowsMax > 0, "a batch holds at least one row")
        self.interval = interval
        self.rowsMax = rowsMax
        self.memoryMax = memoryMax
    }

    /// What the buffer alone may take: a batch of all of it takes as much again at most, and is
    /// encoded in small parts.
    var bufferMemoryMax: Int { memoryMax / 2 }
    /// What it may take beyond that while the stream goes on to where rows were read, because until then
    /// they can't be forgotten; a batch of that time holds no more than was taken in since.
    var catchUpMemoryMax: Int { memoryMax / 16 }
    /// What the buffer may take with values that need not be written.
    var cleanMemoryMax: Int { bufferMemoryMax / 4 * 3 }
    /// What one hash may take while it is read page by page: it is written at once.
    var fieldScanMemoryMax: Int { bufferMemoryMax / 2 }
    /// What one transaction of Redis may take before it ends: reading can't stop inside it.
    var transactionMemoryMax: Int { memoryMax / 2 }
}

/// What a pipeline has done since it started.
public struct PipelineCounters: Hashable, Sendable, Codable {
    /// Commands of the stream, those without effect on rows included.
    public var commands = 0
    /// Bytes of the stream.
    public var bytes = 0
    /// Transactions committed in the database.
    public var commits = 0
    /// Rows written.
    public var rows = 0
    /// Rows and keys read from Redis because their change did not say its result.
    public var reads = 0
    /// Rows and keys read for a baseline.
    public var baselineReads = 0
    /// Rows that the last baseline found otherwise in Redis than in the database.
    public var baselineChanges = 0
    /// Rows committed newer than their cut.
    public var looseRows = 0
    /// Rows set aside.
    public var setAside = 0
    /// Dead letters that were written when they were tried again.
    public var revived = 0
    /// Rows of the database whose keys a baseline did not find.
    public var missing = 0
    /// Rows that went, but for a dead letter, before their last state could be read.
    public var vanished = 0
    /// Rows and keys that stayed because nobody knows why their keys went.
    public var doubtful = 0
    /// Commands that wrote and did not say which keys, so that every key was read again.
    public var unsaid = 0
    /// Full resynchronisations.
    public var resynchronisations = 0
    /// FLUSHALL and FLUSHDB seen.
    public var flushes = 0

    /// Creates counters at zero.
    public init() {}
}
