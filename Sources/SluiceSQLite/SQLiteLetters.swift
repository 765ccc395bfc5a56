internal import Foundation
internal import GRDB
internal import SluiceCore
internal import SluiceSQL

/// The rows that were set aside, as SQLite keeps them.
struct SQLiteLetters {
    let database: Database
    let source: String
    /// The pause before the first retry; each further one is twice as long, up to 64 times.
    let retryAfter: Duration
    let now: String

    /// Those that are stored, with their values where these are as short as a counter's and are the last.
    func names() throws -> [DeadLetter] {
        try Row.fetchAll(
            database,
            sql: """
                SELECT table_name, key, member, operation, code, message,
                    CASE WHEN length(value) <= \(DeadLetter.shortMax)
                        AND code <> '\(Misfit.Code.vanished.rawValue)' THEN value END AS value
                FROM sluice_dead_letters WHERE source = ?
                """, arguments: [source]
        ).map(letter)
    }

    private func letter(_ row: Row) -> DeadLetter {
        let value = row.hasColumn("value") ? row["value"] as String? : nil
        return DeadLetter(
            table: row["table_name"], identity: SQLiteSession.identity(row),
            operation: DeadLetter.Operation(rawValue: row["operation"]) ?? .merge,
            value: value.map { Array($0.utf8) }, code: row["code"], message: row["message"])
    }

    /// Stores letters; one that is there is replaced, but for its value where nothing is known of a later.
    ///
    /// - Parameter position: Where the stream was, or nil to leave it.
    func store(_ letters: [DeadLetter], at position: Position?) throws {
        guard !letters.isEmpty else { return }
        let pause = Double(retryAfter.components.seconds)
        let insert = try database.cachedStatement(
            sql: """
                INSERT INTO sluice_dead_letters AS d (source, table_name, key, member, operation, value,
                    code, message, attempts, first_at, last_at, retry_at, replication_id,
                    replication_offset)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?9,
                    strftime('%Y-%m-%d %H:%M:%f', ?9, ?10 || ' seconds'), ?11, ?12)
                ON CONFLICT DO UPDATE SET
                    operation = CASE WHEN \(OwnTables.keepsValue) THEN d.operation
                        ELSE excluded.operation END,
                    value = CASE WHEN \(OwnTables.keepsValue) THEN d.value ELSE excluded.value END,
                    code = excluded.code, message = excluded.message, attempts = attempts + 1,
                    last_at = excluded.last_at,
                    retry_at = strftime('%Y-%m-%d %H:%M:%f', excluded.last_at,
                        (?10 * (1 << min(attempts, 6))) || ' seconds'),
                    replication_id = coalesce(excluded.replication_id, replication_id),
                    replication_offset = coalesce(excluded.replication_offset, replication_offset)
                """
        )
        for letter in letters {
            try insert.execute(arguments: [
                source, letter.table, Data(letter.identity.key), Data(letter.identity.member),
                letter.operation.rawValue, letter.value.map { String(decoding: $0, as: UTF8.self) },
                letter.code, letter.message, now, pause, position?.history.digits,
                position?.offset,
            ])
        }
    }

    /// Forgets letters, or those of them that have a code.
    func remove(_ letters: [DeadLetter], code: Misfit.Code? = nil) throws {
        guard !letters.isEmpty else { return }
        let remove = try database.cachedStatement(
            sql: """
                DELETE FROM sluice_dead_letters
                WHERE source = ? AND table_name = ? AND key = ? AND member = ?
                    AND code = coalesce(?, code)
                """
        )
        for letter in letters {
            try remove.execute(arguments: [
                source, letter.table, Data(letter.identity.key), Data(letter.identity.member),
                code?.rawValue,
            ])
        }
    }

    // The conditions and arguments that find some letters.
    private func condition(_ choice: LetterChoice) -> (sql: String, arguments: StatementArguments) {
        var sql = "source = ? AND retry_at IS NOT NULL"
        var arguments: StatementArguments = [source]
        if let table = choice.table {
            sql += " AND table_name = ?"
            arguments += [table]
        }
        if let key = choice.key {
            sql += " AND key = ?"
            arguments += [Data(key)]
        }
        if let member = choice.member {
            sql += " AND member = ?"
            arguments += [Data(member)]
        }
        if choice.isDueOnly {
            sql += " AND retry_at <= ?"
            arguments += [now]
        }
        return (sql, arguments)
    }

    /// Letters that may be tried again, those whose time came first at first. Unless only those are
    /// meant whose time has come, it comes for all that are chosen.
    ///
    /// - Parameter tables: The tables that are mapped: nobody can try the letters of others.
    /// - Returns: As many as are taken at once, and whether there are more.
    func chosen(
        _ choice: LetterChoice, of tables: [String],
    ) throws -> (letters: [DeadLetter], hasMore: Bool) {
        var (sql, arguments) = condition(choice)
        let mapped = tables.map(Dialect.literal).joined(separator: ", ")
        sql += " AND table_name IN (\(mapped))"
        if !choice.isDueOnly {
            try database.execute(
                sql: "UPDATE sluice_dead_letters SET retry_at = first_at WHERE \(sql)",
                arguments: arguments)
        }
        // What a row is that has more than its key can't be told from a value, but what is added can.
        let names = try Row.fetchAll(
            database,
            sql: """
                SELECT table_name, key, member FROM sluice_dead_letters AS d
                WHERE \(sql) AND (operation = 'merge' OR NOT EXISTS (
                    SELECT 1 FROM sluice_kept AS k WHERE k.source = d.source
                        AND k.table_name = d.table_name AND k.key = d.key AND k.member = d.member
                        AND k.state = \(Kept.back.rawValue)))
                ORDER BY retry_at LIMIT \(choice.limit)
                """, arguments: arguments)
        let find = try database.cachedStatement(
            sql: """
                SELECT * FROM sluice_dead_letters
                WHERE source = ? AND table_name = ? AND key = ? AND member = ?
                """)
        var letters: [DeadLetter] = []
        var bytes = 0
        for name in names where bytes < choice.bytesMax {
            let identity = SQLiteSession.identity(name)
            let arguments: StatementArguments = [
                source, name["table_name"] as String, Data(identity.key), Data(identity.member),
            ]
            guard let row = try Row.fetchOne(find, arguments: arguments) else { continue }
            letters.append(letter(row))
            bytes += letters.last?.value?.count ?? 0
        }
        return (letters, letters.count < names.count || names.count == choice.limit)
    }

    /// Forgets the values of some letters.
    func discard(_ choice: LetterChoice) throws -> Int {
        let (sql, arguments) = condition(choice)
        // An entry of a stream stands alone.
        try database.execute(
            sql: "DELETE FROM sluice_dead_letters WHERE operation = 'append' AND \(sql)",
            arguments: arguments)
        let count = database.changesCount
        try database.execute(
            sql: "UPDATE sluice_dead_letters SET retry_at = NULL, value = NULL WHERE \(sql)",
            arguments: arguments)
        return count + database.changesCount
    }
}
