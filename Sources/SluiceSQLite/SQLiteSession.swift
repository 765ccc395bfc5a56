internal import Foundation
internal import GRDB
internal import SluiceCore
internal import SluiceSQL

/// One connection to a SQLite file.
final class SQLiteSession: Sendable {
    private let queue: DatabaseQueue
    private let source: String
    private let mappings: [TableMapping]
    private let retryAfter: Duration

    init(
        path: String, source: String, mappings: [TableMapping], retryAfter: Duration,
    ) throws(SinkError) {
        self.retryAfter = retryAfter
        self.source = source
        self.mappings = mappings
        var configuration = Configuration()
        configuration.busyMode = .timeout(5)
        configuration.label = "sluice"
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA journal_mode = WAL")
            try database.execute(sql: "PRAGMA synchronous = FULL")
            try database.execute(sql: "PRAGMA foreign_keys = ON")
        }
        do {
            queue = try DatabaseQueue(path: path, configuration: configuration)
        } catch {
            throw Self.sinkError(error)
        }
    }

    /// Runs one transaction.
    private func write<Value: Sendable>(
        _ work: @Sendable (Database) throws -> Value,
    ) throws(SinkError) -> Value {
        do {
            return try queue.write(work)
        } catch let error as SinkError {
            throw error
        } catch {
            throw Self.sinkError(error)
        }
    }

    // MARK: Opening

    func prepare(createsTables: Bool) throws(SinkError) -> StoredState {
        try write { [self] database in
            for sql in OwnTables.create(.sqlite) { try database.execute(sql: sql) }
            let identity = OwnTables.identity
            let columns = try database.columns(in: identity.table)
            if !columns.contains(where: { $0.name == identity.column }) {
                try database.execute(sql: identity.add)
            }
            for mapping in mappings {
                let statements = TableStatements(mapping, .sqlite)
                if createsTables { try database.execute(sql: statements.create) }
                try check(mapping, statements, database)
            }
            return try takeOver(database)
        }
    }

    private func check(
        _ mapping: TableMapping, _ statements: TableStatements, _ database: Database,
    ) throws {
        let rows = try Row.fetchAll(
            database, sql: "SELECT name FROM pragma_table_info(?)", arguments: [mapping.name])
        let present = Set(rows.map { $0["name"] as String })
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
        let key = Set(mapping.primaryKey.map(\.name))
        guard try uniqueKeys(of: mapping.name, database).contains(key) else {
            throw SinkError(
                .halt, code: "schema.key",
                "table \(mapping.name) lacks a primary key or unique index on "
                    + key.sorted().joined(separator: ", "),
                hint: "rows are found by it; `sluice schema` prints what is expected",
            )
        }
    }

    private func uniqueKeys(of table: String, _ database: Database) throws -> [Set<String>] {
        var keys = [Set(try database.primaryKey(table).columns)]
        for index in try database.indexes(on: table) where index.isUnique {
            keys.append(Set(index.columns))
        }
        return keys
    }

    private func takeOver(_ database: Database) throws -> StoredState {
        try database.execute(
            sql: """
                INSERT INTO sluice_position
                    (source, epoch, sequence, baseline_done, strays, identity)
                VALUES (?, 1, 0, 0, '', ?)
                ON CONFLICT (source) DO UPDATE SET epoch = epoch + 1,
                    identity = coalesce(identity, excluded.identity)
                """,
            arguments: [source, OwnTables.newIdentity()],
        )
        let row = try Row.fetchOne(
            database, sql: "SELECT * FROM sluice_position WHERE source = ?", arguments: [source])
        guard let row else {
            throw SinkError(.fenced, code: "sink.position", "the position is gone")
        }
        return StoredState(
            checkpoint: Self.checkpoint(row),
            loose: try loose(database),
            deadLetters: try letters(database).names(),
            identity: row["identity"] ?? "",
        )
    }

    private static func checkpoint(_ row: Row) -> Checkpoint {
        var position: Position?
        if let history = row["replication_id"] as String?,
            let offset = row["replication_offset"] as Int64?
        {
            position = Position(
                history: ReplicationID(history), offset: offset,
                database: row["replication_db"] ?? 0,
            )
        }
        return Checkpoint(
            epoch: row["epoch"], sequence: row["sequence"], position: position,
            isBaselineDone: row["baseline_done"], strays: OwnTables.strays(row["strays"]),
        )
    }

    static func identity(_ row: Row) -> RowIdentity {
        RowIdentity(
            key: Array((row["key"] as Data?) ?? Data()),
            member: Array((row["member"] as Data?) ?? Data()),
        )
    }

    private func loose(_ database: Database) throws -> [LooseRow] {
        try Row.fetchAll(
            database, sql: "SELECT * FROM sluice_loose WHERE source = ?", arguments: [source]
        ).map { row in
            LooseRow(
                table: row["table_name"], identity: Self.identity(row), stored: row["read_offset"])
        }
    }

    private func letters(_ database: Database, _ now: String = "") -> SQLiteLetters {
        SQLiteLetters(database: database, source: source, retryAfter: retryAfter, now: now)
    }

    // MARK: Dead letters

    func retry(
        _ choice: LetterChoice, at checkpoint: Checkpoint,
    ) throws(SinkError) -> LetterOutcome {
        try write { [self] database in
            try expect(checkpoint, database)
            let now = Self.now
            let letters = letters(database, now)
            var outcome = LetterOutcome()
            let found = try letters.chosen(choice, of: mappings.map(\.name))
            outcome.hasMore = found.hasMore
            let chosen = Dictionary(grouping: found.letters, by: \.table)
            for (table, mapping) in mappings.enumerated() {
                guard let mine = chosen[mapping.name] else { continue }
                let restored = RestoredLetters(mine, mapping: mapping)
                var writer = SQLiteWriter(
                    database: database, source: source, mappings: mappings, now: now,
                    isStrict: true, refusals: Refusals(acceptsAll: true))
                try writer.retry(restored, table: table)
                outcome.add(mine, restored, refused: writer.refusals.letters)
            }
            try letters.remove(outcome.written)
            try letters.store(outcome.refused + outcome.unread, at: nil)
            return outcome
        }
    }

    func discard(_ choice: LetterChoice, at checkpoint: Checkpoint) throws(SinkError) -> Int {
        try write { [self] database in
            try expect(checkpoint, database)
            return try letters(database).discard(choice)
        }
    }

    private func expect(_ checkpoint: Checkpoint, _ database: Database) throws {
        let row = try Row.fetchOne(
            database, sql: "SELECT * FROM sluice_position WHERE source = ?", arguments: [source])
        guard let row, Self.checkpoint(row) == checkpoint else {
            throw SinkError(
                .fenced, code: "sink.fenced",
                "another instance wrote to this database, or it went back to an older state",
            )
        }
    }

    private static var now: String {
        Timestamp.text(microseconds: Int64(Date().timeIntervalSince1970 * 1_000_000))
    }

    // MARK: Batches

    func apply(_ batch: Batch) throws(SinkError) -> BatchOutcome {
        if let outcome = try apply(batch, isStrict: false) { return outcome }
        guard let outcome = try apply(batch, isStrict: true) else {
            throw Self.sinkError(SQLiteCodes.deferred)
        }
        return outcome
    }

    /// Applies a batch, or nothing of it when a deferred foreign key would refuse the commit: then the
    /// result is nil.
    private func apply(_ batch: Batch, isStrict: Bool) throws(SinkError) -> BatchOutcome? {
        do {
            return try write(batch, isStrict: isStrict)
        } catch {
            guard !isStrict, error.code == SQLiteCodes.deferredCode else { throw error }
            return nil
        }
    }

    private func write(_ batch: Batch, isStrict: Bool) throws(SinkError) -> BatchOutcome {
        try write { [self] database in
            guard try advance(batch, database) else {
                // An earlier attempt committed it; what that refused, only the database knows.
                return BatchOutcome(
                    refused: batch.refused(among: try letters(database).names(), mappings))
            }
            let now = Self.now
            var writer = SQLiteWriter(
                database: database, source: source, mappings: mappings, now: now,
                isStrict: isStrict,
                refusals: Refusals(acceptsAll: batch.acceptsRefusals, known: batch.revived))
            try writer.apply(batch)
            try store(batch, writer, now, database)
            if database.violatesDeferred { throw SQLiteCodes.deferred }
            return BatchOutcome(refused: writer.refusals.letters, changed: writer.changed)
        }
    }

    /// Moves the position; false when it was moved by an earlier attempt with the same batch.
    private func advance(_ batch: Batch, _ database: Database) throws -> Bool {
        let (from, to) = (batch.from, batch.to)
        try database.execute(
            sql: """
                UPDATE sluice_position SET sequence = ?, replication_id = ?, replication_offset = ?,
                    replication_db = ?, baseline_done = ?, strays = ?,
                    rows_written = rows_written + ?,
                    committed_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
                WHERE source = ? AND epoch = ? AND sequence = ? AND replication_id IS ?
                    AND replication_offset IS ?
                """,
            arguments: [
                to.sequence, to.position?.history.digits, to.position?.offset,
                to.position?.database, to.isBaselineDone, OwnTables.text(to.strays), batch.rowCount,
                source,
                from.epoch, from.sequence, from.position?.history.digits, from.position?.offset,
            ],
        )
        if database.changesCount == 1 { return true }
        let row = try Row.fetchOne(
            database, sql: "SELECT * FROM sluice_position WHERE source = ?", arguments: [source])
        if let row, Self.checkpoint(row) == to { return false }
        throw SinkError(
            .fenced, code: "sink.fenced",
            "another instance wrote to this database, or it went back to an older state",
        )
    }

    private func store(
        _ batch: Batch, _ writer: SQLiteWriter, _ now: String, _ database: Database,
    ) throws {
        let letters = letters(database, now)
        try letters.remove(writer.revived.ended)
        try letters.remove(writer.revived.staying, code: .wrongType)
        try letters.store(
            batch.deadLetters + writer.refusals.letters, at: batch.to.position)
        guard let loose = batch.loose else { return }
        try database.execute(
            sql: "DELETE FROM sluice_loose WHERE source = ?", arguments: [source])
        for row in loose {
            try database.execute(
                sql: "INSERT OR REPLACE INTO sluice_loose VALUES (?, ?, ?, ?, ?)",
                arguments: [
                    source, row.table, Data(row.identity.key), Data(row.identity.member),
                    row.stored,
                ],
            )
        }
    }

    // MARK: Reading

    func page(table: Int, after: RowIdentity?, limit: Int) throws(SinkError) -> [RowIdentity] {
        let mapping = mappings[table]
        do {
            return try queue.read { database in
                try SQLiteWriter.page(database, mapping, after: after, limit: limit)
            }
        } catch let error as SinkError {
            throw error
        } catch {
            throw Self.sinkError(error)
        }
    }

    func lastEntries(table: Int, keys: [Bytes]) throws(SinkError) -> [Bytes?] {
        let mapping = mappings[table]
        let sql = TableStatements(mapping, .sqlite).lastEntry
        do {
            return try queue.read { database in
                let statement = try database.makeStatement(sql: sql)
                return try keys.map { key in
                    let values = try SQLiteWriter.values(of: RowIdentity(key: key), mapping)
                    let arguments = StatementArguments(values.prefix(mapping.keys.columns.count))
                    return try String.fetchOne(statement, arguments: arguments).map {
                        Array($0.utf8)
                    }
                }
            }
        } catch let error as SinkError {
            throw error
        } catch {
            throw Self.sinkError(error)
        }
    }

    func outlived(_ rows: [RowIdentity], table: Int) throws(SinkError) -> [RowIdentity: Kept] {
        let mapping = mappings[table]
        return try write { [source] database in
            let kept = SQLiteKept(database: database, source: source)
            return KeptPlan.outlived(rows, mapping, known: try kept.look(up: rows, mapping))
        }
    }

    // MARK: Errors

    static func sinkError(_ error: any Error) -> SinkError {
        guard let error = error as? DatabaseError else {
            return SinkError(.halt, code: "sqlite", "\(error)")
        }
        let code = error.resultCode
        return SinkError(
            SQLiteCodes.response(to: code.rawValue),
            code: "sqlite.\(error.extendedResultCode.rawValue)",
            "SQLite: \(error.message ?? "no message")",
            hint: code == .SQLITE_CANTOPEN
                ? "does the folder exist, and may this user write in it?" : nil)
    }

    /// Whether a statement failed because of the row it was given.
    static func isRefusal(_ error: DatabaseError) -> Bool {
        SQLiteCodes.isRefusal(error.resultCode.rawValue, message: error.message ?? "")
    }
}
