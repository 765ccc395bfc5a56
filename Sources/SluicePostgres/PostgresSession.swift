internal import SluiceCore
internal import SluiceSQL

/// One connection that writes for a source.
final class PostgresSession {
    private let connection: PostgresConnection
    private let source: String
    private let mappings: [TableMapping]
    private let retryAfter: Duration

    init(
        url: String, source: String, mappings: [TableMapping], retryAfter: Duration,
        lease: Duration, epoch: Int64?, statementLimit: Duration,
    ) throws(SinkError) {
        self.retryAfter = retryAfter
        self.source = source
        self.mappings = mappings
        connection = try PostgresConnection(url: url)
        try connection.run("SET application_name = 'sluice'")
        try connection.run("SET synchronous_commit = on")
        try connection.run("SET client_min_messages = warning")
        try connection.limitStatements(statementLimit)
        // A large statement over a slow link is an idle transaction until all of it is there.
        let milliseconds = PostgresLease.milliseconds(max(lease, .seconds(60)))
        try connection.run("SET idle_in_transaction_session_timeout = \(milliseconds)")
        // PostgreSQL 17 limits transactions too, where somebody has set that.
        try connection.run(
            """
            SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'
            """)
        try PostgresLease(connection: connection, source: source, lease: lease).take(epoch: epoch)
    }

    /// Gives the lease back: the server notices the end of a connection only by and by.
    func release() { connection.runLast("SELECT pg_advisory_unlock_all()") }

    /// Lets the server hear of this session.
    func renew() throws(SinkError) { try connection.run("SELECT 1") }

    /// Runs one transaction.
    private func transaction<Value>(
        _ work: () throws(SinkError) -> Value,
    ) throws(SinkError) -> Value {
        try connection.run("BEGIN")
        try connection.run("SET CONSTRAINTS ALL IMMEDIATE")
        let value = try work()
        try connection.run("COMMIT")
        return value
    }

    // MARK: Opening

    func prepare(createsTables: Bool) throws(SinkError) -> StoredState {
        try transaction { () throws(SinkError) in
            if try needsOwnTables() {
                for sql in OwnTables.create(.postgres) { try connection.run(sql) }
            }
            for table in OwnTables.named where try !columns(of: table).contains("key_hash") {
                try connection.run(OwnTables.addHashes(to: table))
            }
            let identity = OwnTables.identity
            if try !columns(of: identity.table).contains(identity.column) {
                try connection.run(identity.add)
            }
            for mapping in mappings {
                let statements = TableStatements(mapping, .postgres)
                if createsTables, try columns(of: mapping.name).isEmpty {
                    try connection.run(statements.create)
                }
                try check(mapping, statements)
            }
            return try takeOver()
        }
    }

    // A role that may not create tables can still use those that are there.
    private func needsOwnTables() throws(SinkError) -> Bool {
        for name in OwnTables.names {
            if try columns(of: name).isEmpty { return true }
        }
        return false
    }

    private func columns(of table: String) throws(SinkError) -> Set<String> {
        let result = try connection.run(
            """
            SELECT attname FROM pg_attribute
            WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
            """, [.text(Dialect.quote(table))])
        return Set(result.rows.compactMap { $0[0] })
    }

    private func check(
        _ mapping: TableMapping, _ statements: TableStatements,
    ) throws(SinkError) {
        let present = try columns(of: mapping.name)
        guard !present.isEmpty else {
            throw SinkError(
                .halt, code: "schema.table", "table \(mapping.name) does not exist",
                hint: "`sluice schema --apply` makes it, and so does database.create_tables: true",
            )
        }
        let missing = statements.columnNames.filter { !present.contains($0) }
        guard missing.isEmpty else {
            throw SinkError(
                .halt, code: "schema.column",
                "table \(mapping.name) lacks the column \(missing.joined(separator: ", "))",
                hint: "add it, or change the mapping; `sluice schema` prints what is expected",
            )
        }
        let key = mapping.primaryKey.map(\.name).sorted()
        let result = try connection.run(
            """
            SELECT string_agg(a.attname, chr(10) ORDER BY a.attname COLLATE "C")
            FROM pg_index i JOIN pg_attribute a
                ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
            WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indpred IS NULL
            GROUP BY i.indexrelid
            """, [.text(Dialect.quote(mapping.name))])
        guard result.rows.contains([key.joined(separator: "\n")]) else {
            throw SinkError(
                .halt, code: "schema.key",
                "table \(mapping.name) lacks a primary key or unique index on "
                    + key.joined(separator: ", "),
                hint: "rows are found by it; `sluice schema` prints what is expected",
            )
        }
    }

    private func takeOver() throws(SinkError) -> StoredState {
        try connection.run(
            """
            INSERT INTO sluice_position
                (source, epoch, sequence, baseline_done, strays, identity)
            VALUES ($1, 1, 0, 0, '', $2)
            ON CONFLICT (source) DO UPDATE SET epoch = sluice_position.epoch + 1,
                identity = coalesce(sluice_position.identity, excluded.identity)
            """, [.text(source), .text(OwnTables.newIdentity())])
        let identity =
            try connection.run(
                "SELECT identity FROM sluice_position WHERE source = $1", [.text(source)]
            ).rows.first?.first ?? nil
        guard let checkpoint = try checkpoint() else {
            throw SinkError(.fenced, code: "sink.position", "the position is gone")
        }
        return StoredState(
            checkpoint: checkpoint, loose: try loose(), deadLetters: try letters.names(),
            identity: identity ?? ""
        )
    }

    private func checkpoint() throws(SinkError) -> Checkpoint? {
        let result = try connection.run(
            """
            SELECT epoch, sequence, baseline_done, strays, replication_id, replication_offset,
                replication_db
            FROM sluice_position WHERE source = $1 FOR UPDATE
            """, [.text(source)])
        guard let row = result.rows.first else { return nil }
        var position: Position?
        if let history = row[4], let offset = row[5].flatMap({ Int64($0) }) {
            position = Position(
                history: ReplicationID(history), offset: offset,
                database: row[6].flatMap { Int($0) } ?? 0,
            )
        }
        return Checkpoint(
            epoch: row[0].flatMap { Int64($0) } ?? 0, sequence: row[1].flatMap { Int64($0) } ?? 0,
            position: position, isBaselineDone: row[2] == "1",
            strays: OwnTables.strays(row[3] ?? ""),
        )
    }

    private func loose() throws(SinkError) -> [LooseRow] {
        let result = try connection.run(
            """
            SELECT table_name, encode(key, 'hex'), encode(member, 'hex'), read_offset
            FROM sluice_loose WHERE source = $1
            """, [.text(source)])
        return result.rows.map { row in
            LooseRow(
                table: row[0] ?? "", identity: Hex.identity(row[1], row[2]),
                stored: row[3].flatMap { Int64($0) },
            )
        }
    }

    private var letters: PostgresLetters {
        PostgresLetters(connection: connection, source: source, retryAfter: retryAfter)
    }

    // MARK: Dead letters

    func retry(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) throws(SinkError) -> LetterOutcome {
        try transaction { () throws(SinkError) in
            try expect(checkpoint)
            var outcome = LetterOutcome()
            let found = try letters.chosen(choice, of: mappings.map(\.name))
            outcome.hasMore = found.hasMore
            let chosen = Dictionary(grouping: found.letters, by: \.table)
            for (table, mapping) in mappings.enumerated() {
                guard let mine = chosen[mapping.name] else { continue }
                let restored = RestoredLetters(mine, mapping: mapping)
                var writer = PostgresWriter(
                    connection: connection, source: source, mappings: mappings,
                    refusals: Refusals(acceptsAll: true))
                try writer.retry(restored, table: table)
                outcome.add(mine, restored, refused: writer.refusals.letters)
            }
            try letters.remove(outcome.written)
            try letters.store(outcome.refused + outcome.unread, at: nil)
            return outcome
        }
    }

    func discard(_ choice: LetterChoice, at checkpoint: Checkpoint) throws(SinkError) -> Int {
        try transaction { () throws(SinkError) in
            try expect(checkpoint)
            return try letters.discard(choice)
        }
    }

    private func expect(_ expected: Checkpoint) throws(SinkError) {
        guard try checkpoint() == expected else {
            throw SinkError(
                .fenced, code: "sink.fenced",
                "another instance wrote to this database, or it went back to an older state",
            )
        }
    }

    // MARK: Batches

    func apply(_ batch: Batch) throws(SinkError) -> BatchOutcome {
        try connection.run("BEGIN")
        guard try advance(batch) else {
            // An earlier attempt committed it, and what that refused is known only to the database.
            let refused = try letters.names()
            try connection.run("ROLLBACK")
            return BatchOutcome(refused: batch.refused(among: refused, mappings))
        }
        try connection.run("SET CONSTRAINTS ALL IMMEDIATE")
        var writer = PostgresWriter(
            connection: connection, source: source, mappings: mappings,
            refusals: Refusals(acceptsAll: batch.acceptsRefusals, known: batch.revived))
        try writer.apply(batch)
        try store(batch, refused: writer.refusals.letters, revived: writer.revived)
        try connection.run("COMMIT")
        return BatchOutcome(refused: writer.refusals.letters, changed: writer.changed)
    }

    /// Moves the position; false when it was moved by an earlier attempt with the same batch.
    private func advance(_ batch: Batch) throws(SinkError) -> Bool {
        let (from, to) = (batch.from, batch.to)
        func text(_ value: (some CustomStringConvertible)?) -> PostgresConnection.Parameter {
            value.map { .text($0.description) } ?? .null
        }
        let result = try connection.run(
            """
            UPDATE sluice_position SET sequence = $1::bigint, replication_id = $2,
                replication_offset = $3::bigint, replication_db = $4::bigint,
                baseline_done = $5::bigint, strays = $6, committed_at = clock_timestamp(),
                rows_written = rows_written + $12::bigint
            WHERE source = $7 AND epoch = $8::bigint AND sequence = $9::bigint
                AND replication_id IS NOT DISTINCT FROM $10
                AND replication_offset IS NOT DISTINCT FROM $11::bigint
            """,
            [
                text(to.sequence), text(to.position?.history.digits), text(to.position?.offset),
                text(to.position?.database), text(to.isBaselineDone ? 1 : 0),
                .text(OwnTables.text(to.strays)), .text(source), text(from.epoch),
                text(from.sequence), text(from.position?.history.digits),
                text(from.position?.offset), text(batch.rowCount),
            ])
        if result.changed == 1 { return true }
        if try checkpoint() == to { return false }
        throw SinkError(
            .fenced, code: "sink.fenced",
            "another instance wrote to this database, or it went back to an older state",
        )
    }

    private func store(
        _ batch: Batch, refused: [DeadLetter], revived: RevivedLetters,
    ) throws(SinkError) {
        try letters.remove(revived.ended)
        try letters.remove(revived.staying, code: .wrongType)
        try letters.store(batch.deadLetters + refused, at: batch.to.position)
        guard let loose = batch.loose else { return }
        try connection.run("DELETE FROM sluice_loose WHERE source = $1", [.text(source)])
        for row in loose {
            try connection.run(
                """
                INSERT INTO sluice_loose VALUES ($1, $2, $3, $4, $5::bigint)
                ON CONFLICT (source, table_name, key_hash, member_hash)
                DO UPDATE SET read_offset = excluded.read_offset
                """,
                [
                    .text(source), .text(row.table), .binary(row.identity.key),
                    .binary(row.identity.member), row.stored.map { .text("\($0)") } ?? .null,
                ])
        }
    }

    // MARK: Reading

    func outlived(_ rows: [RowIdentity], table: Int) throws(SinkError) -> [RowIdentity: Kept] {
        let kept = PostgresKept(connection: connection, source: source)
        let known = try kept.look(up: rows, mappings[table])
        return KeptPlan.outlived(rows, mappings[table], known: known)
    }

    func lastEntries(table: Int, keys: [Bytes]) throws(SinkError) -> [Bytes?] {
        let mapping = mappings[table]
        let sql = TableStatements(mapping, .postgres).lastEntry
        var last: [Bytes?] = []
        for key in keys {
            let rows = try connection.run(sql, PostgresPage.parameters(of: key, mapping)).rows
            last.append((rows.first?.first ?? nil).map { Array($0.utf8) })
        }
        return last
    }

    func page(table: Int, after: RowIdentity?, limit: Int) throws(SinkError) -> [RowIdentity] {
        try PostgresPage.read(connection, mappings[table], after: after, limit: limit)
    }
}

extension Hex {
    static func identity(_ key: String?, _ member: String?) -> RowIdentity {
        RowIdentity(key: bytes(key ?? ""), member: bytes(member ?? ""))
    }
}
