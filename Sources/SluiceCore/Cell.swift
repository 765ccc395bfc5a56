/// What is to become of one column of one row.
package enum Cell: Equatable {
    /// Stays as it is in the database; in a row whose value is known, null.
    case unchanged
    /// Becomes null.
    case null
    /// Becomes an integer; in a deadline's column, milliseconds since 1970.
    case integer(Int64)
    /// Grows by an integer, from zero if it is null.
    case add(Int64)
    /// Becomes a double.
    case real(Double)
    /// Grows by a double, once.
    case addReal(Double)
    /// Becomes what this text means in the column's type.
    case bytes(Bytes)
    /// Becomes, or in a row whose value is not known is merged with, a JSON object.
    case fields(FieldMap)

    var memory: Int {
        switch self {
        case .bytes(let bytes): 32 + bytes.capacity
        case .fields(let map): map.memory
        default: 0
        }
    }
}

/// Fields and their values, in the fields' order.
package struct FieldMap: Equatable {
    private struct Entry: Equatable {
        let name: Bytes
        var value: Bytes
    }

    private var entries: [Entry] = []
    /// Whether nothing of what the database has stays beside them.
    var replaces = false
    /// Bytes of memory that the map takes, about.
    private(set) var memory = 64

    package init(replaces: Bool = false) { self.replaces = replaces }

    /// Creates a map of fields in any order, none of them twice.
    init(_ fields: [(name: Bytes, value: Bytes)]) {
        entries = fields.map { Entry(name: $0.name, value: $0.value) }
        entries.sort { $0.name.precedes($1.name.span) }
        for entry in entries { memory += Self.memory(of: entry) }
    }

    private static func memory(of entry: Entry) -> Int {
        2 * 32 + entry.name.capacity + entry.value.capacity + 16
    }

    package var isEmpty: Bool { entries.isEmpty }

    package var count: Int { entries.count }

    /// Sets a field; a field that is known takes its new value without an allocation if it fits.
    mutating func set(_ name: borrowing Span<UInt8>, to value: borrowing Span<UInt8>) {
        let index = insertionPoint(of: name)
        if index < entries.count, entries[index].name.equals(name) {
            memory -= entries[index].value.capacity
            entries[index].value.assign(value)
            memory += entries[index].value.capacity
        } else {
            let entry = Entry(name: Bytes(copying: name), value: Bytes(copying: value))
            memory += Self.memory(of: entry)
            entries.insert(entry, at: index)
        }
    }

    /// Removes a field.
    mutating func remove(_ name: borrowing Span<UInt8>) {
        let index = insertionPoint(of: name)
        if index < entries.count, entries[index].name.equals(name) { entries.remove(at: index) }
    }

    /// Appends the map as a JSON object.
    package func appendJSON(to output: inout Bytes) {
        output.append(UInt8(ascii: "{"))
        for (index, entry) in entries.enumerated() {
            if index > 0 { output.append(UInt8(ascii: ",")) }
            JSONText.append(any: entry.name.span, to: &output)
            output.append(UInt8(ascii: ":"))
            JSONText.append(any: entry.value.span, to: &output)
        }
        output.append(UInt8(ascii: "}"))
    }

    private func insertionPoint(of name: borrowing Span<UInt8>) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].name.precedes(name) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

extension [UInt8] {
    fileprivate func precedes(_ other: borrowing Span<UInt8>) -> Bool {
        let common = Swift.min(count, other.count)
        for index in 0..<common where self[index] != other[index] {
            return self[index] < other[index]
        }
        return count < other.count
    }
}
