/// Turns the commands of the stream into changes of rows.
///
/// A command that is known says its effect and is folded at once. For any other, the server's key
/// specifications say which keys it writes, and those rows become opaque.
struct Interpreter: ~Copyable {
    /// What a command asks of the whole pipeline.
    enum Effect: Equatable {
        case none
        /// All keys of a database went, or of every one.
        case flushed(database: Int?)
        /// The keys of a mapped database are others now.
        case swapped
        /// A command wrote that does not say which keys.
        case unsaid
    }

    var buffer: RowBuffer
    var causes = CauseLedger()
    /// The hash of which fields went last, where their deadlines may have ended.
    var emptied: (key: Bytes, offset: Int64)?
    let mappings: [TableMapping]
    /// The number of the database that is selected.
    private var current = 0
    private let databases: [Int]
    let patterns: [KeyPattern]
    let types: [RedisType]
    let overlaps: Bool
    private let commands = CommandTable()
    var described: [Bytes: CommandDescription] = [:]

    init(mappings: [TableMapping], seed: UInt64) {
        self.mappings = mappings
        databases = mappings.map(\.database)
        patterns = mappings.map(\.keys)
        types = mappings.map(\.type)
        buffer = RowBuffer(mappings: mappings, seed: seed)
        overlaps = mappings.indices.contains { left in
            mappings.indices.contains { $0 != left && mappings[left].overlaps(mappings[$0]) }
        }
    }

    /// Takes the server's description of its commands.
    mutating func learn(_ descriptions: [CommandDescription]) {
        described = Dictionary(descriptions.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    }

    @inline(__always)
    func name(_ text: borrowing Span<UInt8>) -> CommandName? { commands.name(text) }

    /// Applies a command of which the effect ends at an offset.
    ///
    /// - Parameters:
    ///   - isOversized: Whether an argument was larger than the limit and is missing here.
    ///   - current: The database that is selected.
    mutating func apply(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], isOversized: Bool,
        name: CommandName?, current: Int, at offset: Int64,
    ) -> Effect {
        self.current = current
        if isOversized {
            setAside(bytes, arguments, name, at: offset)
            return .none
        }
        switch name {
        case .copy, .move:
            crossDatabase(bytes, arguments, isCopy: name == .copy, at: offset)
            return .none
        case .flushall: return .flushed(database: nil)
        case .swapdb: return isSwapOfMine(bytes, arguments) ? .swapped : .none
        default: break
        }
        guard databases.contains(current) else { return .none }
        return applyHere(bytes, arguments, name, at: offset)
    }

    @inline(__always)
    private mutating func applyHere(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], _ name: CommandName?,
        at offset: Int64,
    ) -> Effect {
        switch name {
        case .incr: increment(bytes, arguments, by: 1, count: 2, at: offset)
        case .decr: increment(bytes, arguments, by: -1, count: 2, at: offset)
        case .incrby: increment(bytes, arguments, sign: 1, at: offset)
        case .decrby: increment(bytes, arguments, sign: -1, at: offset)
        case .set, .setnx: set(bytes, arguments, at: offset)
        case .mset, .msetnx: setMany(bytes, arguments, at: offset)
        case .hset, .hmset, .hsetnx: hashSet(bytes, arguments, at: offset)
        case .hincrby: hashIncrement(bytes, arguments, at: offset)
        case .hdel: hashDelete(bytes, arguments, at: offset)
        case .zadd: scoreAdd(bytes, arguments, at: offset)
        case .zincrby: scoreIncrement(bytes, arguments, at: offset)
        case .zrem: memberRemove(bytes, arguments, type: .sortedSet, at: offset)
        case .sadd: memberAdd(bytes, arguments, at: offset)
        case .srem: memberRemove(bytes, arguments, type: .set, at: offset)
        case .xadd: entryAdd(bytes, arguments, at: offset)
        case .del, .unlink, .getdel, .delifeq, .delex:
            let last = name == .del || name == .unlink ? arguments.count : min(2, arguments.count)
            for index in 1..<max(1, last) {
                let key = bytes.extracting(arguments[index])
                // Redis removes keys by themselves with these two, one key at a time.
                let isAlone = (name == .del || name == .unlink) && arguments.count == 2
                // Valkey says in one transaction that the last fields went, and so the hash.
                let isEmptied = emptied.map { $0.offset == offset && $0.key.equals(key) } ?? false
                let cause = isEmptied ? nil : causes.cause(of: key, in: current, at: offset)
                deleteKey(key, at: offset, isAlone ? cause : .deleted)
            }
        case .pexpireat: expire(bytes, arguments, unit: 1, at: offset)
        case .expireat: expire(bytes, arguments, unit: 1_000, at: offset)
        case .persist: expire(bytes, arguments, unit: nil, at: offset)
        case .rename, .renamenx: rename(bytes, arguments, at: offset)
        case .flushdb: return .flushed(database: current)
        case .sort: sort(bytes, arguments, at: offset)
        // Append-only tables keep their rows, and groups have none.
        case .xdel, .xtrim, .xsetid, .xgroup, .xclaim, .xack, .xdelex, .xackdel: break
        case .ping, .replconf, .publish, .spublish, .function, .script: break
        case .select, .multi, .exec, .flushall, .swapdb, .copy, .move: break
        case nil: return applyUnknown(bytes, arguments, at: offset)
        }
        return .none
    }

    // MARK: Tables

    /// Whether a table maps a key of the database that is selected.
    @inline(__always)
    func maps(_ table: Int, _ key: borrowing Span<UInt8>) -> Bool {
        databases[table] == current && patterns[table].matches(key)
    }

    /// Notes which database is selected.
    mutating func select(_ database: Int) { current = database }

    /// Whether anything of a database is mapped.
    func maps(database: Int) -> Bool { databases.contains(database) }

    /// The table of a type that maps a key.
    ///
    /// A command of a type proves the type of its key. Where only tables of other types map it, it
    /// does not fit them, which a read will say.
    @inline(__always)
    mutating func table(
        of type: RedisType, _ key: borrowing Span<UInt8>, at offset: Int64,
    ) -> Int? {
        for index in patterns.indices where types[index] == type && maps(index, key) {
            if buffer.mayBeStored, overlaps { leaveStored(key, except: index) }
            return index
        }
        makeOpaque(key, at: offset)
        return nil
    }

    private mutating func leaveStored(_ key: borrowing Span<UInt8>, except table: Int) {
        for other in patterns.indices where other != table && maps(other, key) {
            if let slot = buffer.tables[other].findKey(key) { buffer.leaveStored(other, slot) }
        }
    }

    /// Makes the rows of a key opaque in each table that maps it.
    ///
    /// - Parameter isPart: Whether a command changed a part of what the key was.
    mutating func makeOpaque(
        _ key: borrowing Span<UInt8>, at offset: Int64, isPart: Bool = false,
    ) {
        for table in patterns.indices where maps(table, key) {
            makeOpaque(table, key, nil, isPart: isPart, at: offset)
        }
    }

    mutating func makeOpaque(
        _ table: Int, _ key: borrowing Span<UInt8>, _ write: CommandDescription.Write?,
        isPart: Bool = false, at offset: Int64,
    ) {
        let slot = buffer.tables[table].key(key)
        let row = Int(buffer.tables[table].keys[slot].first)
        if mappings[table].isOneRowPerKey {
            guard buffer.isCurrent(table, row: row, at: offset) else {
                buffer.noteSkipped(table, row: row, write)
                return buffer.unspare(table, row)
            }
        } else {
            guard offset > buffer.tables[table].keys[slot].readOffset else {
                return buffer.noteSkipped(table, slot, write, isPart: isPart)
            }
        }
        let hasOthers = mappings[table].canKeep || buffer.tables[table].readsUnknown
        let isPart = (isPart || write == .changed) && hasOthers
        buffer.makeKeyOpaque(table, slot, at: offset, isPart ? .part : .whole)
        buffer.noteType(table, slot, write)
    }

    /// Removes a key.
    ///
    /// - Parameters:
    ///   - cause: Why it went, or nil when nobody knows.
    ///   - type: What it is from now on.
    mutating func deleteKey(
        _ key: borrowing Span<UInt8>, at offset: Int64, _ cause: RemovalCause?,
        except type: RedisType? = nil,
    ) {
        for table in patterns.indices where types[table] != type && maps(table, key) {
            guard types[table] != .stream else {
                if let slot = buffer.tables[table].findKey(key) {
                    buffer.endMistyped(table, key: slot, at: offset)
                }
                continue
            }
            let slot = buffer.tables[table].key(key)
            let policy = mappings[table].needsCause ? cause : .deleted
            buffer.resolveReplaced(table, slot, before: offset)
            if type == nil { buffer.ownStored(table, slot) }
            // What was read missing before its removal was seen learns now why it went.
            if mappings[table].isOneRowPerKey {
                deleteRow(table, Int(buffer.tables[table].keys[slot].first), at: offset, policy)
            } else {
                let state = buffer.tables[table].keys[slot]
                let isMissing = state.flags.contains(.missing)
                let isKept = policy.map { mappings[table].removal[$0] == .keep } ?? true
                guard offset > state.readOffset || isMissing else {
                    // What was read is a later key's, and replaced what this one had.
                    buffer.sweepUnproven(table, slot)
                    buffer.resolveTentative(table, slot, policy)
                    if isKept { buffer.vanish(table, slot) }
                    continue
                }
                if isMissing { buffer.tables[table].keys[slot].readOffset = .min }
                // What was trimmed may have been emptied before another type came to the name.
                let mayBeEmptied =
                    type != nil && state.flags.isSuperset(of: [.opaque, .looked])
                buffer.clear(table, slot, at: offset, policy, isEmptied: mayBeEmptied)
                if mayBeEmptied { buffer.sweepLooked(table, slot, before: state.flags) }
                if isKept, buffer.wasUnread(table, state.flags) { buffer.vanish(table, slot) }
            }
        }
    }

    // Of a key that has one row: it goes unless it was read further on, and is a later key's.
    private mutating func deleteRow(
        _ table: Int, _ row: Int, at offset: Int64, _ cause: RemovalCause?,
    ) {
        let state = buffer.tables[table].rows[row]
        if offset <= state.readOffset, state.shape != .missing {
            let policy = cause.map { mappings[table].removal[$0] }
            if policy == .keep, buffer.canTakeBackRead(table, row) {
                buffer.readOnceMore(table, row)
            } else if policy != .keep, policy != nil, buffer.canForgetRead(table, row) {
                buffer.forgetRead(table, row)
            } else {
                return buffer.goBeforeRead(table, row, policy)
            }
        }
        // From here on the stream says everything.
        if state.shape == .missing { buffer.tables[table].rows[row].readOffset = .min }
        buffer.remove(table, row, cause)
    }

    /// Whether a command removes a key of which the cause matters.
    ///
    /// - Parameter current: The database that is selected, or nil when that is not known yet.
    func needsCause(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], current: Int?,
    ) -> Bool {
        guard arguments.count == 2 else { return false }
        let key = bytes.extracting(arguments[1])
        return mappings.indices.contains {
            mappings[$0].needsCause && patterns[$0].matches(key)
                && (current == nil || databases[$0] == current)
        }
    }

    /// The slot of a key's only row, or nil when the change is in its value already.
    @inline(__always)
    mutating func row(_ table: Int, _ key: borrowing Span<UInt8>, at offset: Int64) -> Int? {
        let slot = buffer.tables[table].key(key)
        let row = Int(buffer.tables[table].keys[slot].first)
        return buffer.isCurrent(table, row: row, at: offset) ? row : nil
    }

    /// See ``row(_:_:at:)``, for a command that says the type of the key.
    @inline(__always)
    mutating func ownRow(_ table: Int, _ key: borrowing Span<UInt8>, at offset: Int64) -> Int? {
        let slot = buffer.tables[table].key(key)
        let row = Int(buffer.tables[table].keys[slot].first)
        if buffer.isCurrent(table, row: row, at: offset) { return row }
        buffer.noteSkipped(table, row: row)
        return nil
    }

    /// A string that is put to a key removes what was there of another type.
    @inline(__always)
    mutating func leaveOtherTypes(_ key: borrowing Span<UInt8>, at offset: Int64) {
        if overlaps { deleteKey(key, at: offset, .deleted, except: .string) }
    }

    // MARK: Commands on two keys

    // The application removed the old name; what has the new one is read.
    private mutating func rename(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count == 3 else {
            _ = applyUnknown(bytes, arguments, at: offset)
            return
        }
        let new = Bytes(copying: bytes.extracting(arguments[2]))
        if !new.equals(bytes.extracting(arguments[1])) {
            deleteKey(bytes.extracting(arguments[1]), at: offset, .deleted)
        }
        makeOpaque(new.span, at: offset)
    }

    private mutating func crossDatabase(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], isCopy: Bool,
        at offset: Int64,
    ) {
        guard arguments.count >= 3 else { return }
        var target = current
        if isCopy {
            for index in 3..<max(3, arguments.count - 1)
            where bytes.extracting(arguments[index]).isWord("db") {
                target = Int(Number.integer(bytes.extracting(arguments[index + 1])) ?? -1)
            }
            current = target
            makeOpaque(bytes.extracting(arguments[2]), at: offset)
            return
        }
        deleteKey(bytes.extracting(arguments[1]), at: offset, .deleted)
        current = Int(Number.integer(bytes.extracting(arguments[2])) ?? -1)
        makeOpaque(bytes.extracting(arguments[1]), at: offset)
    }

    private func isSwapOfMine(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>],
    ) -> Bool {
        for index in 1..<arguments.count {
            let number = Number.integer(bytes.extracting(arguments[index]))
            if let number, maps(database: Int(number)) { return true }
        }
        return false
    }
}
