/// A place at which the stream is held for somebody who compares.
public struct HeldPlace: Codable, Hashable, Sendable {
    /// Names the hold.
    public let number: Int
    /// The replication offset.
    public let offset: Int64
    /// The replication id.
    public let history: String

    /// Creates a place.
    public init(number: Int, offset: Int64, history: String) {
        self.number = number
        self.offset = offset
        self.history = history
    }
}

/// Holds the stream at an exact offset, where the database can be compared with Redis.
///
/// ```
///  hold ─▶ the stream stops at a boundary H
///          … somebody reads Redis, at an offset P that is not before H …
///  advance(to: P) ─▶ the stream goes on to P; everything up to there is committed ─▶ hasStopped
///          … somebody reads the database, whose rows are those of Redis at P …
///  release ─▶ the stream goes on
/// ```
///
/// Rows that could only be read beyond P are loose, as in any other commit.
extension PipelineMachine {
    /// A place at which the stream is held.
    struct Stop: Hashable, Sendable {
        let offset: Int64
        /// Whether what was to be committed there is on its way, or nothing was to be.
        var isCut: Bool
    }

    /// Holds the stream at the boundary that was processed last.
    ///
    /// - Returns: That boundary, or nil while rows need not equal Redis anywhere: a baseline or a large
    ///   key is read, the link is down, the pipeline drains, or the source has no stream.
    public mutating func hold() -> Position? {
        guard capture.isExact, isLinkUp, gap == nil, halt == nil, !isDraining,
            committed.isBaselineDone, !baseline.isRunning, interpreter.buffer.scanCount == 0,
            let processed
        else { return nil }
        stop = Stop(offset: processed.offset, isCut: true)
        return processed
    }

    /// Lets the stream go on to an offset, and has everything up to there committed.
    ///
    /// - Returns: False when the stream is not held, or is beyond the offset already.
    public mutating func advance(to offset: Int64) -> Bool {
        guard stop != nil, let processed, processed.offset <= offset else { return false }
        stop = Stop(offset: offset, isCut: false)
        return true
    }

    /// Lets the stream go on.
    public mutating func release() { stop = nil }

    /// Whether the stream is held, or is to be, at some offset.
    public var isStopWanted: Bool { stop != nil }

    /// Whether the stream is held where it was to be, and the database has everything up to there.
    public var hasStopped: Bool {
        guard let stop, isStopped else { return false }
        return flight == nil && !isRetrying && (stop.isCut || !isPending)
    }

    /// Whether no more of the stream is taken.
    @inline(__always)
    var isStopped: Bool {
        guard let stop else { return false }
        return processed?.offset ?? .max >= stop.offset
    }

    /// Whether what was processed up to the stop is to be committed.
    var wantsCutAtStop: Bool { isStopped && stop?.isCut == false && isPending }

    /// What goes on, for whoever looks into a failure.
    package var situation: String {
        """
        dirty \(dirtyCount), opaque \(opaqueCount), pages \(interpreter.buffer.scanCount), missing \
        \(interpreter.buffer.missing.count), memory \(memory) of \(policy.bufferMemoryMax), held \
        \(isHolding), halted \(halt != nil), processed \(processed?.offset ?? -1), read at \
        \(interpreter.buffer.looseOffsetMax), catching up to \(catchUpOffset), flight \(flight != nil), \
        reading \(reading != nil), cause \(isCauseWanted), gap \(gap != nil), baseline \(baseline.phase)
        """
    }

    /// Whether anything waits to be written or read.
    var isPending: Bool {
        interpreter.buffer.dirtyCount > 0 || interpreter.buffer.opaqueCount > 0
    }
}
