// Sources that say which keys changed, and nothing else. Each round of marks takes one step of an offset
// that is counted here; reads hold at the last round. So the buffer, the cut, the commit and what is
// settled are the same as with a stream, of which every command must be read.
extension PipelineMachine {
    /// Begins to follow a server whose name is a history of its own.
    ///
    /// - Parameter continues: Whether nothing that changed there was missed since ``processed``; then
    ///   its marks say what changed. Otherwise every mapped key is read.
    public mutating func marksBegin(history: ReplicationID, continues: Bool) {
        suspects = [:]
        lateEvents = []
        if continues, history == processed?.history {
            linkContinued(history: nil)
        } else {
            marksMissed(history: history)
        }
    }

    /// Notes that changes were missed: every mapped key is to be read.
    public mutating func marksMissed(history: ReplicationID) {
        let next = max(processed?.offset ?? 0, gap?.offset ?? 0) + 1
        suspects = [:]
        lateEvents = []
        linkResynchronised(Position(history: history, offset: next, database: 0))
    }

    /// Takes a round of marks, and of keys that went by themselves.
    ///
    /// - Parameter age: How long the oldest of them has waited.
    /// - Returns: The offset of the round.
    @discardableResult
    public mutating func receive(
        _ marks: [Mark], _ events: [KeyEvent] = [], age: Duration = .zero, now: Duration,
    ) -> Int64 {
        precondition(!isHolding, "no round is taken while the source is held")
        guard var position = processed else { return 0 }
        guard !marks.isEmpty || !events.isEmpty || !lateEvents.isEmpty else {
            return position.offset
        }
        position.offset += 1
        received = position.offset
        processed = position
        counters.commands += marks.count
        for mark in marks {
            // A name may be that of another database's key, and a command may have done nothing: whether
            // the key was there to be removed, only one that was read before says.
            if interpreter.needsCause(mark) {
                suspects[mark.name, default: Suspect()].note(
                    since: mark.since, telling: interpreter.tables(having: mark))
            }
            interpreter.note(mark, at: position.offset)
        }
        let events = lateEvents + events
        lateEvents = []
        for event in events {
            let mark = Mark(key: event.key, database: event.database)
            guard interpreter.wantsEvents(mark) else { continue }
            suspects[mark.name, default: Suspect()].note(event.cause)
            interpreter.note(mark, at: position.offset)
        }
        if dirtySince == nil, interpreter.buffer.opaqueCount > 0 { dirtySince = now - age }
        chunkReceived(now: now)
        return position.offset
    }

    /// Whether some table maps the key of a mark.
    public func isMapped(_ mark: Mark) -> Bool {
        interpreter.mappings.contains {
            $0.database == mark.database && $0.keys.matches(mark.key.span)
        }
    }

    /// Notes that fields of hashes may have deadlines from now on.
    public mutating func fieldsMayExpire() { interpreter.buffer.mayFieldsExpire = true }

    /// Notes why keys went that were read missing.
    ///
    /// - Parameters:
    ///   - events: The events of keys that went by themselves, since they were asked for last.
    ///   - since: When the server began to publish such events without a break, in its milliseconds
    ///     since 1970; nil when nobody says that it does.
    public mutating func causesAnswered(_ events: [KeyEvent], reliableSince since: Int64?) {
        guard isAskingCauses else { return }
        isAskingCauses = false
        let items = interpreter.buffer.takeMissing()
        let missing = Set(
            items.map { item in
                let table = interpreter.buffer.tables[item.table]
                return Mark.Name(
                    key: table.keys[item.key].bytes, database: table.mapping.database)
            })
        let heard = lateEvents + events
        lateEvents = []
        for event in heard {
            let name = Mark.Name(key: event.key, database: event.database)
            if missing.contains(name) {
                suspects[name, default: Suspect()].note(event.cause)
            } else {
                // It went after it was read: the next round looks at it.
                lateEvents.append(event)
            }
        }
        for item in items {
            let key = interpreter.buffer.tables[item.table].keys[item.key].bytes
            let mapping = interpreter.mappings[item.table]
            let name = Mark.Name(key: key, database: mapping.database)
            let suspect = suspects[name] ?? Suspect()
            let mayHide = mapping.type == .hash && interpreter.buffer.mayFieldsExpire
            interpreter.buffer.resolveMissing(
                item,
                suspect.verdict(
                    item.table, mapping.removal, reliableSince: since, mayHide: mayHide))
        }
        // A table that shares the name may have read it before it went.
        lateEvents += heard.filter { event in
            let mark = Mark(key: event.key, database: event.database)
            return missing.contains(mark.name) && !interpreter.tables(having: mark).isEmpty
        }
        // Events of keys that are there or come back are of no use once all were looked at.
        if interpreter.buffer.opaqueCount == 0 { suspects = [:] }
    }

    /// Whether keys were read missing, and why is to be asked.
    var wantsVerdict: Bool {
        !capture.isExact && !interpreter.buffer.missing.isEmpty && reading == nil && gap == nil
    }

    // MARK: Streams

    /// The streams of the read under way of which it is not known how far the database has them.
    public var streamsToFind: [(table: Int, key: Bytes)] {
        guard !capture.isExact else { return [] }
        return (reading ?? []).compactMap { item in
            let buffer = interpreter.buffer.tables[item.table]
            guard buffer.mapping.type == .stream, buffer.keys[item.key].cursor.isEmpty else {
                return nil
            }
            return (item.table, buffer.keys[item.key].bytes)
        }
    }

    /// Takes the last entries that the database has of ``streamsToFind``, in that order.
    ///
    /// - Returns: The read under way, which goes on after them.
    public mutating func streamsFound(_ last: [Bytes?]) -> [ReadItem] {
        var found = last[...]
        for item in reading ?? [] {
            let buffer = interpreter.buffer.tables[item.table]
            guard buffer.mapping.type == .stream, buffer.keys[item.key].cursor.isEmpty,
                let id = found.popFirst()
            else { continue }
            interpreter.buffer.tables[item.table].keys[item.key].cursor =
                id ?? StreamEntry.beforeFirst
        }
        return (reading ?? []).map {
            interpreter.buffer.readItem(for: $0, pageMembers: policy.pageMembers)
        }
    }
}

/// What is known of a key that may have gone.
struct Suspect {
    /// When it was first changed since it was read last, as the server counts, by the tables that had it.
    private var since: [Int: Int64] = [:]
    private var isMarked = false
    private var expired = 0
    private var evicted = 0

    mutating func note(since: Int64?, telling tables: [Int]) {
        isMarked = true
        guard let since else { return }
        for table in tables { self.since[table] = min(self.since[table] ?? since, since) }
    }

    mutating func note(_ cause: RemovalCause) {
        if cause == .expired { expired += 1 }
        if cause == .evicted { evicted += 1 }
    }

    /// Why the key went, or nil when that is in doubt.
    func verdict(
        _ table: Int, _ removal: RemovalPolicies, reliableSince: Int64?, mayHide: Bool,
    ) -> RemovalCause? {
        if expired + evicted == 0 {
            // Only who listened all the time knows that it did not go by itself.
            guard let reliableSince, let since = since[table], since >= reliableSince
            else { return .unknown }
            return mayHide ? nil : .deleted
        }
        guard expired == 0 || evicted == 0 else { return nil }
        let cause: RemovalCause = expired > 0 ? .expired : .evicted
        // Who changed it may have removed it after it had come back.
        let isAlike = removal[cause] == .keep || removal[cause] == removal.onDelete
        return !isMarked || isAlike ? cause : nil
    }
}

extension Interpreter {
    /// Whether some table treats the key's removal by its cause.
    func needsCause(_ mark: Mark) -> Bool {
        mappings.contains {
            $0.needsCause && $0.database == mark.database && $0.keys.matches(mark.key.span)
        }
    }

    /// Whether the key's going by itself concerns some table.
    func wantsEvents(_ mark: Mark) -> Bool {
        mappings.contains {
            $0.wantsEvents && $0.database == mark.database && $0.keys.matches(mark.key.span)
        }
    }

    /// The tables of which some row of a key was read and is there, as far as is known.
    func tables(having mark: Mark) -> [Int] {
        mappings.indices.filter { table in
            guard mappings[table].database == mark.database,
                mappings[table].keys.matches(mark.key.span),
                let key = buffer.tables[table].findKey(mark.key.span)
            else { return false }
            var row = Int(buffer.tables[table].keys[key].first)
            while row >= 0 {
                let state = buffer.tables[table].rows[row]
                if state.shape == .value, !state.flags.contains(.gone) { return true }
                row = Int(state.next)
            }
            return false
        }
    }

    /// Has a key read that changed.
    mutating func note(_ mark: Mark, at offset: Int64) {
        guard !Mark.isOwn(mark.key) else { return }
        select(mark.database)
        makeOpaque(mark.key.span, at: offset)
    }
}

extension RowBuffer {
    /// Takes out the rows and keys that were read missing, and are so still.
    mutating func takeMissing() -> [Opaque] {
        let items = missing
        missing = []
        missingUntil = .min
        return items.filter { item in
            if let row = item.row {
                return tables[item.table].rows[row].shape == .missing
                    && Int(tables[item.table].rows[row].key) == item.key
            }
            return tables[item.table].keys[item.key].flags.contains(.missing)
        }
    }

    /// Removes a row or key that was read missing, as the policy for its cause says.
    ///
    /// That the application removed it may be long ago, and it may have outlived an earlier key: only
    /// the database knows, at the commit.
    mutating func resolveMissing(_ item: Opaque, _ cause: RemovalCause?) {
        let removal = tables[item.table].mapping.removal
        let isGone = cause == .deleted || cause == .unknown && removal.onMissing != .keep
        if let row = item.row {
            if tables[item.table].rows[row].flags.contains(.swept) {
                return sweepOut(item.table, row)
            }
            guard isGone else { return remove(item.table, row, cause) }
            tables[item.table].rows[row].flags.formUnion([.swept, .unknown])
            if cause == .deleted { tables[item.table].rows[row].flags.remove(.unknown) }
            sweepOut(item.table, row)
        } else {
            let offset = tables[item.table].keys[item.key].readOffset
            clear(item.table, item.key, at: offset, cause)
            guard isGone, tables[item.table].keys[item.key].flags.contains(.cleared) else { return }
            tables[item.table].keys[item.key].flags.formUnion([.swept, .unknown])
            if cause == .deleted { tables[item.table].keys[item.key].flags.remove(.unknown) }
        }
    }
}

extension StreamEntry {
    /// An identifier before that of any entry.
    static let beforeFirst = Bytes("0-0".utf8)

    /// Whether an identifier stands before another in its stream.
    static func precedes(_ left: Bytes, _ right: Bytes) -> Bool {
        func parts(_ id: Bytes) -> [UInt64] {
            let texts = id.split(separator: UInt8(ascii: "-"))
            return texts.map { UInt64(String(decoding: $0, as: UTF8.self)) ?? 0 }
        }
        return parts(left).lexicographicallyPrecedes(parts(right))
    }
}
