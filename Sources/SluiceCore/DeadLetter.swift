/// A row that is not written, with the reason.
public struct DeadLetter: Hashable, Sendable {
    /// What was to be done with the row.
    public enum Operation: String, Hashable, Sendable, Codable {
        /// It was to get a whole new value.
        case put
        /// Some of its columns were to change.
        case merge
        /// It was to be appended.
        case append
        /// It was to be deleted.
        case remove
        /// It was to be marked as removed.
        case mark
        /// All rows of its key were to be deleted or marked, but for some.
        case clear
    }

    /// The table's name.
    public let table: String
    /// Where the row comes from.
    public let identity: RowIdentity
    /// What was to be done.
    public let operation: Operation
    /// The row's columns as a JSON object, or those that were to change; nil for a removal, and when
    /// the value is not known.
    ///
    /// A column is a string in the form that Redis has, null, `{"hex": "00ff"}` for what is no text
    /// that databases take, or `{"add": "5"}` for what was to be added to it. A value of which several
    /// columns take their parts stands whole in the column `$value`.
    public let value: Bytes?
    /// A stable name for the reason, or the database's code.
    public let code: String
    /// The reason, for a person; without values.
    public let message: String

    /// The most bytes of a value with which a letter is loaded at start: what a counter was to be, with a
    /// deadline, is shorter.
    package static let shortMax = 512

    /// Creates a dead letter.
    public init(
        table: String, identity: RowIdentity, operation: Operation = .put, value: Bytes? = nil,
        code: String, message: String,
    ) {
        self.table = table
        self.identity = identity
        self.operation = operation
        self.value = value
        self.code = code
        self.message = message
    }

    /// Creates a dead letter of a row that a database refuses.
    ///
    /// - Parameters:
    ///   - columns: What the row set's values are columns of.
    ///   - adds: Whether each is added to what is there.
    package init(
        refusing rows: RowSet, _ row: Int, columns: [Column], adds: [Bool] = [],
        operation: Operation, table: String, code: String, message: String,
    ) {
        var object = LetterObject()
        for (index, column) in columns.enumerated() where index < rows.values.count {
            let isAdd = index < adds.count && adds[index]
            object.append(column.name, rows.values[index], row, isAdd: isAdd)
        }
        self.init(
            table: table, identity: rows.identities[row], operation: operation,
            value: columns.isEmpty || [.remove, .mark, .clear].contains(operation)
                ? nil : object.finished(), code: code, message: message)
    }
}

extension DeadLetter {
    /// For an entry of a stream whose identifier the table has with other fields.
    package static func reused(_ rows: RowSet, _ row: Int, _ mapping: TableMapping) -> DeadLetter {
        DeadLetter(
            refusing: rows, row, columns: mapping.values, operation: .append, table: mapping.name,
            code: "stream.id_reused",
            message: "the table has an entry with this identifier and other fields",
        )
    }
}

/// Builds the JSON object that a dead letter keeps a row's value in.
struct LetterObject {
    private var json: Bytes = [UInt8(ascii: "{")]

    mutating func append(_ name: String, _ cell: Cell, _ type: ColumnType) {
        switch cell {
        case .unchanged: break
        case .null: append(name, text: nil)
        // A deadline is kept in the unit of Redis, milliseconds.
        case .integer(let value) where type == .timestamp:
            append(name, text: Self.time(Timestamp.deadline(milliseconds: value)))
        case .integer(let value): append(name, text: Bytes("\(value)".utf8))
        case .real(let value): append(name, text: Bytes("\(value)".utf8))
        case .add(let value): append(name, text: Bytes("\(value)".utf8), as: "add")
        case .addReal(let value): append(name, text: Bytes("\(value)".utf8), as: "add")
        case .bytes(let bytes): append(name, text: bytes)
        case .fields(let map):
            var object: Bytes = []
            map.appendJSON(to: &object)
            append(name, text: object)
        }
    }

    mutating func append(_ name: String, _ vector: ColumnVector, _ row: Int, isAdd: Bool) {
        guard !vector.isNull[row] else { return append(name, text: nil) }
        let text: Bytes
        switch vector.type {
        case .integer, .boolean: text = Bytes("\(vector.integers[row])".utf8)
        case .timestamp: text = Self.time(vector.integers[row])
        case .real: text = Bytes("\(vector.reals[row])".utf8)
        case .text, .decimal, .json, .bytes: text = Bytes(vector.bytes(row))
        }
        append(name, text: text, as: isAdd ? "add" : nil)
    }

    /// Appends all fields of a hash or a stream entry.
    mutating func append(_ name: Bytes, text: Bytes) {
        append(comma: name)
        append(value: text)
    }

    private mutating func append(_ name: String, text: Bytes?, as kind: String? = nil) {
        append(comma: Bytes(name.utf8))
        guard let text else { return json += Bytes("null".utf8) }
        guard let kind else { return append(value: text) }
        json += Bytes("{\"\(kind)\":\"".utf8) + text + Bytes("\"}".utf8)
    }

    private mutating func append(comma name: Bytes) {
        if json.count > 1 { json.append(UInt8(ascii: ",")) }
        if (try? JSONText.append(name.span, to: &json)) == nil {
            json += Bytes("\"hex:\(Hex.text(name))\"".utf8)
        }
        json.append(UInt8(ascii: ":"))
    }

    private mutating func append(value: Bytes) {
        if (try? JSONText.append(value.span, to: &json)) == nil {
            json += Bytes("{\"hex\":\"\(Hex.text(value))\"}".utf8)
        }
    }

    private static func time(_ microseconds: Int64) -> Bytes {
        let rest = ((microseconds % 1_000) + 1_000) % 1_000
        let digits = rest == 0 ? "" : String("\(1_000 + rest)".dropFirst())
        return Bytes((Timestamp.text(microseconds: microseconds) + digits).utf8)
    }

    func finished() -> Bytes { json + [UInt8(ascii: "}")] }
}

extension TableMapping {
    /// The value of a row that can't be written, from its cells.
    func letterValue(_ cells: ArraySlice<Cell>) -> Bytes {
        var object = LetterObject()
        for (index, cell) in cells.enumerated() {
            let column = values[index]
            let isWhole = index == 0 && !sources.isEmpty
            object.append(isWhole ? "$value" : column.name, cell, column.type)
        }
        return object.finished()
    }
}
