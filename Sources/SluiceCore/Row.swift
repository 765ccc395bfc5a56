/// One row of a mapped table, as the buffer holds it. Its cells stand in the table's cell array.
struct Row {
    /// What the buffer knows of a row, and so what a further change folds into.
    ///
    /// ```
    ///               patch, add               put                  remove
    /// untouched ──▶ merge (or opaque)        value                absent
    /// update    ──▶ merge                    value                absent
    /// merge     ──▶ merge                    value                absent
    /// value     ──▶ value                    value                absent
    /// absent    ──▶ value                    value                absent
    /// opaque    ──▶ opaque                   value                absent
    /// missing   ──▶ value                    value                absent
    /// ```
    ///
    /// A removal that keeps the row leaves its shape, and what comes next starts afresh or, an add,
    /// goes on top.
    enum Shape: UInt8 {
        /// Nothing is known here: the database has the value.
        case untouched
        /// Some cells change, on top of what the database has; the row is inserted if it is missing.
        case merge
        /// Only the deadline changes, and only if the row is there.
        case update
        /// The cells hold the whole value.
        case value
        /// Redis has no such key or member.
        case absent
        /// The row must be read: what changed it does not say to what.
        case opaque
        /// It was read, and Redis has no such key or member; why is still to be seen.
        case missing
    }

    struct Flags: OptionSet {
        let rawValue: UInt16
        /// To be written at the next cut.
        static let dirty = Flags(rawValue: 1)
        /// Stands in the table's list of dirty rows.
        static let queued = Flags(rawValue: 2)
        /// Has a dead letter, so the database does not have what Redis has.
        static let setAside = Flags(rawValue: 4)
        /// Its key is gone but the row stays: the state before is written, a new one starts afresh.
        static let gone = Flags(rawValue: 8)
        /// The time of the removal is to be written.
        static let marked = Flags(rawValue: 16)
        /// Stands in the list of rows to be read.
        static let reading = Flags(rawValue: 32)
        /// On the list of free slots.
        static let free = Flags(rawValue: 64)
        /// What is read of it does not replace a row that outlived its key.
        static let spared = Flags(rawValue: 128)
        /// Nothing has changed it: it is read only to see whether Redis has it. If not, and if the
        /// database does not remember that it outlived its key, it is deleted.
        static let swept = Flags(rawValue: 256)
        /// With ``swept``: it was read missing, and nobody says why.
        static let unknown = Flags(rawValue: 512)
        /// With ``setAside``, or about to be: a stream's key that is of another type.
        static let mistyped = Flags(rawValue: 1024)
        /// Its key was read, and its name was another's.
        static let others = Flags(rawValue: 2048)
        /// While it waits for a read: a command has said since its last end that the key is its own.
        static let own = Flags(rawValue: 4096)
        /// With ``swept``: its name was removed, whatever had it.
        static let removed = Flags(rawValue: 8192)
        /// While it waits for a read: a command has said that the key is its own, or gone.
        static let stored = Flags(rawValue: 16384)
        /// While it waits for a read: a command has made something of its key, and did not say of what
        /// type.
        static let untyped = Flags(rawValue: 32768)
    }

    var member: Bytes = []
    var hash: UInt64 = 0
    var key: Int32 = -1
    var next: Int32 = -1
    var previous: Int32 = -1
    var shape = Shape.untouched
    /// With the shape `merge`: whether what came first was an add.
    var beginsWithAdd = false
    var flags: Flags = []
    /// The offset at which the value was read; changes at or before it are in the value.
    var readOffset = Int64.min
    private var misfitBox: MisfitBox?

    /// Why the row can't be written, when that is known before the cut.
    var misfit: Misfit? {
        get { misfitBox?.misfit }
        set {
            // Rows are many and misfits are few.
            guard newValue != nil || misfitBox != nil else { return }
            misfitBox = newValue.map(MisfitBox.init)
        }
    }
}

extension Row {
    /// Whether the database has it otherwise than Redis, or may have.
    var isDoubtful: Bool { !flags.isDisjoint(with: [.setAside, .swept]) }

    /// Whether what was read is still to be told apart from what the row had when its key went: the
    /// changes up to the read may have put another value.
    func isSparedOpen(at offset: Int64) -> Bool {
        flags.contains(.spared) && shape == .value && readOffset > offset
    }
}

/// A misfit on its own, so that rows without one stay small.
private final class MisfitBox {
    let misfit: Misfit

    init(_ misfit: Misfit) {
        self.misfit = misfit
    }
}

/// One key of a mapped table.
struct Key {
    struct Flags: OptionSet {
        let rawValue: UInt32
        /// All rows of the key go, except those that were put since.
        static let cleared = Flags(rawValue: 1)
        /// The whole key must be read.
        static let opaque = Flags(rawValue: 2)
        /// The read is for a baseline: what is missing is only reported.
        static let baseline = Flags(rawValue: 4)
        /// Stands in the list of dirty keys.
        static let queued = Flags(rawValue: 8)
        /// Stands in the list of keys to be read.
        static let reading = Flags(rawValue: 16)
        /// On the list of free slots.
        static let free = Flags(rawValue: 32)
        /// The cleared rows are marked rather than deleted.
        static let marking = Flags(rawValue: 64)
        /// It was read, and Redis has no such key; why is still to be seen.
        static let missing = Flags(rawValue: 128)
        /// Its members are being read page by page, and the stream says what changes meanwhile.
        static let scanning = Flags(rawValue: 256)
        /// With ``cleared``: its rows stay if the database remembers that they outlived the key.
        static let swept = Flags(rawValue: 512)
        /// With ``swept``: it was read missing, and nobody says why.
        static let unknown = Flags(rawValue: 1024)
        /// With ``scanning``: some of what was read is forgotten, because there was no room.
        static let forgotten = Flags(rawValue: 2048)
        /// While it waits for a read: a command has said since its last end that it is of the table's type.
        static let own = Flags(rawValue: 4096)
        /// It was read, or rows of it were, and its name was another's; why it went is still to be seen.
        static let others = Flags(rawValue: 8192)
        /// While it waits for a read: a command has said that it is of the table's type, or gone.
        static let stored = Flags(rawValue: 16384)
        /// While it waits for a read: a command has made something of it, and did not say of what type.
        static let untyped = Flags(rawValue: 32768)
        /// While it waits for a read: nothing has changed it, and it is read only to see whether Redis has
        /// it. Its rows stay if the database remembers that they outlived the key.
        static let looked = Flags(rawValue: 65536)
        /// With ``cleared``: by what was read, where no command said of what type the key was. It may have
        /// gone, and come back by members alone, before it was read.
        static let unproven = Flags(rawValue: 131072)
        /// With ``cleared`` and ``swept``: by what was read, and the stream has not come to the place of
        /// the read. It may still say that the key went before that and its rows stay.
        static let tentative = Flags(rawValue: 262144)
        /// With ``cleared``: the stream said that the key went. Its rows go, whatever becomes of what is
        /// read of a later key.
        static let certain = Flags(rawValue: 524288)

        /// What says which rows of the key go.
        static let ofClear: Flags = [.cleared, .marking, .swept, .unproven, .tentative, .certain]
    }

    var bytes: Bytes = []
    var hash: UInt64 = 0
    var first: Int32 = -1
    var flags: Flags = []
    var readOffset = Int64.min
    /// The offset of the last page that was read of it: up to there its rows may be newer.
    var readUntil = Int64.min
    /// Where the next page of a stream or of members begins, empty for its start.
    var cursor: Bytes = []
}
