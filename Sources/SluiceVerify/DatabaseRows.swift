internal import Foundation
internal import SluiceCore
internal import SluiceSQL

/// Reads what the database has of rows, with plain SQL and in small parts.
struct DatabaseRows {
    /// The rows that one page holds.
    static let pageMax = 500

    private let dialect: Dialect
    private let source: String
    private let query: (String) throws -> [[String?]]

    init(_ dialect: Dialect, source: String, query: @escaping (String) throws -> [[String?]]) {
        self.dialect = dialect
        self.source = source
        self.query = query
    }

    // MARK: Rows

    /// The values of rows; none for a row that is not there, or that is marked as removed.
    func values(
        of rows: [RowIdentity], _ mapping: TableMapping,
    ) throws -> [RowIdentity: [String?]] {
        guard let condition = condition(rows, mapping) else { return [:] }
        let key = mapping.primaryKey
        let columns = key.map(name) + mapping.values.map(value)
        let sql =
            "SELECT \(columns.isEmpty ? "1" : columns.joined(separator: ", ")) FROM "
            + "\(Dialect.quote(mapping.name)) WHERE (\(condition))\(unmarked(mapping))"
        var found: [RowIdentity: [String?]] = [:]
        for row in try query(sql) {
            let values = zip(row.dropFirst(key.count), mapping.values).map { text, column in
                text.map { meant($0, column) }
            }
            found[identity(row, mapping)] = values
        }
        return found
    }

    /// A row that the database has.
    struct Found {
        let identity: RowIdentity
        /// The primary key's columns.
        let parts: [Bytes]
        /// Whether no key of the pattern makes this row, which somebody else wrote.
        let isForeign: Bool
    }

    /// A page of a table's rows in the order of their primary key, without those that are marked as
    /// removed.
    ///
    /// - Parameter last: The primary key's columns in the last row of the page before.
    func page(_ mapping: TableMapping, after last: [Bytes]?) throws -> [Found] {
        let key = mapping.primaryKey
        // A table of one key has one row.
        if key.isEmpty, last != nil { return [] }
        let names = key.map { Dialect.quote($0.name) }.joined(separator: ", ")
        let columns = key.isEmpty ? "1" : key.map(name).joined(separator: ", ")
        var sql = "SELECT \(columns) FROM \(Dialect.quote(mapping.name)) WHERE 1 = 1"
        if let last {
            let values = zip(last, key).map { literal($0, $1) ?? "NULL" }
            sql += " AND (\(names)) > (\(values.joined(separator: ", ")))"
        }
        sql += unmarked(mapping)
        if !key.isEmpty { sql += " ORDER BY \(names)" }
        return try query(sql + " LIMIT \(Self.pageMax)").map { row in
            let identity = identity(row, mapping)
            let found = self.columns(row, mapping)
            let isForeign = parts(of: identity, mapping) ?? [] != found
            return Found(identity: identity, parts: found, isForeign: isForeign)
        }
    }

    // MARK: What Sluice says of rows

    /// Those of rows that are newer than the position, by themselves or with their key.
    func loose(_ rows: [RowIdentity], _ mapping: TableMapping) throws -> Set<RowIdentity> {
        try Set(notes("sluice_loose", "1", rows, mapping).keys)
    }

    /// Those of rows that are set aside, by themselves or with their key.
    func setAside(_ rows: [RowIdentity], _ mapping: TableMapping) throws -> Set<RowIdentity> {
        try Set(notes("sluice_dead_letters", "1", rows, mapping).keys)
    }

    /// How rows stand that outlived their keys, by themselves, with their key or with their table.
    func kept(_ rows: [RowIdentity], _ mapping: TableMapping) throws -> [RowIdentity: Kept] {
        try notes("sluice_kept", "state", rows, mapping).compactMapValues { text in
            UInt8(text).flatMap { Kept(rawValue: $0) }
        }
    }

    private func notes(
        _ table: String, _ column: String, _ rows: [RowIdentity], _ mapping: TableMapping,
    ) throws -> [RowIdentity: String] {
        let names = Set(rows.map(\.key)).union([[]]).compactMap { literal($0, Self.bytes) }
        // PostgreSQL finds them by their hashes.
        let isHashed = dialect == .postgres
        let keys = isHashed ? names.map { "sha256(\($0))" } : names
        let sql =
            "SELECT \(name(Self.bytes("key"))), \(name(Self.bytes("member"))), \(column) "
            + "FROM \(table) WHERE source = \(Dialect.literal(source)) AND table_name = "
            + "\(Dialect.literal(mapping.name)) AND \(isHashed ? "key_hash" : "key") IN (\(keys.joined(separator: ", ")))"
        var found: [RowIdentity: String] = [:]
        for row in try query(sql) where row.count == 3 {
            let identity = RowIdentity(
                key: Hex.bytes(row[0] ?? ""), member: Hex.bytes(row[1] ?? ""))
            found[identity] = row[2]
        }
        var notes: [RowIdentity: String] = [:]
        for row in rows {
            notes[row] =
                found[row] ?? found[RowIdentity(key: row.key)] ?? found[RowIdentity(key: [])]
        }
        return notes
    }

    // MARK: SQL

    private static let bytes = bytes("")
    private static func bytes(_ name: String) -> Column { Column(name: name, type: .bytes) }

    private func name(_ column: Column) -> String {
        let name = Dialect.quote(column.name)
        switch (dialect, column.type) {
        case (.postgres, .bytes): return "encode(\(name), 'hex')"
        // A text may hold NUL, where what reads it as a text would end it.
        case (.sqlite, .bytes), (.sqlite, .text): return "hex(CAST(\(name) AS BLOB))"
        default: return name
        }
    }

    private func isHex(_ column: Column) -> Bool {
        column.type == .bytes || dialect == .sqlite && column.type == .text
    }

    // A value column as it is selected: bytes as digits, times as milliseconds.
    private func value(_ column: Column) -> String {
        guard column.type == .timestamp else {
            // The digits of null are no digits.
            let name = Dialect.quote(column.name)
            guard isHex(column), dialect == .sqlite else { return self.name(column) }
            return "CASE WHEN \(name) IS NOT NULL THEN \(self.name(column)) END"
        }
        let name = Dialect.quote(column.name)
        return dialect == .postgres
            ? "floor(round((extract(epoch from \(name)) * 1000000)::numeric) / 1000)::bigint"
            : "CAST(round((julianday(\(name)) - 2440587.5) * 86400000) AS INTEGER)"
    }

    private func meant(_ text: String, _ column: Column) -> String {
        isHex(column) ? Text.meant(Hex.bytes(text), column) : Text.normal(text, column)
    }

    private func unmarked(_ mapping: TableMapping) -> String {
        mapping.markColumn.map { " AND \(Dialect.quote($0)) IS NULL" } ?? ""
    }

    private func identity(_ row: [String?], _ mapping: TableMapping) -> RowIdentity {
        var parts = columns(row, mapping)
        let member = mapping.member == nil ? [] : parts.removeLast()
        return RowIdentity(key: mapping.keys.key(from: parts), member: member)
    }

    private func columns(_ row: [String?], _ mapping: TableMapping) -> [Bytes] {
        zip(row, mapping.primaryKey).map { text, column in
            isHex(column) ? Hex.bytes(text ?? "") : Array((text ?? "").utf8)
        }
    }

    // The primary key's columns, or nil when the key is none of the pattern's.
    private func parts(of row: RowIdentity, _ mapping: TableMapping) -> [Bytes]? {
        mapping.keys.split(row.key.span).map { ranges in
            ranges.map { Array(row.key[$0]) } + (mapping.member == nil ? [] : [row.member])
        }
    }

    // What selects rows: those that differ in the last column alone are put together.
    private func condition(_ rows: [RowIdentity], _ mapping: TableMapping) -> String? {
        let key = mapping.primaryKey
        guard let last = key.last else { return rows.isEmpty ? nil : "1 = 1" }
        var groups: [String: [String]] = [:]
        for row in rows {
            guard let parts = parts(of: row, mapping) else { continue }
            let literals = zip(parts, key).compactMap(literal)
            // A text that is no number is in no column of numbers.
            guard literals.count == key.count, let value = literals.last else { continue }
            let others = zip(key, literals).dropLast().map { "\(Dialect.quote($0.name)) = \($1)" }
            groups[others.joined(separator: " AND "), default: []].append(value)
        }
        guard !groups.isEmpty else { return nil }
        return groups.map { others, values in
            let list = "\(Dialect.quote(last.name)) IN (\(values.joined(separator: ", ")))"
            return others.isEmpty ? list : "\(others) AND \(list)"
        }.joined(separator: " OR ")
    }

    private func literal(_ bytes: Bytes, _ column: Column) -> String? {
        switch column.type {
        case .integer:
            let text = String(decoding: bytes, as: UTF8.self)
            return Int64(text).flatMap { "\($0)" == text ? text : nil }
        case .bytes:
            return dialect == .postgres ? "'\\x\(Hex.text(bytes))'" : "X'\(Hex.text(bytes))'"
        default:
            guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
            if dialect == .sqlite { return "CAST(X'\(Hex.text(bytes))' AS TEXT)" }
            return bytes.contains(0) ? nil : Dialect.literal(text)
        }
    }

}
