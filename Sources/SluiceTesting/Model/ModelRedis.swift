public import SluiceCore

/// A small Redis in memory that is its own specification: values, a replication stream, histories.
///
/// It knows just enough commands to reach each way in which a change can arrive: a whole value, a
/// patch, an add, a removal, and effects that must be read.
public struct ModelRedis {
    /// The value of a key.
    public enum Value: Hashable {
        /// A string.
        case string(String)
        /// Fields and values.
        case hash([String: String])
        /// Members and scores.
        case sortedSet([String: Double])
        /// Members.
        case set(Set<String>)
        /// Identifiers and what they carry.
        case stream([String: String])

        /// Its type.
        public var type: RedisType {
            switch self {
            case .string: .string
            case .hash: .hash
            case .sortedSet: .sortedSet
            case .set: .set
            case .stream: .stream
            }
        }
    }

    /// The name and type of a key that is gone, and whose rows outlived it.
    public struct Outlived: Hashable {
        /// The key.
        public let key: String
        /// Its type.
        public let type: RedisType
    }

    /// The contents of one database.
    public struct Keyspace: Hashable {
        /// The values.
        public var values: [String: Value] = [:]
        /// The deadlines, in milliseconds since 1970.
        public var deadlines: [String: Int64] = [:]
        /// What the rows of counters have beyond their keys, because they outlived earlier ones.
        public var totals: [String: Int] = [:]
        /// Counters whose keys went with a value that their rows could not take.
        public var unknownTotals: Set<String> = []
        /// What keys were that went by themselves, each until one of its name and type is there again.
        public private(set) var outlived: [Outlived: Value] = [:]
        /// The deadlines that they had.
        public private(set) var outlivedDeadlines: [String: Int64] = [:]
        /// The members that such keys had, of sets and sorted sets, each until a key of the name has it
        /// again, or the application removes one or stores it as a whole. Scores are those of the rows;
        /// one is not a number if nobody knows it.
        public private(set) var left: [Outlived: Value] = [:]
        /// What hashes have in `n` beyond their keys, which came back by an add.
        public private(set) var sums: [String: Int] = [:]
        /// What hashes had in `n` when they went by themselves, each until something comes to the name.
        public private(set) var sumsLeft: [String: Int] = [:]
        /// What the rows of scores have beyond their keys, by key and member, because they outlived
        /// earlier ones and came back by an add.
        public private(set) var scoresBeyond: [String: [String: Double]] = [:]
        /// Scores of which a change does not say what they are, each until it is read.
        private var unsaid: Set<[String]> = []
        /// Hashes that were read while they had more.
        private var unknownSums: Set<String> = []
        /// Those that came back: what is added then goes on top of their rows, which have more than Redis.
        public private(set) var returned: Set<Outlived> = []
        /// Keys that went by themselves in the command that is running.
        var removed: [String: RemovalCause] = [:]

        /// Removes a key as its deadline or the lack of memory does.
        mutating func remove(_ key: String, _ cause: RemovalCause) {
            if case .string(let text)? = values[key], let number = Int(text) {
                totals[key, default: 0] += number
            } else {
                totals[key] = nil
                unknownTotals.insert(key)
            }
            if let value = values[key] {
                let name = Outlived(key: key, type: value.type)
                if !returned.contains(name) || value.type == .string { outlived[name] = value }
                leave(value, name)
                if case .hash = value { outlivedDeadlines[key] = deadlines[key] }
                leaveSum(key, value)
            }
            values[key] = nil
            deadlines[key] = nil
            removed[key] = cause
        }

        private mutating func leaveSum(_ key: String, _ value: Value) {
            let sum = sums.removeValue(forKey: key) ?? 0
            sumsLeft[key] = nil
            guard !unknownSums.contains(key) else { return }
            guard case .hash(let fields) = value, let number = Int(fields["n"] ?? "0") else {
                return
            }
            sumsLeft[key] = sum + number
        }

        /// Notes what comes to a hash's `n`: an add goes on top of what its row has.
        mutating func noteHash(_ key: String, isAdd: Bool, setsNumber: Bool = false) {
            let left = sumsLeft.removeValue(forKey: key)
            if values[key] == nil {
                sums[key] = isAdd ? left : nil
                if !isAdd { unknownSums.remove(key) }
            }
            if setsNumber { sums[key] = nil }
        }

        /// Notes that what a hash is now is all that its row has.
        mutating func endSum(_ key: String) {
            sums[key] = nil
            sumsLeft[key] = nil
            unknownSums.remove(key)
        }

        /// Notes what comes to a score, before it does: an add goes on top of what its row has.
        mutating func noteScore(
            _ key: String, _ member: String, isAdd: Bool, isSaid: Bool = true,
        ) {
            if !isSaid { unsaid.insert([key, member]) }
            guard isAdd else {
                scoresBeyond[key]?[member] = nil
                return
            }
            if case .sortedSet(let scores)? = values[key], scores[member] != nil { return }
            guard case .sortedSet(let old)? = left[Outlived(key: key, type: .sortedSet)] else {
                return
            }
            scoresBeyond[key, default: [:]][member] = old[member]
        }

        /// Notes that a hash is read, or all of a sorted set: what rows have beyond it ends, if what is
        /// read is still wanted.
        ///
        /// - Parameter replaces: Whether what is read of a member replaces its row.
        mutating func noteRead(_ item: ReadItem, replaces: Bool) {
            let key = String(decoding: item.key, as: UTF8.self)
            if sums.removeValue(forKey: key) != nil { unknownSums.insert(key) }
            switch item.target {
            case .members: scoresBeyond[key] = scoresBeyond[key]?.mapValues { _ in .nan }
            case .member(let bytes):
                let member = String(decoding: bytes, as: UTF8.self)
                let isUnsaid = unsaid.remove([key, member]) != nil
                guard isUnsaid || replaces, scoresBeyond[key]?[member] != nil else { return }
                scoresBeyond[key]?[member] = .nan
            default: break
            }
        }

        /// Notes that what is there now is of no key that is gone.
        mutating func noteReturns() {
            for (key, value) in values {
                let name = Outlived(key: key, type: value.type)
                if outlived.removeValue(forKey: name) != nil { returned.insert(name) }
                switch (left[name], value) {
                case (.set(let old)?, .set(let new)): left[name] = .set(old.subtracting(new))
                case (.sortedSet(let old)?, .sortedSet(let new)):
                    left[name] = .sortedSet(old.filter { new[$0.key] == nil })
                default: break
                }
            }
        }

        private mutating func leave(_ value: Value, _ name: Outlived) {
            switch (left[name], value) {
            case (.set(let old)?, .set(let new)): left[name] = .set(old.union(new))
            case (_, .sortedSet(let new)):
                let beyond = scoresBeyond.removeValue(forKey: name.key) ?? [:]
                let scores = new.merging(beyond.filter { new[$0.key] != nil }, uniquingKeysWith: +)
                guard case .sortedSet(let old)? = left[name] else {
                    left[name] = .sortedSet(scores)
                    return
                }
                left[name] = .sortedSet(old.merging(scores) { $1 })
            case (_, .set): left[name] = value
            default: break
            }
        }

        /// Notes that the application removed a key, or stored one as a whole: with it go rows of members
        /// that outlived an earlier one.
        ///
        /// - Parameter type: What it was, where keys of other types have tables of their own.
        mutating func takeAlong(_ key: String, _ type: RedisType?) {
            endSum(key)
            for name in left.keys
            where name.key == key
                && (type == nil || name.type == type || !key.hasPrefix("y:"))
            {
                left[name] = nil
            }
            scoresBeyond[key] = nil
        }

        /// Loses all keys by a flush; their rows stay.
        mutating func flush() {
            for key in values.keys.sorted() { remove(key, .deleted) }
            removed = [:]
        }
    }

    /// A command of the stream.
    public struct Propagated {
        /// The offset before it.
        public let start: Int64
        /// The offset after it.
        public let end: Int64
        /// Its name and arguments.
        public let arguments: [String]
    }

    /// The databases, by number.
    public var databases: [Keyspace] = [Keyspace(), Keyspace()]
    /// The present history.
    public private(set) var history = ReplicationID("history-0")
    /// The present offset.
    public private(set) var offset: Int64 = 1
    /// The stream of the present history.
    public private(set) var stream: [Propagated] = []
    /// What the databases held at each boundary of the present history.
    public private(set) var snapshots: [Int64: [Keyspace]] = [:]
    /// The events of keys that went by themselves, with the offset at which each was complete.
    public private(set) var events: [(offset: Int64, event: KeyEvent)] = []
    private var selected = -1
    private var histories = 0

    /// Creates an empty server.
    public init() {
        snapshots[offset] = databases
    }

    /// Propagates the effects of one command or transaction, and remembers what it led to.
    public mutating func propagate(_ commands: [[String]], database: Int) {
        if selected != database {
            selected = database
            emit(["SELECT", "\(database)"])
        }
        let isTransaction = commands.count > 1
        if isTransaction { emit(["MULTI"]) }
        for command in commands { emit(command) }
        if isTransaction { emit(["EXEC"]) }
        for (key, cause) in databases[database].removed {
            events.append(
                (offset, KeyEvent(key: Array(key.utf8), database: database, cause: cause)))
        }
        databases[database].removed = [:]
        snapshots[offset] = databases
    }

    private mutating func emit(_ arguments: [String]) {
        let length = arguments.reduce(4) { $0 + $1.utf8.count + 5 }
        let end = offset + Int64(length)
        stream.append(Propagated(start: offset, end: end, arguments: arguments))
        offset = end
    }

    /// The commands that follow an offset.
    public func commands(after offset: Int64) -> ArraySlice<Propagated> {
        var low = 0
        var high = stream.count
        while low < high {
            let middle = (low + high) / 2
            if stream[middle].start < offset { low = middle + 1 } else { high = middle }
        }
        return stream[low...]
    }

    /// A replica that has received only a part of the stream is promoted: a new history, of which
    /// the old one's beginning is a part.
    public mutating func failOver(to offset: Int64) {
        guard let state = snapshots[offset] else { preconditionFailure("not a boundary") }
        databases = state
        stream.removeAll { $0.start >= offset }
        snapshots = snapshots.filter { $0.key <= offset }
        self.offset = offset
        selected = -1
        beginHistory()
    }

    /// The server restarts from what it has on disk, which may be older than its memory.
    public mutating func restart(from offset: Int64) {
        guard let state = snapshots[offset] else { preconditionFailure("not a boundary") }
        databases = state
        stream = []
        self.offset += 1_000
        snapshots = [self.offset: databases]
        selected = -1
        beginHistory()
    }

    /// A replica attaches without a past: where the stream goes on for it. As a server does, the
    /// next command is preceded by a SELECT, because the replica can't know which database is meant.
    public mutating func resynchronise() -> Position {
        selected = -1
        return Position(history: history, offset: offset, database: 0)
    }

    private mutating func beginHistory() {
        histories += 1
        history = ReplicationID("history-\(histories)")
    }

    /// Notes that keys are read.
    ///
    /// - Parameter hasStrays: Whether tables may have rows without a key: what is read of a score of
    ///   theirs replaces it.
    mutating func noteReads(_ items: [ReadItem], hasStrays: Bool) {
        for item in items {
            databases[item.database].noteRead(item, replaces: hasStrays)
            snapshots[offset]?[item.database].noteRead(item, replaces: hasStrays)
        }
    }

    /// What a read of a key finds.
    public func read(_ item: ReadItem, database: Int) -> ReadResult {
        let key = String(decoding: item.key, as: UTF8.self)
        let keyspace = databases[database]
        guard let value = keyspace.values[key] else {
            switch item.target {
            case .members, .fieldPage:
                return ReadResult(
                    value: .page([], next: Array("0".utf8)),
                    typeName: item.wantsType ? Array("none".utf8) : nil)
            default: return ReadResult(value: .missing)
            }
        }
        return ReadResult(
            value: read(value, item),
            deadline: item.wantsDeadline ? keyspace.deadlines[key] : nil,
            lastEntry: item.wantsLastEntry ? Self.lastEntry(value) : nil,
        )
    }

    private static func lastEntry(_ value: Value) -> Bytes? {
        guard case .stream(let entries) = value else { return nil }
        func number(_ id: String) -> Int { Int(id.split(separator: "-")[0]) ?? 0 }
        return entries.keys.max { number($0) < number($1) }.map { Array($0.utf8) }
    }

    private func read(_ value: Value, _ item: ReadItem) -> ReadValue {
        switch (value, item.type, item.target) {
        case (.string(let text), .string, _): .single(Array(text.utf8))
        case (.hash(let fields), .hash, .fieldPage(let cursor, let count)):
            Self.page(fields.keys.sorted(), cursor, count) { field in
                [Array(field.utf8), Array((fields[field] ?? "").utf8)]
            }
        case (.hash(let fields), .hash, _):
            .elements(
                fields.sorted { $0.key < $1.key }
                    .flatMap { [Array($0.key.utf8), Array($0.value.utf8)] })
        case (.sortedSet(let scores), .sortedSet, .members(let cursor, let count)):
            Self.page(scores.keys.sorted(), cursor, count) { member in
                [Array(member.utf8), Array("\(scores[member] ?? 0)".utf8)]
            }
        case (.sortedSet(let scores), .sortedSet, .member(let member)):
            scores[String(decoding: member, as: UTF8.self)]
                .map { .single(Array("\($0)".utf8)) } ?? .missing
        case (.set(let members), .set, .members(let cursor, let count)):
            Self.page(members.sorted(), cursor, count) { [Array($0.utf8)] }
        case (.set(let members), .set, .member(let member)):
            members.contains(String(decoding: member, as: UTF8.self)) ? .single([]) : .missing
        case (.stream(let entries), .stream, .entries(let after)):
            .entries(Self.page(entries, after: String(decoding: after, as: UTF8.self)))
        default: .wrongType
        }
    }

    // What was added behind the cursor is not seen, as SSCAN may not see it.
    private static func page(
        _ members: [String], _ cursor: Bytes, _ count: Int, _ parts: (String) -> [Bytes],
    ) -> ReadValue {
        let after =
            cursor == Array("0".utf8) ? nil : String(decoding: cursor.dropFirst(), as: UTF8.self)
        let rest = members.filter { member in after.map { member > $0 } ?? true }
        let page = rest.prefix(count)
        let isLast = page.count == rest.count
        let next = isLast ? "0" : "c" + (page.last ?? "")
        return .page(page.flatMap(parts), next: Array(next.utf8))
    }

    private static func page(_ entries: [String: String], after: String) -> [StreamEntry] {
        func order(_ id: String) -> Int { Int(id.split(separator: "-")[0]) ?? 0 }
        let start = after.isEmpty ? -1 : order(after)
        return entries.filter { order($0.key) > start }.sorted { order($0.key) < order($1.key) }
            .prefix(ReadItem.streamPageMax)
            .map { StreamEntry(id: Array($0.key.utf8), fields: [[0x66], Array($0.value.utf8)]) }
    }
}
