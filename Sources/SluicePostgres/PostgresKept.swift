internal import SluiceCore

/// The rows that outlived their keys, as PostgreSQL remembers them.
struct PostgresKept {
    let connection: PostgresConnection
    let source: String

    /// What a batch's changes of a table mean for them.
    func plan(_ changes: TableChanges, _ mapping: TableMapping) throws(SinkError) -> KeptPlan {
        var known: [RowIdentity: Kept] = [:]
        if mapping.canKeep, try hasAny(mapping) {
            known = try look(up: KeptPlan.questions(changes), mapping)
        }
        return KeptPlan(changes, mapping: mapping, known: known)
    }

    private func hasAny(_ mapping: TableMapping) throws(SinkError) -> Bool {
        try !connection.run(
            "SELECT 1 FROM sluice_kept WHERE source = $1 AND table_name = $2 LIMIT 1",
            [.text(source), .text(mapping.name)]
        ).rows.isEmpty
    }

    /// Those of some rows, their keys and the table that are remembered.
    func look(
        up rows: [RowIdentity], _ mapping: TableMapping,
    ) throws(SinkError) -> [RowIdentity: Kept] {
        let names = Self.arrays(rows + [RowIdentity(key: [])])
        return try select(
            """
            key_hash IN (SELECT sha256(k) FROM unnest($3::bytea[]) AS n(k)) AND (member = ''
                OR (key, member) IN (SELECT * FROM unnest($3::bytea[], $4::bytea[])))
            """, names, mapping)
    }

    /// A page of a key's rows that came back after the others outlived it.
    ///
    /// - Parameter after: The hash that the page before ended with, or nil for the first.
    func returned(
        of key: Bytes, after: Bytes?, limit: Int, _ mapping: TableMapping,
    ) throws(SinkError) -> (rows: [RowIdentity], last: Bytes?) {
        var names = ColumnVector(.bytes)
        for name in [key, after ?? []] { names.append(blob: name) }
        let states = ReturnedRows.states.map { "\($0.rawValue)" }.joined(separator: ", ")
        let found = try connection.run(
            """
            SELECT encode(member, 'hex'), encode(member_hash, 'hex') FROM sluice_kept
            WHERE source = $1 AND table_name = $2 AND key_hash = sha256(($3::bytea[])[1])
                AND member_hash > ($3::bytea[])[2] AND member <> '' AND state IN (\(states))
            ORDER BY member_hash LIMIT \(limit)
            """,
            [
                .text(source), .text(mapping.name),
                .binary(PostgresArray.encode(names, 0..<names.count)),
            ]
        ).rows
        return (
            found.map { RowIdentity(key: key, member: Hex.bytes($0[0] ?? "")) },
            found.last.map { Hex.bytes($0[1] ?? "") }
        )
    }

    private func select(
        _ condition: String, _ names: [PostgresConnection.Parameter], _ mapping: TableMapping,
    ) throws(SinkError) -> [RowIdentity: Kept] {
        let result = try connection.run(
            """
            SELECT encode(key, 'hex'), encode(member, 'hex'), state FROM sluice_kept
            WHERE source = $1 AND table_name = $2 AND \(condition)
            """, [.text(source), .text(mapping.name)] + names)
        var known: [RowIdentity: Kept] = [:]
        for row in result.rows {
            known[Hex.identity(row[0], row[1])] = row[2].flatMap { UInt8($0) }
                .flatMap(Kept.init)
        }
        return known
    }

    /// Remembers and forgets, as many as go together at a time.
    func write(_ notes: [KeptPlan.Note], _ mapping: TableMapping) throws(SinkError) {
        var keys: [RowIdentity] = []
        var rows: [RowIdentity] = []
        var kept: [KeptRow] = []
        func flush() throws(SinkError) {
            try forget(keys: keys, rows, mapping)
            try remember(kept, mapping)
            (keys, rows, kept) = ([], [], [])
        }
        for note in notes {
            switch note {
            case .forgetTable:
                try flush()
                try connection.run(
                    "DELETE FROM sluice_kept WHERE source = $1 AND table_name = $2",
                    [.text(source), .text(mapping.name)])
            case .forgetKey(let key):
                if !kept.isEmpty { try flush() }
                keys.append(RowIdentity(key: key))
            case .forget(let row):
                if !kept.isEmpty { try flush() }
                rows.append(row)
            case .remember(let row): kept.append(row)
            }
        }
        try flush()
    }

    /// Forgets rows.
    func forget(_ rows: [RowIdentity], _ mapping: TableMapping) throws(SinkError) {
        try forget(keys: [], rows, mapping)
    }

    private func forget(
        keys: [RowIdentity], _ rows: [RowIdentity], _ mapping: TableMapping,
    ) throws(SinkError) {
        let mine = "DELETE FROM sluice_kept WHERE source = $1 AND table_name = $2"
        let names: [PostgresConnection.Parameter] = [.text(source), .text(mapping.name)]
        if !keys.isEmpty {
            try connection.run(
                mine + " AND key_hash IN (SELECT sha256(k) FROM unnest($3::bytea[]) AS n(k))",
                names + [Self.arrays(keys)[0]])
        }
        if !rows.isEmpty {
            try connection.run(
                mine + " AND (key_hash, member_hash) IN (SELECT sha256(k), sha256(m) "
                    + "FROM unnest($3::bytea[], $4::bytea[]) AS n(k, m))",
                names + Self.arrays(rows))
        }
    }

    private func remember(_ kept: [KeptRow], _ mapping: TableMapping) throws(SinkError) {
        guard !kept.isEmpty else { return }
        // One statement must not write a row twice: the last word on it counts.
        var last: [RowIdentity: Kept] = [:]
        for row in kept { last[row.identity] = row.state }
        let rows = Array(last.keys)
        var states = ColumnVector(.integer)
        for row in rows { states.append(integer: Int64(last[row]?.rawValue ?? 0)) }
        try connection.run(
            """
            INSERT INTO sluice_kept
            SELECT $1, $2, k, m, s FROM unnest($3::bytea[], $4::bytea[], $5::bigint[]) AS n(k, m, s)
            ON CONFLICT (source, table_name, key_hash, member_hash)
            DO UPDATE SET state = excluded.state
            """,
            [.text(source), .text(mapping.name)] + Self.arrays(rows)
                + [.binary(PostgresArray.encode(states, 0..<rows.count))])
    }

    private static func arrays(_ rows: [RowIdentity]) -> [PostgresConnection.Parameter] {
        var keys = ColumnVector(.bytes)
        var members = ColumnVector(.bytes)
        for row in rows {
            keys.append(blob: row.key)
            members.append(blob: row.member)
        }
        return [keys, members].map { .binary(PostgresArray.encode($0, 0..<rows.count)) }
    }
}
