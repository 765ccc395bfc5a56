// Strings.
extension Interpreter {
    @inline(__always)
    mutating func increment(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], sign: Int64,
        at offset: Int64,
    ) {
        guard arguments.count == 3, let delta = Number.integer(bytes.extracting(arguments[2])),
            delta != .min
        else {
            if arguments.count > 1 { makeOpaque(bytes.extracting(arguments[1]), at: offset) }
            return
        }
        increment(bytes, arguments, by: sign * delta, count: 3, at: offset)
    }

    @inline(__always)
    mutating func increment(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], by delta: Int64, count: Int,
        at offset: Int64,
    ) {
        guard arguments.count == count else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .string, key, at: offset) else { return }
        let slot = buffer.tables[table].key(key)
        let row = Int(buffer.tables[table].keys[slot].first)
        guard buffer.isCurrent(table, row: row, at: offset) else {
            buffer.noteSkipped(table, row: row)
            return buffer.noteSpared(table, row, delta)
        }
        // Text that holds a number, a decimal, a real: only Redis knows how it writes the sum.
        guard mappings[table].isCounter else {
            return buffer.makeOpaque(table, row)
        }
        if buffer.beginMerge(table, row, isAdd: true) { buffer.add(table, row, 0, delta) }
        buffer.noteSpared(table, row, delta)
    }

    @inline(__always)
    mutating func set(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count >= 3 else { return }
        let key = bytes.extracting(arguments[1])
        var deadline: Int64?
        var keepsDeadline = false
        var index = 3
        while index < arguments.count {
            let option = bytes.extracting(arguments[index])
            if option.isWord("pxat"), index + 1 < arguments.count {
                deadline = Number.integer(bytes.extracting(arguments[index + 1]))
                index += 1
            } else if option.isWord("keepttl") {
                keepsDeadline = true
            } else if option.isWord("ifeq"), index + 1 < arguments.count {
                index += 1
            } else if !(option.isWord("nx") || option.isWord("xx") || option.isWord("get")) {
                return makeOpaque(key, at: offset)
            }
            index += 1
        }
        let value = bytes.extracting(arguments[2])
        put(key, value, deadline: deadline, keepsDeadline: keepsDeadline, at: offset)
    }

    mutating func setMany(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        for index in stride(from: 1, to: arguments.count - 1, by: 2) {
            let key = bytes.extracting(arguments[index])
            let value = bytes.extracting(arguments[index + 1])
            put(key, value, deadline: nil, keepsDeadline: false, at: offset)
        }
    }

    @inline(__always)
    private mutating func put(
        _ key: borrowing Span<UInt8>, _ value: borrowing Span<UInt8>, deadline: Int64?,
        keepsDeadline: Bool, at offset: Int64,
    ) {
        guard let table = table(of: .string, key, at: offset) else { return }
        leaveOtherTypes(key, at: offset)
        let slot = buffer.tables[table].key(key)
        let row = Int(buffer.tables[table].keys[slot].first)
        let column = mappings[table].deadline
        let isWhole = !keepsDeadline || column == nil
        if offset <= buffer.tables[table].rows[row].readOffset {
            guard isWhole, buffer.canForgetRead(table, row) else {
                buffer.noteSkipped(table, row: row)
                return buffer.unspare(table, row)
            }
            buffer.forgetRead(table, row)
        }
        if !isWhole {
            guard buffer.beginMerge(table, row) else { return }
        } else {
            buffer.beginPut(table, row)
            if let column { buffer.setCell(table, row, column, deadline) }
        }
        buffer.putText(table, row, 0, value)
    }

    mutating func expire(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], unit: Int64?,
        at offset: Int64,
    ) {
        guard arguments.count >= 2 else { return }
        let key = bytes.extracting(arguments[1])
        var deadline: Int64?
        if let unit {
            guard arguments.count >= 3, let time = Number.integer(bytes.extracting(arguments[2]))
            else { return makeOpaque(key, at: offset) }
            deadline = time.multipliedReportingOverflow(by: unit).partialValue
        }
        for table in mappings.indices
        where mappings[table].deadline != nil && maps(table, key) {
            guard let row = row(table, key, at: offset) else { continue }
            buffer.setDeadline(table, row, deadline)
        }
    }
}

// Hashes.
extension Interpreter {
    @inline(__always)
    mutating func hashSet(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count >= 4 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .hash, key, at: offset),
            let row = ownRow(table, key, at: offset)
        else { return }
        let isMerged = buffer.beginMerge(table, row)
        guard isMerged || buffer.isScanningFields(table, row) else { return }
        var index = 2
        while index + 1 < arguments.count {
            let field = bytes.extracting(arguments[index])
            let value = bytes.extracting(arguments[index + 1])
            if isMerged {
                buffer.setField(table, row, field, to: value)
            } else {
                buffer.noteField(table, row, field, Bytes(copying: value))
            }
            index += 2
        }
    }

    mutating func hashIncrement(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count == 4 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .hash, key, at: offset),
            let row = ownRow(table, key, at: offset)
        else { return }
        let field = bytes.extracting(arguments[2])
        let column = buffer.fieldColumn(table, field)
        let isAddable = column.map { mappings[table].values[$0].type == .integer }
        guard let delta = Number.integer(bytes.extracting(arguments[3])),
            isAddable ?? (mappings[table].rest == nil), !buffer.isScanningFields(table, row)
        else { return buffer.makeOpaque(table, row) }
        // Only the adds of strings are counted for rows that are not known.
        buffer.unspare(table, row)
        guard buffer.beginMerge(table, row, isAdd: true) else { return }
        // A field that no column takes still makes the key, and so the row.
        if let column { buffer.add(table, row, column, delta) }
    }

    mutating func hashDelete(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count >= 3 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .hash, key, at: offset),
            let row = ownRow(table, key, at: offset)
        else { return }
        if buffer.mayFieldsExpire { emptied = (Bytes(copying: key), offset) }
        if buffer.isScanningFields(table, row) {
            // It may empty the hash, and with it goes the deadline that the last page had.
            if buffer.isFieldScanComplete(table, row) { return buffer.makeOpaque(table, row) }
            for index in 2..<arguments.count {
                buffer.noteField(table, row, bytes.extracting(arguments[index]), nil)
            }
            return
        }
        // An empty hash is no key, and nothing in the stream says so: the row must be read unless
        // it is known to have another field.
        guard buffer.isKnown(table, row) else { return buffer.makeOpaque(table, row) }
        for index in 2..<arguments.count {
            buffer.removeField(table, row, bytes.extracting(arguments[index]))
        }
        if buffer.isEmpty(table, row) {
            buffer.makeOpaque(table, row)
        } else {
            buffer.touch(table, row)
        }
    }
}

extension RowBuffer {
    @inline(__always)
    mutating func setCell(_ table: Int, _ row: Int, _ column: Int, _ value: Int64?) {
        tables[table].set(row, column, value.map(Cell.integer) ?? .null)
    }

    /// Whether the buffer has the whole value of a row.
    func isKnown(_ table: Int, _ row: Int) -> Bool {
        tables[table].rows[row].shape == .value && !tables[table].rows[row].flags.contains(.gone)
    }

    /// Whether all columns of a row that its fields fill are null.
    func isEmpty(_ table: Int, _ row: Int) -> Bool {
        for column in 0..<tables[table].width where column != tables[table].mapping.deadline {
            switch tables[table].cells[tables[table].place(row, column)] {
            case .null, .unchanged: continue
            case .fields(let map) where map.isEmpty: continue
            default: return false
            }
        }
        return true
    }

    mutating func removeField(_ table: Int, _ row: Int, _ field: borrowing Span<UInt8>) {
        if let column = fieldColumn(table, field) {
            tables[table].set(row, column, .null)
        } else if let rest = tables[table].mapping.rest {
            tables[table].removeField(row, rest, field)
        }
    }
}

// Sorted sets, sets and streams.
extension Interpreter {
    @inline(__always)
    mutating func scoreAdd(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count >= 4 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .sortedSet, key, at: offset) else { return }
        let slot = buffer.tables[table].key(key)
        guard buffer.begin(table, key: slot, at: offset) else { return }
        var index = 2
        var isConditional = false
        while index < arguments.count {
            let flag = bytes.extracting(arguments[index])
            if flag.isWord("nx") || flag.isWord("xx") || flag.isWord("gt") || flag.isWord("lt")
                || flag.isWord("incr")
            {
                isConditional = true
            } else if !flag.isWord("ch") {
                break
            }
            index += 1
        }
        while index + 1 < arguments.count {
            let member = bytes.extracting(arguments[index + 1])
            let row = buffer.tables[table].member(member, of: slot)
            if !isConditional, buffer.canForgetRead(table, row) { buffer.forgetRead(table, row) }
            if offset > buffer.tables[table].rows[row].readOffset {
                if isConditional {
                    buffer.unspare(table, row)
                    buffer.makeOpaque(table, row)
                } else {
                    buffer.beginPut(table, row)
                    buffer.putScore(table, row, bytes.extracting(arguments[index]))
                }
            } else {
                buffer.unspare(table, row)
                buffer.noteSkipped(table, row: row)
            }
            index += 2
        }
    }

    mutating func scoreIncrement(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count == 4 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .sortedSet, key, at: offset) else { return }
        let slot = buffer.tables[table].key(key)
        guard buffer.begin(table, key: slot, at: offset) else { return }
        let row = buffer.tables[table].member(bytes.extracting(arguments[3]), of: slot)
        guard offset > buffer.tables[table].rows[row].readOffset else {
            buffer.noteSkipped(table, row: row)
            guard let delta = Number.real(bytes.extracting(arguments[2])) else {
                return buffer.unspare(table, row)
            }
            return buffer.noteSpared(table, row, delta)
        }
        guard mappings[table].isScore, let delta = Number.real(bytes.extracting(arguments[2]))
        else {
            buffer.unspare(table, row)
            return buffer.makeOpaque(table, row)
        }
        if buffer.beginMerge(table, row, isAdd: true) { buffer.addReal(table, row, 0, delta) }
        buffer.noteSpared(table, row, delta)
    }

    mutating func memberAdd(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count >= 3 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .set, key, at: offset) else { return }
        let slot = buffer.tables[table].key(key)
        guard buffer.begin(table, key: slot, at: offset) else { return }
        for index in 2..<arguments.count {
            let row = buffer.tables[table].member(bytes.extracting(arguments[index]), of: slot)
            guard offset > buffer.tables[table].rows[row].readOffset else {
                buffer.noteSkipped(table, row: row)
                continue
            }
            buffer.beginPut(table, row)
        }
    }

    mutating func memberRemove(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], type: RedisType,
        at offset: Int64,
    ) {
        guard arguments.count >= 3 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: type, key, at: offset) else { return }
        let slot = buffer.tables[table].key(key)
        guard buffer.begin(table, key: slot, at: offset) else { return }
        for index in 2..<arguments.count {
            let row = buffer.tables[table].member(bytes.extracting(arguments[index]), of: slot)
            guard offset > buffer.tables[table].rows[row].readOffset else {
                buffer.noteSkipped(table, row: row)
                buffer.removeBeforeRead(table, row)
                continue
            }
            buffer.remove(table, row, .deleted)
        }
    }

    /// Source: XADD arrives with its identifier filled in, and trimming made exact.
    mutating func entryAdd(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        guard arguments.count >= 5 else { return }
        let key = bytes.extracting(arguments[1])
        guard let table = table(of: .stream, key, at: offset) else { return }
        guard let index = Self.placeOfIdentifier(bytes, arguments) else {
            return makeOpaque(key, at: offset)
        }
        let slot = buffer.tables[table].key(key)
        let first = index + 1
        let count = arguments.count - first
        var parts: [Bytes] = []
        parts.reserveCapacity(count)
        for argument in arguments[first...] {
            parts.append(Bytes(copying: bytes.extracting(argument)))
        }
        buffer.endMistyped(table, key: slot, at: offset)
        buffer.append(table, slot, id: bytes.extracting(arguments[index]), count: count) {
            parts[$0]
        }
    }

    // Where XADD has the identifier: fields and values in turn follow.
    static func placeOfIdentifier(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>],
    ) -> Int? {
        var index = 2
        // The identifier is the first argument of digits, `-` and digits after the options.
        while index < arguments.count {
            let word = bytes.extracting(arguments[index])
            if word.isWord("nomkstream") || word.isWord("keepref") || word.isWord("delref")
                || word.isWord("acked")
            {
                index += 1
            } else if word.isWord("maxlen") || word.isWord("minid") {
                let sign = bytes.extracting(arguments[min(index + 1, arguments.count - 1)])
                index += sign.isWord("=") || sign.isWord("~") ? 3 : 2
            } else if word.isWord("limit") {
                index += 2
            } else if word.isWord("idmp") {
                index += 3
            } else if word.isWord("idmpauto") {
                index += 2
            } else {
                break
            }
        }
        return index < arguments.count && (arguments.count - index) % 2 == 1 ? index : nil
    }
}
