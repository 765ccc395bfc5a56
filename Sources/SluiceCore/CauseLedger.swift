/// A key that Redis removed by itself, as its key events say.
public struct KeyEvent: Hashable, Sendable {
    /// The key.
    public let key: Bytes
    /// The number of its database.
    public let database: Int
    /// Why it was removed.
    public let cause: RemovalCause

    /// Creates an event.
    public init(key: Bytes, database: Int, cause: RemovalCause) {
        self.key = key
        self.database = database
        self.cause = cause
    }
}

/// Why keys went: matches the removals of the stream with the events of keys that expired or were
/// evicted.
///
/// A removal in the stream carries no cause. An event is published in the same step as its removal is
/// propagated; so between two offsets, a key whose events are as many as its removals went by those,
/// and one without events went because the application said so. Anything between is in doubt, and so
/// is what happened while nobody listened.
struct CauseLedger {
    private struct Key: Hashable {
        let database: Int
        let key: Bytes
    }

    private struct Count {
        var removals = 0
        var expired = 0
        var evicted = 0
    }

    /// Where somebody began to listen, or nil while nobody does.
    private var since: Int64?
    private var knownUpTo = Int64.min
    private var counts: [Key: Count] = [:]

    /// Whether somebody listens.
    var isListening: Bool { since != nil }

    /// Whether more can't be learnt of a removal at an offset.
    func isKnown(at offset: Int64) -> Bool {
        since == nil || offset <= knownUpTo
    }

    /// Why a key went that a command ending at an offset removed, or nil when nobody knows.
    func cause(
        of key: borrowing Span<UInt8>, in database: Int, at offset: Int64,
    ) -> RemovalCause? {
        guard let since, offset > since, offset <= knownUpTo else { return nil }
        if counts.isEmpty { return .deleted }
        guard let count = counts[Key(database: database, key: Bytes(copying: key))]
        else { return .deleted }
        switch (count.expired, count.evicted) {
        case (count.removals, 0): return .expired
        case (0, count.removals): return .evicted
        default: return nil
        }
    }

    /// Begins to listen; removals up to here stay in doubt.
    mutating func listen(from offset: Int64) {
        since = offset
        knownUpTo = offset
        counts = [:]
    }

    /// Nobody listens any more.
    mutating func stop() {
        since = nil
        counts = [:]
    }

    /// Takes the events up to an offset, which replace those before.
    mutating func learn(_ events: [KeyEvent], upTo offset: Int64) {
        counts = [:]
        for event in events {
            let key = Key(database: event.database, key: event.key)
            if event.cause == .expired { counts[key, default: Count()].expired += 1 }
            if event.cause == .evicted { counts[key, default: Count()].evicted += 1 }
        }
        knownUpTo = offset
    }

    /// Notes that the removals up to an offset were counted.
    mutating func extend(to offset: Int64) { knownUpTo = offset }

    /// Counts a removal before the stream is processed up to there.
    mutating func count(_ key: borrowing Span<UInt8>, in database: Int) {
        counts[Key(database: database, key: Bytes(copying: key))]?.removals += 1
    }
}
