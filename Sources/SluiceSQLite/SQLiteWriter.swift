internal import Foundation
internal import GRDB
internal import SluiceCore
internal import SluiceSQL

/// Writes a batch's rows in one transaction, one statement a row.
struct SQLiteWriter {
    let database: Database
    let mappings: [TableMapping]
    let source: String
    let now: String
    private(set) var refusals: Refusals
    /// Rows that were put with other values than the table had, where that was asked for.
    private(set) var changed = 0
    /// The dead letters that end.
    private(set) var revived = RevivedLetters()

    init(
        database: Database, source: String, mappings: [TableMapping], now: String,
        refusals: Refusals,
    ) {
        self.database = database
        self.source = source
        self.mappings = mappings
        self.now = now
        self.refusals = refusals
    }

    /// Upserts in the file's order, removals in reverse, so that foreign keys to earlier tables hold.
    mutating func apply(_ batch: Batch) throws {
        revived = RevivedLetters(batch.revived)
        let kept = SQLiteKept(database: database, source: source)
        var tables: [TableChanges] = []
        for taken in batch.tables {
            let mapping = mappings[taken.table]
            let statements = TableStatements(mapping, .sqlite)
            let plan = try kept.plan(taken, mapping)
            revived.add(plan, mapping)
            for merge in plan.resets {
                let target = WriteTarget(taken, mapping, merge)
                try run(statements.merge(merge), merge.rows, target, time: statements.takesTime)
            }
            let changes = plan.changes
            tables.append(changes)
            let put = WriteTarget(changes, mapping, .put)
            let compares = batch.comparesPuts
            try run(
                statements.put(ifDifferent: compares), changes.puts, put,
                time: statements.takesTime
            ) { writer, _ in
                if compares { writer.changed += writer.database.changesCount }
            }
            for merge in changes.merges {
                let target = WriteTarget(changes, mapping, merge)
                try run(statements.merge(merge), merge.rows, target, time: statements.takesTime)
            }
            try append(changes, statements)
            try kept.write(plan.notes, mapping)
        }
        for changes in tables.reversed() {
            let statements = TableStatements(mappings[changes.table], .sqlite)
            let remove = WriteTarget(changes, mappings[changes.table], .remove)
            try clear(changes, statements, WriteTarget(changes, mappings[changes.table], .clear))
            try run(statements.remove, changes.removes, remove, time: false)
            if changes.marks.count > 0 {
                let mark = WriteTarget(changes, mappings[changes.table], .mark)
                try run(statements.markRows, changes.marks, mark, time: true)
            }
        }
    }

    /// Writes rows that were set aside.
    mutating func retry(_ letters: RestoredLetters, table: Int) throws {
        let mapping = mappings[table]
        let statements = TableStatements(mapping, .sqlite)
        var changes = TableChanges(table: table, mapping: mapping)
        changes.appends = letters.appends
        let put = WriteTarget(changes, mapping, .put)
        try run(statements.put, letters.puts, put, time: statements.takesTime)
        try append(changes, statements)
        let remove = WriteTarget(changes, mapping, .remove)
        try run(statements.remove, letters.removes, remove, time: false)
        guard letters.marks.count > 0 else { return }
        let mark = WriteTarget(changes, mapping, .mark)
        try run(statements.markRows, letters.marks, mark, time: true)
    }

    /// Appends entries. One that is there already is a replay if its fields are the same.
    private mutating func append(
        _ changes: TableChanges, _ statements: TableStatements,
    ) throws {
        let rows = changes.appends
        guard rows.count > 0 else { return }
        let find = try database.makeStatement(sql: statements.findReused)
        let columns = rows.key + rows.values
        let target = WriteTarget(changes, mappings[changes.table], .append)
        try run(statements.append, rows, target, time: statements.takesTime) {
            writer, row in
            guard writer.database.changesCount == 0 else { return }
            let arguments = StatementArguments(columns.map { Self.value($0, row) })
            guard try Row.fetchOne(find, arguments: arguments) != nil else { return }
            writer.refusals.addReused(rows, row, of: target)
        }
    }

    private mutating func clear(
        _ changes: TableChanges, _ statements: TableStatements, _ target: WriteTarget,
    ) throws {
        guard changes.clears.count + changes.clearMarks.count > 0 || changes.wipe != nil else {
            return
        }
        let keepsSome = changes.clearsExcept.count > 0
        if keepsSome {
            let exceptions = statements.makeExceptions
            try database.execute(sql: exceptions.create)
            try database.execute(sql: exceptions.empty)
            try run(exceptions.insert, changes.clearsExcept, target, time: false)
        }
        if let wipe = changes.wipe {
            let marks = wipe != .delete
            let arguments: StatementArguments = marks ? [now] : []
            try database.execute(
                sql: statements.wipe(marks: marks, keepsSome: keepsSome), arguments: arguments)
        }
        let clear = statements.clear(marks: false, keepsSome: keepsSome)
        try run(clear, changes.clears, target, time: false)
        guard changes.clearMarks.count > 0 else { return }
        let mark = statements.clear(marks: true, keepsSome: keepsSome)
        try run(mark, changes.clearMarks, target, time: true)
    }

    /// Runs a statement for each row; a row that is refused becomes a dead letter.
    private mutating func run(
        _ sql: String, _ rows: RowSet, _ target: WriteTarget, time: Bool,
        after: (inout SQLiteWriter, Int) throws -> Void = { _, _ in },
    ) throws {
        guard rows.count > 0 else { return }
        var statement = try database.makeStatement(sql: sql)
        let columns = rows.key + rows.values
        var arguments: [DatabaseValue] = []
        for row in 0..<rows.count {
            arguments.removeAll(keepingCapacity: true)
            for column in columns { arguments.append(Self.value(column, row)) }
            if time { arguments.append(now.databaseValue) }
            do {
                // A statement that fails changes nothing, and the transaction goes on.
                try statement.execute(arguments: StatementArguments(arguments))
                try after(&self, row)
            } catch let error as DatabaseError where SQLiteSession.isRefusal(error) {
                // Resetting a statement that failed reports its failure once more: a new one does not.
                statement = try database.makeStatement(sql: sql)
                try refusals.add(
                    rows, row, of: target, code: "sqlite.\(error.extendedResultCode.rawValue)",
                    message: error.message ?? "refused")
            }
        }
    }

    private static func value(_ column: ColumnVector, _ row: Int) -> DatabaseValue {
        if column.isNull[row] { return .null }
        switch column.type {
        case .integer, .boolean: return column.integers[row].databaseValue
        case .timestamp:
            return Timestamp.text(microseconds: column.integers[row]).databaseValue
        case .real: return column.reals[row].databaseValue
        case .bytes: return Data(column.bytes(row)).databaseValue
        case .text, .decimal, .json:
            return String(decoding: column.bytes(row), as: UTF8.self).databaseValue
        }
    }

    /// The primary key of a row.
    static func values(of identity: RowIdentity, _ mapping: TableMapping) throws -> [DatabaseValue]
    {
        guard let ranges = mapping.keys.split(identity.key.span) else {
            throw SinkError(.halt, code: "sink.key", "a key does not match its pattern")
        }
        var parts = ranges.map { Array(identity.key[$0]) }
        if mapping.member != nil { parts.append(identity.member) }
        return zip(parts, mapping.primaryKey).map { part, column in
            switch column.type {
            case .bytes: Data(part).databaseValue
            case .integer: (Int64(String(decoding: part, as: UTF8.self)) ?? 0).databaseValue
            default: String(decoding: part, as: UTF8.self).databaseValue
            }
        }
    }

    /// The key and member of a row's primary key.
    static func identity(of row: Row, _ mapping: TableMapping) -> RowIdentity {
        var parts = mapping.primaryKey.indices.map { index -> Bytes in
            let value: DatabaseValue = row[index]
            switch value.storage {
            case .blob(let data): return Array(data)
            case .int64(let number): return Array("\(number)".utf8)
            case .string(let text): return Array(text.utf8)
            case .double(let number): return Array("\(number)".utf8)
            case .null: return []
            }
        }
        let member = mapping.member == nil ? [] : parts.removeLast()
        return RowIdentity(key: mapping.keys.key(from: parts), member: member)
    }
}
