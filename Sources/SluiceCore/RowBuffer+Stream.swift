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
        var misfit: Misfit?
        let start = tables[table].appended.blob.count
        do throws(Misfit) {
            try appendJSON(table, count: count, part: part)
        } catch {
            let excess = tables[table].appended.blob.count - start
            tables[table].appended.blob.removeLast(excess)
            misfit = error
        }
        let (milliseconds, sequence) = Self.split(id)
        if milliseconds == nil {
            misfit = Misfit(.type, "expected an identifier of a stream entry")
        }
        tables[table].appended.entries.append(
            StreamEntries.Entry(
                key: Int32(key),
                milliseconds: milliseconds ?? 0,
                sequence: sequence ?? 0,
                end: tables[table].appended.blob.count,
                misfit: misfit,
            )
        )
    }

    private mutating func appendJSON(
        _ table: Int, count: Int, part: (Int) -> Bytes,
    ) throws(Misfit) {
        // A field that is given twice: the last one counts, as in every JSON reader.
        tables[table].appended.blob.append(UInt8(ascii: "{"))
        for index in stride(from: 0, to: count - 1, by: 2) {
            if index > 0 { tables[table].appended.blob.append(UInt8(ascii: ",")) }
            try JSONText.append(part(index).span, to: &tables[table].appended.blob)
            tables[table].appended.blob.append(UInt8(ascii: ":"))
            try JSONText.append(part(index + 1).span, to: &tables[table].appended.blob)
        }
        tables[table].appended.blob.append(UInt8(ascii: "}"))
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
