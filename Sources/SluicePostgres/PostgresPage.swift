internal import SluiceCore
internal import SluiceSQL

/// Reads the primary keys of a table, a page at a time.
enum PostgresPage {
    /// The rows after one, in the order of the primary key.
    static func read(
        _ connection: PostgresConnection, _ mapping: TableMapping, after: RowIdentity?, limit: Int,
    ) throws(SinkError) -> [RowIdentity] {
        var last: [PostgresConnection.Parameter]?
        if let after {
            last = parameters(of: after.key, mapping)
            if let member = mapping.member { last?.append(parameter(after.member, member)) }
        }
        return try rows(connection, mapping, after: last, limit: limit).map {
            identity(of: $0, mapping)
        }
    }

    /// The columns of the primary keys of rows, as texts; what each row is called need not lead back to it.
    static func rows(
        _ connection: PostgresConnection, _ mapping: TableMapping,
        after last: [PostgresConnection.Parameter]?, limit: Int,
    ) throws(SinkError) -> [[String?]] {
        let sql = TableStatements(mapping, .postgres).page(isFirst: last == nil, limit: limit)
        return try connection.run(sql, last ?? []).rows
    }

    /// What a row is called.
    static func identity(of row: [String?], _ mapping: TableMapping) -> RowIdentity {
        var parts = zip(row, mapping.primaryKey).map { text, column -> Bytes in
            guard let text else { return [] }
            return column.type == .bytes ? Hex.bytes(text.dropFirst(2)) : Array(text.utf8)
        }
        let member = mapping.member == nil ? [] : parts.removeLast()
        return RowIdentity(key: mapping.keys.key(from: parts), member: member)
    }

    static func parameters(
        of key: Bytes, _ mapping: TableMapping,
    ) -> [PostgresConnection.Parameter] {
        let ranges = mapping.keys.split(key.span) ?? []
        return zip(ranges, mapping.keys.columns).map { parameter(Array(key[$0]), $1) }
    }

    private static func parameter(
        _ part: Bytes, _ column: Column,
    ) -> PostgresConnection.Parameter {
        column.type == .bytes ? .binary(part) : .text(String(decoding: part, as: UTF8.self))
    }
}
