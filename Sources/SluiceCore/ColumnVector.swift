/// The values of one column of many rows, side by side.
public struct ColumnVector: Hashable, Sendable {
    /// The type of the column.
    public let type: ColumnType
    /// Which rows hold null; their place in the other arrays is zero or empty.
    public private(set) var isNull: [Bool] = []
    /// Integers, booleans as 0 and 1, and timestamps as microseconds since 1970.
    public private(set) var integers: [Int64] = []
    /// Doubles.
    public private(set) var reals: [Double] = []
    /// The bytes of text, decimal, JSON and bytes, one row after the other.
    public private(set) var blob: Bytes = []
    /// Where each row's bytes end in ``blob``.
    public private(set) var ends: [Int] = []

    /// How many rows there are.
    public var count: Int { isNull.count }

    /// Creates an empty vector.
    public init(_ type: ColumnType) {
        self.type = type
    }

    /// The bytes of one row.
    public func bytes(_ row: Int) -> ArraySlice<UInt8> {
        blob[(row == 0 ? 0 : ends[row - 1])..<ends[row]]
    }

    /// The rows at some places, in that order.
    public func selecting(_ rows: some Sequence<Int>) -> ColumnVector {
        var result = ColumnVector(type)
        for row in rows { result.append(self, row) }
        return result
    }

    /// Appends a row of another vector of the same type.
    package mutating func append(_ other: ColumnVector, _ row: Int) {
        if other.isNull[row] { return appendNull() }
        switch type {
        case .integer, .boolean, .timestamp: append(integer: other.integers[row])
        case .real: append(real: other.reals[row])
        case .text, .decimal, .json, .bytes: append(blob: other.bytes(row))
        }
    }
}

extension ColumnVector {
    package mutating func appendNull() {
        isNull.append(true)
        switch type {
        case .integer, .boolean, .timestamp: integers.append(0)
        case .real: reals.append(0)
        case .text, .decimal, .json, .bytes: ends.append(blob.count)
        }
    }

    package mutating func append(integer: Int64) {
        isNull.append(false)
        integers.append(integer)
    }

    package mutating func append(real: Double) {
        isNull.append(false)
        reals.append(real)
    }

    package mutating func append(blob bytes: some Collection<UInt8>) {
        isNull.append(false)
        blob += bytes
        ends.append(blob.count)
    }

    /// Appends what a text means in this column.
    ///
    /// - Throws: ``Misfit``; nothing was appended then.
    package mutating func append(text: borrowing Span<UInt8>) throws(Misfit) {
        switch type {
        case .text:
            try UTF8Text.check(text)
            append(copying: text)
        case .bytes:
            append(copying: text)
        case .integer:
            guard let value = Number.integer(text) else { throw mismatch("an integer of 64 bits") }
            append(integer: value)
        case .real:
            guard let value = Number.real(text) else { throw mismatch("a real number") }
            append(real: value)
        case .decimal:
            guard Self.isDecimal(text) else { throw mismatch("a decimal number") }
            append(copying: text)
        case .boolean:
            guard let value = Self.boolean(text) else {
                throw mismatch("a boolean (1, 0, true, false, yes, no, on, off)")
            }
            append(integer: value ? 1 : 0)
        case .timestamp:
            guard let value = Timestamp.microseconds(text) else {
                throw mismatch("a timestamp (seconds or milliseconds since 1970, or ISO 8601)")
            }
            append(integer: value)
        case .json:
            guard JSONText.isDocument(text) else { throw mismatch("a JSON document") }
            append(copying: text)
        }
    }

    /// Appends what a cell holds.
    ///
    /// - Throws: ``Misfit``; nothing was appended then.
    mutating func append(_ cell: Cell) throws(Misfit) {
        switch cell {
        case .unchanged, .null: appendNull()
        case .integer(let value), .add(let value): try append(value)
        case .real(let value), .addReal(let value):
            guard type == .real else { throw mismatch("a value of type \(type.rawValue)") }
            append(real: value)
        case .bytes(let bytes): try append(text: bytes.span)
        case .fields(let map) where map.isEmpty: appendNull()
        case .fields(let map):
            var json: Bytes = []
            map.appendJSON(to: &json)
            append(blob: json)
        }
    }

    /// Bytes of memory that the vector takes.
    var memory: Int {
        isNull.capacity + 8 * (integers.capacity + reals.capacity + ends.capacity) + blob.capacity
    }

    /// Removes all rows, and keeps the memory if it is not much.
    mutating func removeAll() {
        if memory < 1 << 22 { truncate(to: 0) } else { self = ColumnVector(type) }
    }

    /// Removes the last rows, down to a count.
    mutating func truncate(to count: Int) {
        guard self.count > count else { return }
        isNull.removeLast(self.count - count)
        if integers.count > count { integers.removeLast(integers.count - count) }
        if reals.count > count { reals.removeLast(reals.count - count) }
        if ends.count > count {
            ends.removeLast(ends.count - count)
            blob.removeLast(blob.count - (ends.last ?? 0))
        }
    }

    private mutating func append(_ value: Int64) throws(Misfit) {
        switch type {
        case .integer: append(integer: value)
        // A deadline is kept in the unit of Redis, milliseconds.
        case .timestamp: append(integer: Timestamp.deadline(milliseconds: value))
        case .real: append(real: Double(value))
        default: throw mismatch("a value of type \(type.rawValue)")
        }
    }

    private mutating func append(copying text: borrowing Span<UInt8>) {
        isNull.append(false)
        unsafe text.withUnsafeBufferPointer { unsafe blob.append(contentsOf: $0) }
        ends.append(blob.count)
    }

    private func mismatch(_ expected: String) -> Misfit {
        Misfit(.type, "expected \(expected)")
    }

    private static func boolean(_ text: borrowing Span<UInt8>) -> Bool? {
        if text.isWord("1") || text.isWord("true") || text.isWord("yes") || text.isWord("on") {
            return true
        }
        if text.isWord("0") || text.isWord("false") || text.isWord("no") || text.isWord("off") {
            return false
        }
        return nil
    }

    private static func isDecimal(_ text: borrowing Span<UInt8>) -> Bool {
        var digits = 0
        var points = 0
        for index in 0..<text.count {
            switch text[index] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digits += 1
            case UInt8(ascii: "."): points += 1
            case UInt8(ascii: "-") where index == 0: break
            default: return false
            }
        }
        return digits > 0 && points <= 1 && text.count <= Number.textMax
    }
}
