/// A hash that is read page by page, because all its fields are mapped and it may have many.
///
/// The pages are read at offsets of their own. Fields that change meanwhile are put by, and laid over
/// what was read once the stream is past the last page: from there on both say the same. A change that
/// does not say its result begins the reading anew.
struct FieldScan {
    /// Where the next page begins.
    var cursor: Bytes
    /// Where the stream has to be before the pages and the changes are one, once all pages are there.
    var end: Int64?
    /// Fields and values in the order in which they were read; the last one of a field counts.
    var pairs: [(name: Bytes, value: Bytes)] = []
    /// Fields that the stream set, or removed (nil), since the first page.
    var changes: [Bytes: Bytes?] = [:]
    /// The deadline that the last page had.
    var deadline: Int64?
    /// The deadline that the stream set or removed (nil) since the first page.
    var changedDeadline: Int64??
    /// Bytes of memory that it takes, about.
    var memory = 0
    /// Bytes of the fields and values that were read.
    var bytes = 0

    /// What one field takes beside its bytes.
    static let fieldOverhead = 96
    /// The most bytes of fields and values of one hash.
    static let bytesMax = 64 << 20
    /// So often a scan begins anew before the hash is read at once, whatever that costs Redis.
    static let restartsMax = 3

    mutating func append(_ elements: [Bytes]) {
        for index in stride(from: 0, to: elements.count - 1, by: 2) {
            pairs.append((elements[index], elements[index + 1]))
            let count = elements[index].count + elements[index + 1].count
            bytes += count
            memory += count + Self.fieldOverhead
        }
    }

    mutating func note(_ name: Bytes, _ value: Bytes?) {
        memory += name.count + (value?.count ?? 0) + Self.fieldOverhead
        changes[name] = .some(value)
    }

    /// All fields with their last values.
    consuming func fields() -> [(name: Bytes, value: Bytes)] {
        var last = changes
        for pair in pairs where changes[pair.name] == nil { last[pair.name] = .some(pair.value) }
        return last.compactMap { name, value in value.map { (name, $0) } }
    }
}

extension RowBuffer {
    /// Whether a row's hash is being read page by page.
    func isScanningFields(_ table: Int, _ row: Int) -> Bool {
        scanCount > 0 && tables[table].fieldScans[Int32(row)] != nil
    }

    /// Whether all of its pages are there.
    func isFieldScanComplete(_ table: Int, _ row: Int) -> Bool {
        tables[table].fieldScans[Int32(row)]?.end != nil
    }

    /// What is to be read next of a hash of which all fields are mapped.
    func fieldTarget(_ table: Int, _ row: Int?, pageMembers: Int) -> ReadItem.Target {
        guard let row else { return .key }
        let number = Int32(row)
        if tables[table].fieldScanRestarts[number] ?? 0 >= FieldScan.restartsMax { return .key }
        let cursor = tables[table].fieldScans[number]?.cursor ?? Baseline.firstCursor
        return .fieldPage(cursor: cursor, count: pageMembers)
    }

    /// Takes in a page of fields of a hash that has more than one.
    mutating func applyFieldPage(
        _ elements: [Bytes], next: Bytes, _ table: Int, _ row: Int, _ deadline: Int64?,
        at offset: Int64, until: Int64,
    ) {
        let number = Int32(row)
        if tables[table].fieldScans[number] == nil {
            tables[table].fieldScans[number] = FieldScan(cursor: [])
            scanCount += 1
            // Changes up to here are in every page.
            tables[table].rows[row].readOffset = offset
        }
        changeScan(table, number) { scan in
            scan.append(elements)
            scan.cursor = next
            scan.deadline = deadline
            // To look at a key past its deadline removes it: then the stream says so up to there.
            scan.end = next == Baseline.firstCursor ? until : nil
        }
        readOffsetMax = max(readOffsetMax, until)
        looseOffsetMax = max(looseOffsetMax, until)
        guard !isTooLarge(tables[table].fieldScans[number]) else {
            let misfit = Misfit(.tooLarge, "the fields of the hash are larger than the limit")
            return setAside(table, row, misfit)
        }
        if next != Baseline.firstCursor { queueRead(table, row: row) }
    }

    // JSON of more is no use to a database, and a hash is written at once or not at all.
    private func isTooLarge(_ scan: FieldScan?) -> Bool {
        guard let scan else { return false }
        return scan.bytes > FieldScan.bytesMax || scan.memory > fieldScanMemoryMax
    }

    /// Begins anew with all hashes that are being read but the one of which most was read: together
    /// they do not fit.
    mutating func keepLargestFieldScan() {
        var largest: (table: Int, row: Int32, memory: Int)?
        for table in tables.indices {
            for (row, scan) in tables[table].fieldScans where scan.memory > largest?.memory ?? -1 {
                largest = (table, row, scan.memory)
            }
        }
        for table in tables.indices {
            for row in tables[table].fieldScans.keys
            where table != largest?.table || row != largest?.row {
                restartFieldScan(table, Int(row), counts: false)
            }
        }
    }

    /// Notes that the stream sets a field, or removes it when the value is nil, of a hash that is being
    /// read.
    mutating func noteField(
        _ table: Int, _ row: Int, _ field: borrowing Span<UInt8>, _ value: Bytes?,
    ) {
        let name = Bytes(copying: field)
        changeScan(table, Int32(row)) { $0.note(name, value) }
    }

    /// Notes that the stream sets or removes the deadline of a hash that is being read.
    mutating func noteDeadline(_ table: Int, _ row: Int, _ deadline: Int64?) {
        changeScan(table, Int32(row)) { $0.changedDeadline = .some(deadline) }
    }

    private mutating func changeScan(
        _ table: Int, _ row: Int32, _ change: (inout FieldScan) -> Void,
    ) {
        guard tables[table].fieldScans[row] != nil else { return }
        let before = tables[table].fieldScans[row]?.memory ?? 0
        change(&tables[table].fieldScans[row, default: FieldScan(cursor: [])])
        tables[table].contentMemory += (tables[table].fieldScans[row]?.memory ?? 0) - before
    }

    /// Begins anew with reading a hash, because a change does not say its result.
    mutating func restartFieldScan(_ table: Int, _ row: Int, counts: Bool = true) {
        guard isScanningFields(table, row) else { return }
        let restarts = tables[table].fieldScanRestarts[Int32(row)] ?? 0
        endFieldScan(table, row)
        if counts { tables[table].fieldScanRestarts[Int32(row)] = restarts + 1 }
        tables[table].rows[row].readOffset = .min
        queueRead(table, row: row)
    }

    /// Begins anew with all hashes that are being read.
    mutating func restartFieldScans() {
        for table in tables.indices {
            for row in tables[table].fieldScans.keys {
                restartFieldScan(table, Int(row), counts: false)
            }
        }
    }

    /// Forgets what was read of a hash.
    mutating func endFieldScan(_ table: Int, _ row: Int) {
        tables[table].fieldScanRestarts[Int32(row)] = nil
        guard let scan = tables[table].fieldScans.removeValue(forKey: Int32(row)) else { return }
        tables[table].contentMemory -= scan.memory
        scanCount -= 1
    }

    /// Puts the hashes of which all was read, once the stream is past their last page.
    mutating func finishFieldScans(processed: Int64) {
        guard scanCount > 0 else { return }
        for table in tables.indices {
            for (row, scan) in tables[table].fieldScans {
                guard let end = scan.end, end <= processed else { continue }
                finish(scan, table, Int(row), at: end)
            }
        }
    }

    private mutating func finish(
        _ scan: consuming FieldScan, _ table: Int, _ row: Int, at offset: Int64,
    ) {
        endFieldScan(table, row)
        let deadline = scan.changedDeadline ?? scan.deadline
        let fields = scan.fields()
        // Whether the key is gone, only another look can say.
        guard !fields.isEmpty else { return queueRead(table, row: row) }
        beginPut(table, row)
        var rest: [(name: Bytes, value: Bytes)] = []
        for (name, value) in fields {
            if let column = fieldColumn(table, name.span) {
                putText(table, row, column, value.span)
            } else {
                rest.append((name, value))
            }
        }
        if let column = tables[table].mapping.rest, !rest.isEmpty {
            tables[table].set(row, column, .fields(FieldMap(rest)))
        }
        if let column = tables[table].mapping.deadline { setCell(table, row, column, deadline) }
        tables[table].rows[row].readOffset = offset
        looseOffsetMax = max(looseOffsetMax, offset)
    }

    private mutating func queueRead(_ table: Int, row: Int) {
        returnToRead(
            Opaque(table: table, key: Int(tables[table].rows[row].key), row: row))
    }
}
