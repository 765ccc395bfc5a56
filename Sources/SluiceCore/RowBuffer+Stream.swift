extension RowBuffer {
    /// Appends an entry of a stream.
    ///
    /// - Parameters:
    ///   - id: The identifier, `milliseconds-sequence`.
    ///   - count: How many fields and values there are, taken together.
    ///   - part: The field or value at an index.
    mutating func append(
        _ table: Int, _ key: Int, id: borrowing Span<UInt8>, count: Int, part: (Int) -> Bytes,
    ) {
        do throws(Misfit) {
            try appendFields(table, count: count, part: part)
            appendEntry(table, key, id, nil, value: nil)
        } catch {
            let value = Self.letterValue(count: count, part: part)
            setAside(table, key, id: id, error, value: value)
        }
    }

    /// Notes that an entry of a stream can't be written.
    ///
    /// - Parameter value: All its fields as a JSON object, if they are known.
    mutating func setAside(
        _ table: Int, _ key: Int, id: borrowing Span<UInt8>, _ misfit: Misfit, value: Bytes? = nil,
    ) {
        let known = tables[table].appended.entries.count
        for column in tables[table].appended.columns.indices {
            tables[table].appended.columns[column].truncate(to: known)
            tables[table].appended.columns[column].appendNull()
        }
        appendEntry(table, key, id, misfit, value: value)
    }

    private mutating func appendEntry(
        _ table: Int, _ key: Int, _ id: borrowing Span<UInt8>, _ misfit: Misfit?, value: Bytes?,
    ) {
        let (milliseconds, sequence) = Self.split(id)
        let named =
            milliseconds == nil
            ? Misfit(.type, "expected an identifier of a stream entry") : misfit
        tables[table].appended.entries.append(
            StreamEntries.Entry(
                key: Int32(key), milliseconds: milliseconds ?? 0, sequence: sequence ?? 0,
                misfit: named, value: value))
    }

    private static func letterValue(count: Int, part: (Int) -> Bytes) -> Bytes {
        var object = LetterObject()
        for index in stride(from: 0, to: count - 1, by: 2) {
            object.append(part(index), text: part(index + 1))
        }
        return object.finished()
    }

    private mutating func appendFields(
        _ table: Int, count: Int, part: (Int) -> Bytes,
    ) throws(Misfit) {
        let mapping = tables[table].mapping
        // A field that is given twice: the last one counts, as in every JSON reader.
        var places = [Int?](repeating: nil, count: mapping.fields.count)
        var json: Bytes = [UInt8(ascii: "{")]
        for index in stride(from: 0, to: count - 1, by: 2) {
            let name = part(index)
            if let column = mapping.fields.firstIndex(of: name) {
                places[column] = index + 1
            } else if mapping.rest != nil {
                if json.count > 1 { json.append(UInt8(ascii: ",")) }
                JSONText.append(any: name.span, to: &json)
                json.append(UInt8(ascii: ":"))
                JSONText.append(any: part(index + 1).span, to: &json)
            }
        }
        for (column, place) in places.enumerated() {
            if let place {
                let value = part(place)
                try tables[table].appended.columns[column].append(text: value.span)
            } else {
                tables[table].appended.columns[column].appendNull()
            }
        }
        guard let rest = mapping.rest else { return }
        if json.count == 1 { return tables[table].appended.columns[rest].appendNull() }
        json.append(UInt8(ascii: "}"))
        tables[table].appended.columns[rest].append(blob: json)
    }

    private static func split(_ id: borrowing Span<UInt8>) -> (UInt64?, UInt64?) {
        var parts: [UInt64?] = [0, 0]
        var part = 0
        for index in 0..<id.count {
            if id[index] == UInt8(ascii: "-"), part == 0 {
                part = 1
                continue
            }
            let digit = id[index] &- UInt8(ascii: "0")
            guard digit <= 9, let value = parts[part] else { return (nil, nil) }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = product.addingReportingOverflow(UInt64(digit))
            guard !overflow, !overflow2 else { return (nil, nil) }
            parts[part] = sum
        }
        return id.count > 0 ? (parts[0], parts[1]) : (nil, nil)
    }
}
