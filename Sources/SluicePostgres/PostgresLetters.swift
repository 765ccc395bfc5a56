internal import SluiceCore
internal import SluiceSQL

/// The rows that were set aside, as PostgreSQL keeps them.
struct PostgresLetters {
    let connection: PostgresConnection
    let source: String
    /// The pause before the first retry; each further one is twice as long, up to 64 times.
    let retryAfter: Duration

    /// Those that are stored, with their values where these are as short as a counter's and are the last.
    func names() throws(SinkError) -> [DeadLetter] {
        try connection.run(
            """
            SELECT table_name, encode(key, 'hex'), encode(member, 'hex'), operation,
                CASE WHEN octet_length(value) <= \(DeadLetter.shortMax)
                    AND code <> '\(Misfit.Code.vanished.rawValue)' THEN value END, code, message
            FROM sluice_dead_letters WHERE source = $1
            """, [.text(source)]
        ).rows.map(Self.letter)
    }

    private static func letter(_ row: [String?]) -> DeadLetter {
        DeadLetter(
            table: row[0] ?? "", identity: Hex.identity(row[1], row[2]),
            operation: DeadLetter.Operation(rawValue: row[3] ?? "") ?? .merge,
            value: row[4].map { Array($0.utf8) }, code: row[5] ?? "", message: row[6] ?? "")
    }

    /// Stores letters; one that is there is replaced, but for its value where nothing is known of a later.
    ///
    /// - Parameter position: Where the stream was, or nil to leave it.
    func store(_ letters: [DeadLetter], at position: Position?) throws(SinkError) {
        func text(_ value: (some CustomStringConvertible)?) -> PostgresConnection.Parameter {
            value.map { .text($0.description) } ?? .null
        }
        for letter in letters {
            try connection.run(
                """
                INSERT INTO sluice_dead_letters AS d (source, table_name, key, member, operation,
                    value, code, message, attempts, first_at, last_at, retry_at, replication_id,
                    replication_offset)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, clock_timestamp(), clock_timestamp(),
                    clock_timestamp() + make_interval(secs => $9::float8), $10, $11::bigint)
                ON CONFLICT (source, table_name, key_hash, member_hash) DO UPDATE
                SET operation = CASE WHEN \(OwnTables.keepsValue) THEN d.operation
                        ELSE excluded.operation END,
                    value = CASE WHEN \(OwnTables.keepsValue) THEN d.value ELSE excluded.value END,
                    code = excluded.code,
                    message = excluded.message, attempts = d.attempts + 1,
                    last_at = excluded.last_at,
                    retry_at = clock_timestamp()
                        + make_interval(secs => $9::float8 * (1 << least(d.attempts, 6)::int)),
                    replication_id = coalesce(excluded.replication_id, d.replication_id),
                    replication_offset = coalesce(excluded.replication_offset, d.replication_offset)
                """,
                [
                    .text(source), .text(letter.table), .binary(letter.identity.key),
                    .binary(letter.identity.member), .text(letter.operation.rawValue),
                    text(letter.value.map { String(decoding: $0, as: UTF8.self) }),
                    .text(letter.code), .text(letter.message),
                    .text("\(retryAfter.components.seconds)"), text(position?.history.digits),
                    text(position?.offset),
                ])
        }
    }

    /// Forgets letters, or those of them that have a code.
    func remove(_ letters: [DeadLetter], code: Misfit.Code? = nil) throws(SinkError) {
        for letter in letters {
            try connection.run(
                """
                DELETE FROM sluice_dead_letters
                WHERE source = $1 AND table_name = $2
                    AND key_hash = sha256($3) AND member_hash = sha256($4)
                    AND code = coalesce($5, code)
                """,
                [
                    .text(source), .text(letter.table), .binary(letter.identity.key),
                    .binary(letter.identity.member), code.map { .text($0.rawValue) } ?? .null,
                ])
        }
    }

    // The conditions that find some letters, and their parameters.
    private func condition(
        _ choice: LetterChoice,
    ) -> (sql: String, parameters: [PostgresConnection.Parameter]) {
        var sql = "source = $1 AND retry_at IS NOT NULL"
        var parameters: [PostgresConnection.Parameter] = [.text(source)]
        func add(_ column: String, _ parameter: PostgresConnection.Parameter) {
            parameters.append(parameter)
            sql += " AND \(column) = $\(parameters.count)"
        }
        if let table = choice.table { add("table_name", .text(table)) }
        if let key = choice.key { add("key", .binary(key)) }
        if let member = choice.member { add("member", .binary(member)) }
        if choice.isDueOnly { sql += " AND retry_at <= clock_timestamp()" }
        return (sql, parameters)
    }

    /// Letters that may be tried again, those whose time came first at first. Unless only those are
    /// meant whose time has come, it comes for all that are chosen.
    ///
    /// - Parameter tables: The tables that are mapped: nobody can try the letters of others.
    /// - Returns: As many as are taken at once, and whether there are more.
    func chosen(
        _ choice: LetterChoice, of tables: [String],
    ) throws(SinkError) -> (letters: [DeadLetter], hasMore: Bool) {
        var (sql, parameters) = condition(choice)
        let names = tables.map(Dialect.literal).joined(separator: ", ")
        sql += " AND table_name IN (\(names))"
        if !choice.isDueOnly {
            try connection.run(
                "UPDATE sluice_dead_letters SET retry_at = first_at WHERE \(sql)", parameters)
        }
        // What a row is that has more than its key can't be told from a value, but what is added can.
        let found = try connection.run(
            """
            WITH chosen AS (
                SELECT table_name, key, member, operation, value, code, message,
                    row_number() OVER (ORDER BY retry_at, key_hash, member_hash) AS place
                FROM sluice_dead_letters AS d
                WHERE \(sql) AND (operation = 'merge' OR NOT EXISTS (
                    SELECT 1 FROM sluice_kept AS k WHERE k.source = d.source
                        AND k.table_name = d.table_name AND k.key_hash = d.key_hash
                        AND k.member_hash = d.member_hash
                        AND k.state = \(Kept.back.rawValue)))
                ORDER BY place LIMIT \(choice.limit)
            ), measured AS (
                SELECT *, count(*) OVER () AS total, sum(coalesce(octet_length(value), 0)) OVER (
                    ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                FROM chosen
            )
            SELECT table_name, encode(key, 'hex'), encode(member, 'hex'), operation, value, code,
                message, total
            FROM measured WHERE coalesce(before, 0) < \(choice.bytesMax) ORDER BY place
            """, parameters
        ).rows
        let total = (found.first?[7]).flatMap { Int($0) } ?? 0
        return (found.map(Self.letter), total > found.count || total == choice.limit)
    }

    /// Forgets the values of some letters.
    func discard(_ choice: LetterChoice) throws(SinkError) -> Int {
        let (sql, parameters) = condition(choice)
        // An entry of a stream stands alone.
        let entries = try connection.run(
            "DELETE FROM sluice_dead_letters WHERE operation = 'append' AND \(sql)", parameters
        ).changed
        return try entries
            + connection.run(
                "UPDATE sluice_dead_letters SET retry_at = NULL, value = NULL WHERE \(sql)",
                parameters
            ).changed
    }
}
