internal import SluiceCore

/// Encodes a column's values as one array in PostgreSQL's binary form.
///
/// Source: `array_send` and the `send` functions of the element types in PostgreSQL's sources.
enum PostgresArray {
    /// Microseconds from 1970 to 2000, where PostgreSQL's clock begins.
    private static let epoch: Int64 = 946_684_800_000_000

    static func encode(_ column: ColumnVector, _ rows: Range<Int>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(20 + rows.count * 12)
        append(Int32(rows.isEmpty ? 0 : 1), to: &bytes)
        append(Int32(1), to: &bytes)
        append(elementType(column.type), to: &bytes)
        guard !rows.isEmpty else { return bytes }
        append(Int32(rows.count), to: &bytes)
        append(Int32(1), to: &bytes)
        for row in rows { append(column, row, to: &bytes) }
        return bytes
    }

    // Object identifiers of the built-in types, from pg_type.dat.
    private static func elementType(_ type: ColumnType) -> Int32 {
        switch type {
        case .integer: 20
        case .real: 701
        case .boolean: 16
        case .timestamp: 1184
        case .bytes: 17
        case .text, .decimal, .json: 25
        }
    }

    private static func append(_ column: ColumnVector, _ row: Int, to bytes: inout [UInt8]) {
        guard !column.isNull[row] else { return append(Int32(-1), to: &bytes) }
        switch column.type {
        case .integer:
            append(Int32(8), to: &bytes)
            append(column.integers[row], to: &bytes)
        case .timestamp:
            append(Int32(8), to: &bytes)
            append(column.integers[row] - epoch, to: &bytes)
        case .real:
            append(Int32(8), to: &bytes)
            append(Int64(bitPattern: column.reals[row].bitPattern), to: &bytes)
        case .boolean:
            append(Int32(1), to: &bytes)
            bytes.append(UInt8(column.integers[row]))
        case .text, .decimal, .json, .bytes:
            let value = column.bytes(row)
            append(Int32(value.count), to: &bytes)
            bytes += value
        }
    }

    private static func append(_ number: some FixedWidthInteger, to bytes: inout [UInt8]) {
        var shift = number.bitWidth
        while shift > 0 {
            shift -= 8
            bytes.append(UInt8(truncatingIfNeeded: number >> shift))
        }
    }
}
