/// Decides what a source's pipeline does: when to cut, what to read, what to commit, what may be
/// acknowledged.
///
/// It takes inputs and returns actions; it does no I/O and reads no clock. A driver carries out what
/// ``next(now:)`` says and reports how it went. At most one commit, one read, one scan and one sweep
/// are under way at a time.
///
/// ```
///  stream ──receive──▶ ┌─────────┐ ──commit──▶ sink
///  reads  ──finished─▶ │ machine │ ──read────▶ Redis
///  sink   ──committed▶ └─────────┘ ──acknowledgement──▶ Redis
/// ```
///
/// What was processed always ends at the boundary of a command or transaction. While a read is under
/// way the stream is held, so a value is never older than what was processed.
public struct PipelineMachine: ~Copyable {
    /// What the driver is to do.
    public enum Action: Sendable {
        /// Commit a batch, and try again until it succeeds or the writer is fenced.
        case commit(Batch)
        /// Read these in one transaction of Redis, together with its offset.
        case read([ReadItem])
        /// Look for keys.
        case scan(database: Int, cursor: Bytes, match: Bytes, count: Int)
        /// Look up a page of a table's rows in Redis.
        case sweep(table: Int, after: RowIdentity?, limit: Int)
        /// Ask why keys went: collect the key events up to now, and where the stream is.
        case askCauses
        /// Nothing, until an input comes or the time has come.
        case wait(until: Duration?)
        /// Everything is committed and no more is to come.
        case finish
    }

    /// Why a pipeline can't go on until a person has acted.
    public enum Halt: Hashable, Sendable {
        /// One transaction of Redis is larger than the memory that is allowed.
        case transactionTooLarge(bytes: Int)
    }

    /// Limits.
    public let policy: PipelinePolicy
    /// How the source says what changed.
    public let capture: Capture
    /// What was done.
    public internal(set) var counters = PipelineCounters()
    /// Set when Redis asked for an acknowledgement; the driver clears it when it sent one.
    public var isAcknowledgementWanted = false
    /// Set when nothing can go on.
    public private(set) var halt: Halt?
    /// What the database holds.
    public internal(set) var committed: Checkpoint
    /// The last boundary that was processed, or nil before the first contact.
    public internal(set) var processed: Position?

    /// The last pass over rows without a key, nil before the first.
    public internal(set) var reconciliation: Reconciliation?
    var reconciliationNumber = -1
    /// Rows to be read again once what is dirty of them is on its way, by table.
    var lookedAtLater: [Int: [RowIdentity]] = [:]

    var interpreter: Interpreter
    var baseline: Baseline
    var strays: Set<String>
    var flight: Flight?
    /// Whether dead letters are tried, so that nothing else may go to the database.
    var isRetrying = false
    var reading: [RowBuffer.Opaque]?
    /// What one row of each table costs Redis to read, as those did that were read last.
    var rowCosts: [Int]
    private static let rowCostFirst = 8
    /// Whether the read under way asks with cursors of another server.
    var isReadStale = false
    // The baseline that a scan or sweep under way is for; below zero, the reconciliation.
    var scanning: Int?
    var sweeping: Int?
    var isLinkUp = false
    var isDraining = false
    var isCutRequested = false
    var hasLoose: Bool
    /// Where to begin anew, once what is dirty of before is on its way.
    var gap: Position?
    /// Whether the gap is a SWAPDB: the history is the same, the keys are others.
    var isSwap = false
    /// Where the stream is held for a comparison.
    var stop: Stop?
    var dirtySince: Duration?
    var closingSince: Duration?
    var positionWritten: Duration = .zero
    var pauseUntil: Duration = .zero
    var acknowledgedOffset: Int64 = 0
    /// The last position that was committed with no row left to be read: rows that were not read are
    /// neither in the database nor in the dead letters, so nothing beyond may be acknowledged.
    var closedOffset: Int64 = 0
    /// Whether there was such a position in this history; an offset may be zero.
    var hasClosed = false
    /// Up to where the stream goes on though the buffer is full.
    var catchUpOffset = Int64.min
    /// Where a cut took nothing along, if nothing was read since.
    var barrenOffset: Int64?
    /// Set when the stream may go on that was held; the driver clears it.
    public var isStreamWanted = false
    var stage = TransactionStage()
    /// Whether the next command removes a key of which the cause is not known yet.
    var isCauseWanted = false
    var isAskingCauses = false
    /// Whether the server published key events where they were asked for last.
    var wereCausesReliable = false
    var isCauseNeededInStage = false
    /// The offset up to which removals are to be counted before they are processed.
    public internal(set) var lookAheadUntil: Int64?
    var lookAheadDatabase = 0
    /// What is known of keys that may have gone, where the source only names them.
    var suspects: [Mark.Name: Suspect] = [:]
    /// Events of keys that are to be looked at in the next round.
    var lateEvents: [KeyEvent] = []

    /// A batch that is on its way.
    struct Flight {
        let to: Checkpoint
        let rows: Int
        let since: Duration?
        let isClosed: Bool
        let isOfBaseline: Bool
    }

    /// Creates a machine that goes on where a database stands.
    ///
    /// - Parameters:
    ///   - mappings: The tables, in the file's order.
    ///   - policy: The limits.
    ///   - capture: How the source says what changed.
    ///   - stored: What the sink returned when it was opened.
    ///   - seed: The seed of the hash of keys; random outside tests.
    public init(
        mappings: [TableMapping], policy: PipelinePolicy, capture: Capture = .replication,
        stored: StoredState, seed: UInt64,
    ) {
        self.policy = policy
        self.capture = capture
        committed = stored.checkpoint
        processed = stored.checkpoint.position
        strays = stored.checkpoint.strays
        hasLoose = !stored.loose.isEmpty
        if !stored.loose.contains(where: { $0.offset == nil }) {
            closedOffset = stored.checkpoint.position?.offset ?? 0
            hasClosed = stored.checkpoint.isBaselineDone
        }
        interpreter = Interpreter(mappings: mappings, seed: seed)
        interpreter.buffer.isExact = capture.isExact
        interpreter.buffer.fieldScanMemoryMax = policy.fieldScanMemoryMax
        baseline = Baseline(mappings: mappings)
        rowCosts = mappings.map { _ in Self.rowCostFirst }
        if processed != nil, !committed.isBaselineDone {
            strays = []
            startBaseline()
        }
        setReadsUnknown()
        for letter in stored.deadLetters { interpreter.restore(letter) }
        for row in stored.loose { interpreter.restore(row) }
    }

    // MARK: The stream

    /// Whether the stream must wait: a read is under way, a cause is wanted, or there is no room.
    public var isHolding: Bool {
        isCauseWanted || reading != nil || gap != nil || halt != nil || isStopped
            || isRoomWanted && mayMakeRoom || isDraining && isClosed || isReadingPages
    }

    // A key that is marked again while its pages are read would never be read to its end.
    private var isReadingPages: Bool { !capture.isExact && interpreter.buffer.scanCount > 0 }

    // Whether every row that was read is closed: then a drain takes no more of the stream.
    private var isClosed: Bool {
        interpreter.buffer.opaqueCount == 0
            && interpreter.buffer.readOffsetMax <= processed?.offset ?? .max
    }

    // When nothing is to be written, rows that were read stay until the stream is past their offset;
    // and where no more can be read for want of room, the stream makes it.
    private var mayMakeRoom: Bool {
        flight != nil || mayCutMakeRoom
            || interpreter.buffer.isReadWanted && !isCatchingUp
    }

    /// Whether the buffer takes more than it is allowed to.
    package var isMemoryFull: Bool { interpreter.buffer.memory > policy.bufferMemoryMax }

    /// Whether room is to be made before more of the stream is taken.
    var isRoomWanted: Bool {
        let room = policy.bufferMemoryMax + (isCatchingUp ? policy.catchUpMemoryMax : 0)
        return interpreter.buffer.memory > room
    }

    /// Whether a cut would take rows along: those whose removal is still to be told from what was read
    /// stay dirty until the stream is there.
    var mayCutMakeRoom: Bool {
        interpreter.buffer.dirtyCount > 0 && barrenOffset != processed?.offset
    }

    /// Whether the stream has to go on to where rows were read, so that they can be forgotten.
    var isCatchingUp: Bool { catchUpOffset > processed?.offset ?? .max }

    /// Takes one command of the stream.
    ///
    /// - Parameters:
    ///   - bytes: Bytes that hold the command.
    ///   - arguments: Where its name and arguments stand in them.
    ///   - isOversized: Whether an argument was too large to be held, and is empty here.
    ///   - length: How many bytes of the stream the command took.
    /// - Returns: False when it was not taken: why a key went must be known first. It is to be given
    ///   again when nothing holds any more.
    @inline(__always)
    @discardableResult
    public mutating func receive(
        _ bytes: borrowing Span<UInt8>, arguments: [Range<Int>], isOversized: Bool, length: Int,
    ) -> Bool {
        guard processed != nil, let first = arguments.first else { return true }
        let name = interpreter.name(bytes.extracting(first))
        if name == .del || name == .unlink || name == .exec,
            mustWait(name, bytes, arguments, end: received + Int64(length))
        {
            isCauseWanted = true
            return false
        }
        take(bytes, arguments, isOversized, name, length: length)
        return true
    }

    // Whether a command removes a key, of which the cause matters and may still be learnt.
    private mutating func mustWait(
        _ name: CommandName?, _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>],
        end: Int64,
    ) -> Bool {
        guard !interpreter.causes.isKnown(at: end) else { return false }
        if name == .exec { return stage.isOpen && isCauseNeededInStage }
        // A transaction may select another database, which is seen when it is run.
        let current = stage.isOpen ? nil : processed?.database
        guard interpreter.needsCause(bytes, arguments, current: current) else { return false }
        guard stage.isOpen else { return true }
        isCauseNeededInStage = true
        return false
    }

    @inline(__always)
    private mutating func take(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], _ isOversized: Bool,
        _ name: CommandName?, length: Int,
    ) {
        guard var position = processed else { return }
        counters.commands += 1
        counters.bytes += length
        received += Int64(length)
        if stage.isOpen {
            return receiveStaged(bytes, arguments, isOversized, name)
        }
        position.offset = received
        switch name {
        case .multi:
            stage.open()
            isCauseNeededInStage = false
            return
        case .select:
            if let number = Self.database(bytes, arguments) { position.database = number }
        case .ping, .publish, .spublish: break
        case .replconf:
            isCutRequested = true
            isAcknowledgementWanted = true
        default:
            let effect = interpreter.apply(
                bytes, arguments, isOversized: isOversized, name: name,
                current: position.database, at: received,
            )
            if effect != .none { take(effect, at: position) }
        }
        processed = position
    }

    /// The bytes of the stream that were taken in, those of an open transaction included.
    public var streamOffset: Int64 { received }
    var received: Int64 = 0

    private mutating func receiveStaged(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], _ isOversized: Bool,
        _ name: CommandName?,
    ) {
        guard name == .exec else {
            stage.append(bytes, arguments, isOversized: isOversized)
            if stage.bytes.count > policy.transactionMemoryMax {
                halt = .transactionTooLarge(bytes: stage.bytes.count)
            }
            return
        }
        guard var position = processed else { return }
        position.offset = received
        let staged = exchangeStage()
        for index in 0..<staged.count {
            let command = staged.command(index)
            let content = staged.bytes.span
            let name = interpreter.name(content.extracting(command.arguments[0]))
            if name == .select {
                position.database =
                    Self.database(content, command.arguments) ?? position.database
                continue
            }
            let effect = interpreter.apply(
                content, command.arguments, isOversized: command.isOversized, name: name,
                current: position.database, at: received,
            )
            if effect != .none { take(effect, at: position) }
        }
        processed = position
    }

    private mutating func exchangeStage() -> TransactionStage {
        var old = TransactionStage()
        swap(&old, &stage)
        return old
    }

    private mutating func take(_ effect: Interpreter.Effect, at position: Position) {
        switch effect {
        case .none: break
        case .flushed(let database):
            counters.flushes += 1
            interpreter.buffer.flushed(database, at: position.offset)
        case .swapped:
            gap = position
            isSwap = true
        case .unsaid:
            counters.unsaid += 1
            gap = position
            isSwap = true
        }
    }

    /// Notes that the commands that had arrived were taken.
    public mutating func chunkReceived(now: Duration) {
        if let processed {
            if capture.isExact {
                interpreter.buffer.resolveMissing(processed: processed.offset)
            }
            interpreter.buffer.finishFieldScans(processed: processed.offset)
        }
        if dirtySince == nil,
            interpreter.buffer.dirtyCount > 0 || interpreter.buffer.opaqueCount > 0
        {
            dirtySince = now
        }
        // Another `SELECT` of the database may have changed what a swap's position says.
        if isSwap { gap = processed }
    }

    // MARK: Requests

    /// Has everything that was processed committed soon.
    public mutating func requestCut() {
        isCutRequested = true
    }

    /// Has everything committed, and then finishes.
    public mutating func drain() {
        isDraining = true
        isCutRequested = true
        stop = nil
    }
}
