extension RowBuffer {
    /// What is to be asked for an opaque row or key.
    func readItem(for opaque: Opaque, pageMembers: Int) -> ReadItem {
        let table = tables[opaque.table]
        let mapping = table.mapping
        let key = table.keys[opaque.key]
        let target: ReadItem.Target =
            switch mapping.type {
            case .stream: .entries(after: key.cursor)
            case .hash where mapping.rest == nil: .fields(mapping.fields)
            case .hash: fieldTarget(opaque.table, opaque.row, pageMembers: pageMembers)
            case .string, .list: .key
            case .set, .sortedSet:
                if let row = opaque.row {
                    .member(table.rows[row].member)
                } else {
                    .members(
                        cursor: key.cursor.isEmpty ? Baseline.firstCursor : key.cursor,
                        count: pageMembers)
                }
            }
        return ReadItem(
            type: mapping.type,
            key: key.bytes,
            database: mapping.database,
            target: target,
            wantsDeadline: mapping.deadline != nil,
            wantsLastEntry: !isExact && mapping.type == .stream,
            // Without a key, a scan that goes on has an empty last page too.
            wantsType: table.asksType || isExact && !key.cursor.isEmpty && target.isOfMembers,
        )
    }

    /// Takes in what was read of an opaque row or key.
    ///
    /// The stream was held since the question was asked, so the value is newer than all that was
    /// processed: changes at or before `offset` are in it and will be skipped.
    ///
    /// - Parameter until: Where the stream was after the read. To look at a key that is past its
    ///   deadline makes Redis remove it, so that removal stands between the two.
    mutating func apply(
        _ result: ReadResult, to opaque: Opaque, at offset: Int64, until: Int64,
    ) {
        // It was begun anew meanwhile, so this is the end of something else.
        if opaque.isContinuation, let row = opaque.row, !isScanningFields(opaque.table, row) {
            return returnToRead(opaque)
        }
        let isFirst =
            tables[opaque.table].keys[opaque.key].cursor.isEmpty
            && !(opaque.row.map { isScanningFields(opaque.table, $0) } ?? false)
        // Another key has the name. Why this one went, the stream may still say: it is behind the read.
        let isReplaced =
            result.value == .wrongType && tables[opaque.table].mapping.type != .stream
            && (opaque.row != nil || isFirst || isExact)
            && isOthers(opaque.key, of: opaque.table, result)
        let isMissing = isReplaced || result.isMissing(isFirst: isFirst)
        if isMissing, awaitsRemoval(opaque.table) {
            missingUntil = max(missingUntil, until)
            missing.append(opaque)
            readOffsetMax = max(readOffsetMax, until)
        }
        readOffsetMax = max(readOffsetMax, offset)
        looseOffsetMax = max(looseOffsetMax, offset)
        let mapping = tables[opaque.table].mapping
        if mapping.type == .stream {
            applyEntries(result, opaque, at: offset)
        } else if let row = opaque.row {
            applyRow(
                result, opaque.table, row, isMissing: isMissing, at: offset, until: until)
        } else {
            applyMembers(result, opaque.table, opaque.key, isMissing: isMissing, at: offset)
        }
        if isReplaced { noteReplaced(opaque) }
    }

    private mutating func applyRow(
        _ result: ReadResult, _ table: Int, _ row: Int, isMissing: Bool, at offset: Int64,
        until: Int64,
    ) {
        guard tables[table].rows[row].shape == .opaque else { return }
        let isSpared = tables[table].rows[row].flags.contains(.spared)
        let delta = tables[table].spared[Int32(row)]
        switch isMissing ? .missing : result.value {
        case .missing where awaitsRemoval(table):
            tables[table].rows[row].shape = .missing
        case .missing where tables[table].rows[row].flags.contains(.swept):
            sweepOut(table, row)
        case .missing: remove(table, row, .deleted)
        case .wrongType:
            leaveOpaque(table, row)
            tables[table].rows[row].shape = .untouched
            tables[table].rows[row].misfit = wrongType(table, result)
            touch(table, row)
        case .single(let bytes):
            beginPut(table, row)
            let mapping = tables[table].mapping
            if mapping.type == .sortedSet {
                putScore(table, row, bytes.span)
            } else if mapping.type == .string {
                putText(table, row, 0, bytes.span)
            }
        case .elements(let elements):
            beginPut(table, row)
            putElements(elements, table, row)
        case .page(let elements, let next)
        where isScanningFields(table, row) || next != Baseline.firstCursor:
            return applyFieldPage(
                elements, next: next, table, row, result.deadline, at: offset, until: until)
        case .page(let elements, _):
            beginPut(table, row)
            putElements(elements, table, row)
        case .entries:
            preconditionFailure("a row is no stream")
        }
        if tables[table].rows[row].shape == .value, !tables[table].goneUnread.isEmpty {
            tables[table].goneUnread.remove(Int32(row))
        }
        if tables[table].rows[row].shape == .value, let column = tables[table].mapping.deadline {
            tables[table].set(row, column, result.deadline.map(Cell.integer) ?? .null)
        }
        if isSpared, tables[table].rows[row].shape == .value {
            tables[table].rows[row].flags.insert(.spared)
            tables[table].spared[Int32(row)] = delta
        }
        tables[table].rows[row].readOffset = offset
    }

    private mutating func putElements(_ elements: [Bytes], _ table: Int, _ row: Int) {
        let mapping = tables[table].mapping
        if mapping.type == .list {
            return tables[table].set(row, 0, .bytes(Self.array(elements)))
        }
        for index in stride(from: 0, to: elements.count - 1, by: 2) {
            let (field, value) = (elements[index], elements[index + 1])
            setField(table, row, field.span, to: value.span)
        }
    }

    private static func array(_ elements: [Bytes]) -> Bytes {
        var json: Bytes = [UInt8(ascii: "[")]
        for (index, element) in elements.enumerated() {
            if index > 0 { json.append(UInt8(ascii: ",")) }
            JSONText.append(any: element.span, to: &json)
        }
        json.append(UInt8(ascii: "]"))
        return json
    }

    // What reads a row or key missing, and no removal, may be before it.
    private func awaitsRemoval(_ table: Int) -> Bool {
        let mapping = tables[table].mapping
        return isExact ? mapping.awaitsRemoval : mapping.needsCause
    }

    private mutating func applyMembers(
        _ result: ReadResult, _ table: Int, _ key: Int, isMissing: Bool, at offset: Int64,
    ) {
        guard tables[table].keys[key].flags.contains(.opaque) else { return }
        let isScanning = tables[table].keys[key].flags.contains(.scanning)
        var members: [Bytes] = []
        switch result.value {
        case .page(let elements, let next)
        where !isMissing && (isScanning || next != Baseline.firstCursor):
            return applyPage(elements, next: next, table, key, at: offset)
        // Another type, of which the stream will say how it came about.
        case .wrongType where isScanning && !isMissing:
            tables[table].keys[key].readUntil = offset
            tables[table].keys[key].flags.remove(.looked)
            return leaveOpaque(table, key: key)
        case .page(let elements, _): members = elements
        case .missing, .wrongType: break
        case .single, .entries, .elements: preconditionFailure("a key is read page by page")
        }
        let isBaseline = tables[table].keys[key].flags.contains(.baseline)
        leaveOpaque(table, key: key)
        // The database may have members that a baseline does not find, and the stream says that they go.
        if !isBaseline || members.isEmpty && awaitsRemoval(table) {
            tables[table].keys[key].readOffset = offset
        }
        tables[table].keys[key].readUntil = offset
        if isMissing, awaitsRemoval(table) {
            if isScanning {
                // It was of this type, and what no page has said stays for now.
                tables[table].keys[key].flags.insert(.own)
                forgetClear(table, key)
            }
            // Whether a change of it is still to be read, its removal will ask.
            tables[table].keys[key].flags.formUnion(isBaseline ? [.missing, .baseline] : .missing)
            opaqueCount += 1
            return
        }
        if result.value == .wrongType {
            if tables[table].isShared { leave(table, key: key, at: offset) }
            if !isOthers(key, of: table, result) {
                setAside(table, key: key, wrongType(table, result))
            }
            if tables[table].isShared { return }
        }
        let before = tables[table].keys[key].flags
        tables[table].keys[key].flags.subtract(Key.Flags.ofRead)
        if !members.isEmpty { endVanished(table, key) }
        if !isBaseline || members.isEmpty { clearBeforePut(table, key, before) }
        putMembers(members, table, key, at: offset)
        forEachRow(table, key) { buffer, row in
            let isSeen = buffer.tables[table].rows[row].readOffset == offset
            let (shape, flags) = (
                buffer.tables[table].rows[row].shape, buffer.tables[table].rows[row].flags
            )
            guard !isSeen, shape != .absent, !flags.contains(.gone),
                buffer.tables[table].rows[row].misfit == nil
            else { return }
            // A baseline only reports what it does not find; of what the stream put, the stream says why.
            if isBaseline, buffer.isExact || shape == .untouched { return }
            buffer.removeUnseen(table, row, of: before)
        }
    }

    private mutating func applyEntries(
        _ result: ReadResult, _ opaque: Opaque, at offset: Int64,
    ) {
        let (table, key) = (opaque.table, opaque.key)
        guard tables[table].keys[key].flags.contains(.opaque) else { return }
        tables[table].keys[key].readOffset = offset
        tables[table].keys[key].readUntil = offset
        guard case .entries(let entries) = result.value else {
            // Gone, or of another type: an append-only table keeps what it has.
            if !isExact { tables[table].keys[key].cursor = StreamEntry.beforeFirst }
            if result.value == .wrongType, !isOthers(key, of: table, result) {
                setMistyped(table, key: key, wrongType(table, result))
            } else {
                endMistyped(table, key: key)
            }
            return leaveOpaque(table, key: key)
        }
        endMistyped(table, key: key)
        // Without a last entry there is no such stream.
        if !isExact, result.lastEntry == nil {
            tables[table].keys[key].cursor = StreamEntry.beforeFirst
        }
        // A stream that ends before what was read of it has started again.
        if let last = result.lastEntry, StreamEntry.precedes(last, tables[table].keys[key].cursor) {
            tables[table].keys[key].cursor = StreamEntry.beforeFirst
            return queueRead(table, key: key)
        }
        for entry in entries {
            append(table, key, id: entry.id.span, count: entry.fields.count) { index in
                entry.fields[index]
            }
        }
        if let last = entries.last { tables[table].keys[key].cursor = last.id }
        guard entries.count >= ReadItem.streamPageMax else {
            return leaveOpaque(table, key: key)
        }
        queueRead(table, key: key)
    }

    // MARK: Values

    /// Sets a column to what a text means: an integer at once, so that adds can fold into it.
    @inline(__always)
    mutating func putText(
        _ table: Int, _ row: Int, _ column: Int, _ text: borrowing Span<UInt8>,
    ) {
        if tables[table].mapping.values[column].type == .integer,
            tables[table].mapping.sources.isEmpty, let value = Number.integer(text)
        {
            tables[table].set(row, column, .integer(value))
        } else {
            tables[table].set(row, column, copying: text)
        }
    }

    /// Sets the score of a sorted set's member.
    mutating func putScore(_ table: Int, _ row: Int, _ text: borrowing Span<UInt8>) {
        if let score = Number.real(text) {
            tables[table].set(row, 0, .real(score))
        } else {
            tables[table].set(row, 0, copying: text)
        }
    }

    /// Sets a field of a hash, in its own column, in the rest, or nowhere if it is not mapped.
    @inline(__always)
    mutating func setField(
        _ table: Int, _ row: Int, _ field: borrowing Span<UInt8>,
        to value: borrowing Span<UInt8>,
    ) {
        if let column = fieldColumn(table, field) {
            putText(table, row, column, value)
        } else if let rest = tables[table].mapping.rest {
            tables[table].setField(row, rest, field, to: value)
        }
    }

    /// The column of a hash's field.
    @inline(__always)
    func fieldColumn(_ table: Int, _ field: borrowing Span<UInt8>) -> Int? {
        for index in tables[table].mapping.fields.indices
        where tables[table].mapping.fields[index].equals(field) {
            return index
        }
        return nil
    }
}

extension ReadResult {
    // A page without members is of a key that is not there, if it is the first and the last.
    fileprivate func isMissing(isFirst: Bool) -> Bool {
        switch value {
        case .missing: true
        case .page(let elements, let next):
            elements.isEmpty && next == Baseline.firstCursor
                && (isFirst || typeName == Array("none".utf8))
        default: false
        }
    }
}
