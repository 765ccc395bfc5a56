public import SluiceCore

/// How far a baseline is.
public struct BaselineProgress: Hashable, Sendable {
    /// Rows and keys read so far.
    public let read: Int
    /// Keys of the database when the link was made, those that no table maps included.
    public let keys: Int
    /// Whether it is over.
    public let isDone: Bool
}

/// What a running pipeline says of itself.
public struct PipelineStatus: Codable, Hashable, Sendable {
    /// What the pipeline is doing.
    public enum State: String, Codable, Hashable, Sendable {
        /// Waiting for the database.
        case opening
        /// Waiting for Redis.
        case connecting
        /// Reading every mapped key.
        case baseline
        /// Following.
        case streaming
        /// The database does not take what is ready.
        case retrying
        /// Nothing can go on until a person has acted.
        case halted
    }

    /// What it is doing.
    public var state: State
    /// How Redis says what changed.
    public var capture: Capture
    /// Why it does not go on, if it does not.
    public var reason: String?
    /// The server's name and version.
    public var server: String?
    /// The position up to which the database has everything.
    public var committedOffset: Int64
    /// The position that was processed.
    public var processedOffset: Int64
    /// The history of the positions.
    public var history: String?
    /// Seconds since the oldest write that is not committed.
    public var lagSeconds: Double
    /// Marks that were taken and not cleared yet, with `capture: dirty-set`.
    public var marksInFlight: Int
    /// Rows that wait to be written.
    public var dirtyRows: Int
    /// Rows that wait to be read.
    public var opaqueRows: Int
    /// Bytes of memory that the buffer takes, about.
    public var bufferBytes: Int
    /// The largest that the buffer may grow, with its batches.
    public var bufferBytesMax: Int
    /// Whether every mapped key was read in this history.
    public var isBaselineDone: Bool
    /// Tables that may hold rows without a key.
    public var strayTables: [String]
    /// Whether it hears why keys go, or nil when no table treats them by that. While it does not, the rows
    /// of keys that go stay, and are counted as doubtful.
    public var hearsCauses: Bool?
    /// Rows set aside since the start, by table and reason.
    public var setAside: [String: Int]
    /// What was done since the start.
    public var counters: PipelineCounters
}
