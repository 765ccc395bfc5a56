/// The rows of one table: an index of keys, an index of members, and flat storage of cells.
struct TableBuffer {
    let mapping: TableMapping
    let hasher: ByteHasher
    let width: Int
    /// Whether a change of a row that is not known must read it: during a baseline, and while the
    /// table holds rows without a key.
    var readsUnknown = false
    /// Whether the last baseline, or a person since, had its rows looked up, or begins to: rows that have
    /// no key since then may not have been counted.
    private(set) var wasSwept = false
    /// Keys from which members went since then that are not known. When all other rows without a key are
    /// gone, what is there and not in Redis is of these.
    private(set) var trimmed: Set<Bytes> = []
    private static let trimmedMax = 4_096
    private static let trimmedKeyMax = 256
    /// Whether other tables map some of its keys, if they are of another type.
    var isShared = false
    /// Whether other tables map some of its keys, if they are of another type, and some types are
    /// mapped by none.
    var asksType = false

    /// Rows, keys and the whole table that outlived their keys since the last cut.
    var kept: [Int32: Kept] = [:]
    var keptKeys: [Int32: Kept] = [:]
    var keptTable: Kept?
    /// Those of them (keys where these have many rows) of which a state that was to be written was
    /// forgotten, because another key came to the name and is to be read.
    var forgotten: Set<Int32> = []
    /// Whether all rows went since the last cut, except those that were put after.
    var isWiped = false
    /// What was added to rows that are read, in case they outlived their keys.
    var spared: [Int32: Spared] = [:]
    /// What dead letters say that was to be added to scores.
    var letterSums: [Int32: Double] = [:]
    /// What was to be added to rows, and stands only in their dead letters.
    var pendingTotals: [Int32: PendingTotal] = [:]
    /// Rows whose key went before the place of the stream at which they were read, and which stay.
    var goneBeforeRead: Set<Int32> = []
    /// Those of them that are read once more, because a successor of the server may never have had them.
    var goneUnread: Set<Int32> = []
    /// Hashes that are read page by page.
    var fieldScans: [Int32: FieldScan] = [:]
    /// How often such a reading began anew.
    var fieldScanRestarts: [Int32: Int] = [:]

    var keys: [Key] = []
    var rows: [Row] = []
    var cells: [Cell] = []
    var dirtyRows: [Int32] = []
    var dirtyKeys: [Int32] = []
    var appended: StreamEntries
    private var keyIndex = HashIndex()
    private var memberIndex = HashIndex()
    private var freeKeys: [Int32] = []
    private var freeRows: [Int32] = []
    /// Bytes of the keys, members and values, about; the structures' own are in ``memory``.
    var contentMemory = 0

    init(mapping: TableMapping, hasher: ByteHasher) {
        self.mapping = mapping
        self.hasher = hasher
        self.width = mapping.values.count
        self.appended = StreamEntries(mapping)
    }

    /// Bytes of memory that the table takes, about.
    var memory: Int {
        let rowStride = MemoryLayout<Row>.stride + width * MemoryLayout<Cell>.stride
        return contentMemory + (rows.count - freeRows.count) * rowStride
            + (keys.count - freeKeys.count) * MemoryLayout<Key>.stride
            + keyIndex.memory + memberIndex.memory + appended.memory
    }

    var keyCount: Int { keys.count - freeKeys.count }
    var rowCount: Int { rows.count - freeRows.count }

    // MARK: Keys

    /// The slot of a key that is known.
    @inline(__always)
    func findKey(_ bytes: borrowing Span<UInt8>) -> Int? {
        var probe = keyIndex.probe(hasher.hash(bytes))
        while let slot = keyIndex.next(&probe) {
            if keys[slot].bytes.equals(bytes) { return slot }
        }
        return nil
    }

    /// The slot of a key, made if it is new.
    @inline(__always)
    mutating func key(_ bytes: borrowing Span<UInt8>) -> Int {
        let hash = hasher.hash(bytes)
        var probe = keyIndex.probe(hash)
        while let slot = keyIndex.next(&probe) {
            if keys[slot].bytes.equals(bytes) { return slot }
        }
        return insertKey(bytes, hash: hash)
    }

    private mutating func insertKey(_ bytes: borrowing Span<UInt8>, hash: UInt64) -> Int {
        let slot: Int
        if let free = freeKeys.popLast() {
            slot = Int(free)
            keys[slot] = Key()
        } else {
            slot = keys.count
            keys.append(Key())
        }
        keys[slot].bytes = Bytes(copying: bytes)
        keys[slot].hash = hash
        contentMemory += 32 + keys[slot].bytes.capacity
        keyIndex.insert(slot, hash: hash)
        if mapping.isOneRowPerKey {
            let row = newRow(key: slot)
            keys[slot].first = Int32(row)
        }
        return slot
    }

    /// Frees a key and its rows; none of them may be queued.
    mutating func freeKey(_ slot: Int) {
        var row = Int(keys[slot].first)
        while row >= 0 {
            let next = Int(rows[row].next)
            freeRow(row)
            row = next
        }
        keyIndex.remove(slot, hash: keys[slot].hash)
        contentMemory -= 32 + keys[slot].bytes.capacity
        keys[slot] = Key()
        keys[slot].flags = .free
        freeKeys.append(Int32(slot))
    }

    // MARK: Rows

    /// The slot of a member's row, made if it is new.
    @inline(__always)
    mutating func member(_ bytes: borrowing Span<UInt8>, of key: Int) -> Int {
        let hash = hasher.hash(bytes, salt: UInt64(key + 1))
        var probe = memberIndex.probe(hash)
        while let slot = memberIndex.next(&probe) {
            if Int(rows[slot].key) == key, rows[slot].member.equals(bytes) { return slot }
        }
        let slot = newRow(key: key)
        rows[slot].member = Bytes(copying: bytes)
        rows[slot].hash = hash
        contentMemory += 32 + rows[slot].member.capacity
        memberIndex.insert(slot, hash: hash)
        let first = keys[key].first
        rows[slot].next = first
        if first >= 0 { rows[Int(first)].previous = Int32(slot) }
        keys[key].first = Int32(slot)
        return slot
    }

    private mutating func newRow(key: Int) -> Int {
        let slot: Int
        if let free = freeRows.popLast() {
            slot = Int(free)
            rows[slot] = Row()
        } else {
            slot = rows.count
            rows.append(Row())
            for _ in 0..<width { cells.append(.unchanged) }
        }
        rows[slot].key = Int32(key)
        return slot
    }

    /// Frees a row. A row of a one-row table goes only with its key.
    mutating func freeRow(_ slot: Int) {
        if !mapping.isOneRowPerKey {
            memberIndex.remove(slot, hash: rows[slot].hash)
            contentMemory -= 32 + rows[slot].member.capacity
            let (next, previous) = (rows[slot].next, rows[slot].previous)
            if next >= 0 { rows[Int(next)].previous = previous }
            if previous >= 0 {
                rows[Int(previous)].next = next
            } else {
                keys[Int(rows[slot].key)].first = next
            }
        }
        fill(slot, with: .unchanged)
        if !pendingTotals.isEmpty { pendingTotals[Int32(slot)] = nil }
        forgetGone(slot)
        rows[slot] = Row()
        rows[slot].flags = .free
        freeRows.append(Int32(slot))
    }

    // MARK: Rows without a key

    /// Notes that its rows are to be looked up from the first on, or that they are not known any more.
    mutating func beginSweep(_ begins: Bool = true) {
        wasSwept = begins
        trimmed = []
    }

    /// Notes that members went from a key that are not known.
    ///
    /// - Returns: Whether that is remembered, or need not be: they are still to be looked up.
    mutating func noteTrimmed(_ key: Bytes) -> Bool {
        guard wasSwept else { return true }
        guard key.count <= Self.trimmedKeyMax,
            trimmed.count < Self.trimmedMax || trimmed.contains(key)
        else { return false }
        trimmed.insert(key)
        return true
    }

    /// Forgets that members went from a key: its rows stay, as ones that outlived it.
    mutating func forgetTrimmed(_ key: Bytes) {
        if !trimmed.isEmpty { trimmed.remove(key) }
    }

    /// The keys from which members went, once all other rows without a key are gone.
    mutating func takeTrimmed() -> Set<Bytes> {
        defer { trimmed = [] }
        return trimmed
    }

    /// Forgets that a row outlived its key.
    @inline(__always)
    mutating func forgetKept(_ row: Int) {
        if !kept.isEmpty { kept[Int32(row)] = nil }
        if !spared.isEmpty { spared[Int32(row)] = nil }
    }

    /// Forgets that the key of a row went before the row was read.
    mutating func forgetGone(_ row: Int) {
        if !goneBeforeRead.isEmpty { goneBeforeRead.remove(Int32(row)) }
        if !goneUnread.isEmpty { goneUnread.remove(Int32(row)) }
    }

    // MARK: Cells

    @inline(__always)
    func place(_ row: Int, _ column: Int) -> Int { row * width + column }

    /// Replaces a cell.
    @inline(__always)
    mutating func set(_ row: Int, _ column: Int, _ cell: consuming Cell) {
        let place = place(row, column)
        contentMemory += cell.memory - cells[place].memory
        cells[place] = cell
    }

    /// Replaces a cell by bytes, in the memory of the bytes that it holds if there are any.
    mutating func set(_ row: Int, _ column: Int, copying bytes: borrowing Span<UInt8>) {
        let place = place(row, column)
        contentMemory -= cells[place].memory
        // Taken out and put back, so that the bytes have one owner and are overwritten in place.
        let old = exchange(&cells[place], with: .unchanged)
        var held: Bytes = []
        if case .bytes(let bytes) = consume old { held = bytes }
        held.assign(bytes)
        cells[place] = .bytes(held)
        contentMemory += cells[place].memory
    }

    /// Sets a field, or removes it when the value is nil, in a cell that holds a JSON object.
    mutating func setField(
        _ row: Int, _ column: Int, _ field: borrowing Span<UInt8>,
        to value: borrowing Span<UInt8>,
    ) {
        let place = place(row, column)
        var map = takeFields(place)
        map.set(field, to: value)
        contentMemory += map.memory
        cells[place] = .fields(map)
    }

    /// Removes a field from a cell that holds a JSON object.
    mutating func removeField(_ row: Int, _ column: Int, _ field: borrowing Span<UInt8>) {
        let place = place(row, column)
        var map = takeFields(place)
        map.remove(field)
        contentMemory += map.memory
        cells[place] = .fields(map)
    }

    // Taken out and put back, so that the map has one owner and changes in place.
    private mutating func takeFields(_ place: Int) -> FieldMap {
        contentMemory -= cells[place].memory
        let old = exchange(&cells[place], with: .unchanged)
        switch consume old {
        case .fields(let held): return held
        case .null: return FieldMap(replaces: true)
        default: return FieldMap()
        }
    }

    /// Sets all cells of a row.
    @inline(__always)
    mutating func fill(_ row: Int, with cell: Cell) {
        for column in 0..<width { set(row, column, cell) }
    }

    private func exchange(_ cell: inout Cell, with new: consuming Cell) -> Cell {
        swap(&cell, &new)
        return new
    }
}

/// What was added to a row that is read, in case it outlived its key.
struct Spared {
    var delta: Int64 = 0
    /// The same of a score.
    var real = 0.0
    /// What a score's dead letter says that was to be added before that, be it to an earlier key's.
    var letter = 0.0
    /// What the row's dead letter says that was to be added to it before that, while an earlier key had
    /// its name perhaps.
    var pending: PendingTotal?
    /// Whether its key went once more meanwhile, so that what is read is not all that was added.
    var isBroken = false
    /// Whether adds came before this instance started that the database does not have.
    var isUnknown = false
    /// Whether its name was removed before that: what the row had then is no total that goes on, unless
    /// the database remembers that it had outlived its key.
    var isAnew = false
}

extension Int64 {
    /// The sum, or the limit that it is beyond: a database refuses to add so much to a total above 0, where a
    /// sum that wrapped around would be taken.
    func clampedAdding(_ other: Int64) -> Int64 {
        let (sum, isOver) = addingReportingOverflow(other)
        return isOver ? (other < 0 ? .min : .max) : sum
    }
}

extension Spared {
    /// Whether something was added that is still to be written.
    var hasSum: Bool { delta != 0 || score != 0 }

    /// Whether something was added that the database does not have, and no letter.
    var lacksAdds: Bool { delta != 0 || real != 0 || isUnknown }

    /// All that was added to a score.
    var score: Double { real + letter }
}

/// Entries of streams that wait for a cut.
struct StreamEntries {
    struct Entry {
        let key: Int32
        let milliseconds: UInt64
        let sequence: UInt64
        let misfit: Misfit?
        /// All fields as a JSON object, where the entry does not fit.
        let value: Bytes?
    }

    var entries: [Entry] = []
    /// The entries' values; all null where an entry does not fit.
    var columns: [ColumnVector]

    init(_ mapping: TableMapping) {
        columns = mapping.type == .stream ? mapping.values.map { ColumnVector($0.type) } : []
    }

    var memory: Int {
        entries.capacity * MemoryLayout<Entry>.stride + columns.reduce(0) { $0 + $1.memory }
    }

    mutating func removeAll() {
        entries.removeAll(keepingCapacity: entries.capacity < 1 << 16)
        for index in columns.indices { columns[index].removeAll() }
    }
}
