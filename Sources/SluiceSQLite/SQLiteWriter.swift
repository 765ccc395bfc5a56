internal import Foundation
internal import GRDB
internal import SluiceCore
internal import SluiceSQL

/// Writes a batch's rows in one transaction, one statement a row.
struct SQLiteWriter {
    /// The rows that are looked up at a time.
    private static let pageMax = 10_000

    let database: Database
    let mappings: [TableMapping]
    let source: String
    let now: String
    /// Whether what fails only at a commit is found with each row, which takes longer.
    let isStrict: Bool
    private(set) var refusals: Refusals
    // Rows that a deferred foreign key refuses, but perhaps not once all others are there.
    private var deferred: [Deferred] = []
    /// Rows that were put with other values than the table had, where that was asked for.
    private(set) var changed = 0
    /// The dead letters that end.
    private(set) var revived = RevivedLetters()

    init(
        database: Database, source: String, mappings: [TableMapping], now: String,
        isStrict: Bool, refusals: Refusals,
    ) {
        self.database = database
        self.source = source
        self.mappings = mappings
        self.now = now
        self.isStrict = isStrict
        self.refusals = refusals
    }

    /// Upserts in the file's order, removals in reverse, so that foreign keys to earlier tables hold.
    mutating func apply(_ batch: Batch) throws {
        revived = RevivedLetters(batch.revived)
        let kept = SQLiteKept(database: database, source: source)
        var plans: [(table: Int, plan: KeptPlan)] = []
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
            plans.append((taken.table, plan))
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
        }
        for (table, plan) in plans.reversed() {
            let mapping = mappings[table]
            let changes = plan.changes
            let statements = TableStatements(mapping, .sqlite)
            try clear(plan, statements, WriteTarget(changes, mapping, .clear))
            try clearReturned(plan, mapping, statements, kept)
            try remove(changes.removes, of: changes, statements, marks: false)
            try remove(changes.marks, of: changes, statements, marks: true)
            try kept.write(plan.notes, mapping)
        }
        try runDeferred()
    }

    private mutating func remove(
        _ rows: RowSet, of changes: TableChanges, _ statements: TableStatements, marks: Bool,
    ) throws {
        guard rows.count > 0 else { return }
        let target = WriteTarget(changes, mappings[changes.table], marks ? .mark : .remove)
        try run(statements.remove(marks: marks), rows, target, time: marks)
    }

    /// Has those rows of keys go that came back after the others outlived an earlier key, a page at a
    /// time.
    private mutating func clearReturned(
        _ plan: KeptPlan, _ mapping: TableMapping, _ statements: TableStatements,
        _ kept: SQLiteKept,
    ) throws {
        var count = plan.changes.count
        for returned in plan.returned {
            var last: Bytes = []
            while true {
                let page = try kept.returned(
                    of: returned.key, after: last, limit: Self.pageMax, mapping)
                let rows = plan.leaving(page)
                count += rows.count
                let target = WriteTarget(
                    plan.changes, mapping, marks: returned.marks, rowCount: count)
                try run(
                    statements.remove(marks: returned.marks), rows, target,
                    time: returned.marks)
                if !returned.marks {
                    try kept.write(rows.identities.map { .forget($0) }, mapping)
                }
                guard page.count == Self.pageMax, let end = page.last else { break }
                last = end.member
            }
        }
    }

    private struct Deferred {
        let sql: String
        let arguments: [DatabaseValue]
        let rows: RowSet
        let target: WriteTarget
    }

    /// Tries rows once more that a deferred foreign key refused, while any of them are taken.
    private mutating func runDeferred() throws {
        var isTaken = true
        while isTaken, !deferred.isEmpty {
            let rows = deferred
            deferred = []
            isTaken = false
            for row in rows {
                let refusal = try attempt {
                    try database.execute(
                        sql: row.sql, arguments: StatementArguments(row.arguments))
                }
                if refusal == nil { isTaken = true } else { deferred.append(row) }
            }
        }
        for row in deferred {
            try refusals.add(
                row.rows, 0, of: row.target, code: SQLiteCodes.deferredCode,
                message: SQLiteCodes.deferred.message ?? "refused")
        }
        deferred = []
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
        try run(statements.remove(marks: false), letters.removes, remove, time: false)
        let mark = WriteTarget(changes, mapping, .mark)
        if letters.marks.count > 0 {
            try run(statements.remove(marks: true), letters.marks, mark, time: true)
        }
        try runDeferred()
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
        _ plan: KeptPlan, _ statements: TableStatements, _ target: WriteTarget,
    ) throws {
        let changes = plan.changes
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
            let sql = statements.wipe(marks: marks, keepsSome: keepsSome)
            if try attempt({
                try database.execute(sql: sql, arguments: marks ? [now] : [])
            }) != nil {
                try wipeEach(plan, statements, marks: marks)
            }
        }
        let clear = statements.clear(marks: false, keepsSome: keepsSome)
        try run(clear, changes.clears, target, time: false)
        guard changes.clearMarks.count > 0 else { return }
        let mark = statements.clear(marks: true, keepsSome: keepsSome)
        try run(mark, changes.clearMarks, target, time: true)
    }

    /// Has all rows of a table go that refuses some, a page at a time.
    private mutating func wipeEach(
        _ plan: KeptPlan, _ statements: TableStatements, marks: Bool,
    ) throws {
        let changes = plan.changes
        let mapping = mappings[changes.table]
        let count = try Int.fetchOne(database, sql: statements.count) ?? 0
        let target = WriteTarget(changes, mapping, marks: marks, rowCount: count)
        let sql = statements.remove(marks: marks)
        let before = refusals.letters.count
        var last: [DatabaseValue]?
        while true {
            let page = try Self.rows(database, mapping, after: last, limit: Self.pageMax)
            let names = page.map { Self.identity(of: $0, mapping) }
            try run(sql, plan.leaving(names), target, time: marks)
            guard page.count == Self.pageMax, let end = page.last else { break }
            last = mapping.primaryKey.indices.map { end[$0] }
        }
        // A row may have been held by one that is gone by now.
        for _ in 0..<WriteTarget.passesMax where refusals.letters.count > before {
            let count = refusals.letters.count
            let names = refusals.takeBack(to: before, of: target)
            try run(sql, plan.leaving(names), target, time: marks)
            if refusals.letters.count == count { break }
        }
    }

    /// Runs a statement.
    ///
    /// - Returns: Why it was refused, or nil. Then it has changed nothing, and the transaction goes on.
    private func attempt(_ statement: () throws -> Void) throws -> DatabaseError? {
        if isStrict { try database.execute(sql: "SAVEPOINT sluice_row") }
        var refusal: DatabaseError?
        do {
            try statement()
            if isStrict, database.violatesDeferred { refusal = SQLiteCodes.deferred }
        } catch let error as DatabaseError where SQLiteSession.isRefusal(error) {
            guard database.isInsideTransaction else { throw SQLiteCodes.rolledBack(error) }
            refusal = error
        }
        if isStrict {
            if refusal != nil { try database.execute(sql: "ROLLBACK TO sluice_row") }
            try database.execute(sql: "RELEASE sluice_row")
        }
        return refusal
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
            let refusal = try attempt {
                try statement.execute(arguments: StatementArguments(arguments))
            }
            if let error = refusal {
                // Resetting a statement that failed reports its failure once more: a new one does not.
                statement = try database.makeStatement(sql: sql)
                if isStrict, error.extendedResultCode == .SQLITE_CONSTRAINT_FOREIGNKEY {
                    deferred.append(
                        Deferred(
                            sql: sql, arguments: arguments, rows: rows.selecting([row]),
                            target: target))
                    continue
                }
                try refusals.add(
                    rows, row, of: target, code: "sqlite.\(error.extendedResultCode.rawValue)",
                    message: error.message ?? "refused")
            } else {
                try after(&self, row)
            }
        }
    }

    /// The rows after one, in the order of the primary key.
    static func page(
        _ database: Database, _ mapping: TableMapping, after: RowIdentity?, limit: Int,
    ) throws -> [RowIdentity] {
        let last = try after.map { try values(of: $0, mapping) }
        return try rows(database, mapping, after: last, limit: limit).map {
            identity(of: $0, mapping)
        }
    }

    // The primary keys of rows; what each row is called need not lead back to it.
    private static func rows(
        _ database: Database, _ mapping: TableMapping, after last: [DatabaseValue]?, limit: Int,
    ) throws -> [Row] {
        let sql = TableStatements(mapping, .sqlite).page(isFirst: last == nil, limit: limit)
        return try Row.fetchAll(database, sql: sql, arguments: StatementArguments(last ?? []))
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
