internal import SluiceCore
internal import SluiceSQL

/// Writes a batch's rows in one transaction, a few statements a table, each over arrays of rows.
struct PostgresWriter {
    /// The most rows of one statement: beyond it the rate does not grow, and memory does.
    static let rowsMax = 10_000
    /// The bytes of values at which a statement's rows are cut short: PostgreSQL takes at most 1 GB.
    static let bytesMax = 4 << 20

    private let connection: PostgresConnection
    private let mappings: [TableMapping]
    private let kept: PostgresKept
    private(set) var refusals: Refusals
    /// Rows that were put with other values than the table had, where that was asked for.
    private(set) var changed = 0
    /// The dead letters that end.
    private(set) var revived = RevivedLetters()

    init(
        connection: PostgresConnection, source: String, mappings: [TableMapping],
        refusals: Refusals,
    ) {
        self.connection = connection
        kept = PostgresKept(connection: connection, source: source)
        self.mappings = mappings
        self.refusals = refusals
    }

    /// Upserts in the file's order, removals in reverse, so that foreign keys to earlier tables hold.
    mutating func apply(_ batch: Batch) throws(SinkError) {
        revived = RevivedLetters(batch.revived)
        var plans: [(table: Int, plan: KeptPlan)] = []
        for taken in batch.tables {
            let mapping = mappings[taken.table]
            let statements = TableStatements(mapping, .postgres)
            let time = statements.takesTime
            let plan = try kept.plan(taken, mapping)
            revived.add(plan, mapping)
            for merge in plan.resets {
                let target = WriteTarget(taken, mapping, merge)
                try run(statements.merge(merge), merge.rows, target, time: time)
            }
            let changes = plan.changes
            plans.append((taken.table, plan))
            let put = WriteTarget(changes, mapping, .put)
            let changed = try run(
                statements.put(ifDifferent: batch.comparesPuts), changes.puts, put, time: time)
            if batch.comparesPuts { self.changed += changed }
            for merge in changes.merges {
                let target = WriteTarget(changes, mapping, merge)
                try run(statements.merge(merge), merge.rows, target, time: time)
            }
            try append(changes, statements)
        }
        for (table, plan) in plans.reversed() {
            let mapping = mappings[table]
            let changes = plan.changes
            let statements = TableStatements(mapping, .postgres)
            let except = changes.clearsExcept.count > 0 ? changes.clearsExcept.key : []
            try wipe(plan, statements, except)
            for (rows, marks) in [(changes.clears, false), (changes.clearMarks, true)]
            where rows.count > 0 {
                let sql = statements.clear(marks: marks, keepsSome: !except.isEmpty)
                let clear = WriteTarget(changes, mapping, .clear)
                try run(sql, rows, clear, more: except, time: marks)
            }
            try clearReturned(plan, mapping, statements)
            try remove(changes.removes, of: changes, statements, marks: false)
            try remove(changes.marks, of: changes, statements, marks: true)
            try kept.write(plan.notes, mapping)
        }
    }

    private mutating func remove(
        _ rows: RowSet, of changes: TableChanges, _ statements: TableStatements, marks: Bool,
    ) throws(SinkError) {
        guard rows.count > 0 else { return }
        let target = WriteTarget(changes, mappings[changes.table], marks ? .mark : .remove)
        try run(statements.remove(marks: marks), rows, target, time: marks)
    }

    /// Has those rows of keys go that came back after the others outlived an earlier key, a page at a
    /// time.
    private mutating func clearReturned(
        _ plan: KeptPlan, _ mapping: TableMapping, _ statements: TableStatements,
    ) throws(SinkError) {
        var count = plan.changes.count
        for returned in plan.returned {
            var last: Bytes?
            while true {
                let page = try kept.returned(
                    of: returned.key, after: last, limit: Self.rowsMax, mapping)
                let rows = plan.leaving(page.rows)
                count += rows.count
                let target = WriteTarget(
                    plan.changes, mapping, marks: returned.marks, rowCount: count)
                try run(
                    statements.remove(marks: returned.marks), rows, target,
                    time: returned.marks)
                if !returned.marks { try kept.forget(rows.identities, mapping) }
                last = page.last
                if page.rows.count < Self.rowsMax { break }
            }
        }
    }

    private mutating func wipe(
        _ plan: KeptPlan, _ statements: TableStatements, _ except: [ColumnVector],
    ) throws(SinkError) {
        guard let wipe = plan.changes.wipe else { return }
        let marks = wipe != .delete
        var parameters = except.map {
            PostgresConnection.Parameter.binary(PostgresArray.encode($0, 0..<$0.count))
        }
        if marks { parameters.append(.text("now")) }
        let sql = statements.wipe(marks: marks, keepsSome: !except.isEmpty)
        try connection.run("SAVEPOINT rows")
        do throws(SinkError) {
            try connection.run(sql, parameters)
        } catch {
            guard PostgresCodes.isRefusal(error) else { throw error }
            try connection.run("ROLLBACK TO SAVEPOINT rows")
            try connection.run("RELEASE SAVEPOINT rows")
            return try wipeEach(plan, statements, marks: marks)
        }
        try connection.run("RELEASE SAVEPOINT rows")
    }

    /// Has all rows of a table go that refuses some, a page at a time.
    private mutating func wipeEach(
        _ plan: KeptPlan, _ statements: TableStatements, marks: Bool,
    ) throws(SinkError) {
        let changes = plan.changes
        let mapping = mappings[changes.table]
        let count = try connection.run(statements.count).rows.first?.first ?? nil
        let target = WriteTarget(
            changes, mapping, marks: marks, rowCount: count.flatMap { Int($0) } ?? 0)
        let sql = statements.remove(marks: marks)
        let before = refusals.letters.count
        var last: [PostgresConnection.Parameter]?
        while true {
            let page = try PostgresPage.rows(
                connection, mapping, after: last, limit: Self.rowsMax)
            let names = page.map { PostgresPage.identity(of: $0, mapping) }
            try run(sql, plan.leaving(names), target, time: marks)
            guard page.count == Self.rowsMax, let end = page.last else { break }
            last = end.map { $0.map { .text($0) } ?? .null }
        }
        // A row may have been held by one that is gone by now.
        for _ in 0..<WriteTarget.passesMax where refusals.letters.count > before {
            let count = refusals.letters.count
            let names = refusals.takeBack(to: before, of: target)
            try run(sql, plan.leaving(names), target, time: marks)
            if refusals.letters.count == count { break }
        }
    }

    /// Writes rows that were set aside.
    mutating func retry(_ letters: RestoredLetters, table: Int) throws(SinkError) {
        let mapping = mappings[table]
        let statements = TableStatements(mapping, .postgres)
        var changes = TableChanges(table: table, mapping: mapping)
        changes.appends = letters.appends
        let put = WriteTarget(changes, mapping, .put)
        try run(statements.put, letters.puts, put, time: statements.takesTime)
        try append(changes, statements)
        let remove = WriteTarget(changes, mapping, .remove)
        try run(statements.remove(marks: false), letters.removes, remove, time: false)
        guard letters.marks.count > 0 else { return }
        let mark = WriteTarget(changes, mapping, .mark)
        try run(statements.remove(marks: true), letters.marks, mark, time: true)
    }

    /// Appends entries. One that is there already is a replay if its fields are the same.
    private mutating func append(
        _ changes: TableChanges, _ statements: TableStatements,
    ) throws(SinkError) {
        let rows = changes.appends
        let target = WriteTarget(changes, mappings[changes.table], .append)
        var start = 0
        while start < rows.count {
            let end = chunkEnd(rows, from: start)
            let changed = try run(
                statements.append, rows, start..<end, target, [], statements.takesTime)
            if changed < end - start {
                let columns = (rows.key + rows.values).map {
                    PostgresConnection.Parameter.binary(PostgresArray.encode($0, start..<end))
                }
                for row in try connection.run(statements.findReused, columns).rows {
                    guard let place = row[0].flatMap({ Int($0) }) else { continue }
                    refusals.addReused(rows, start + place - 1, of: target)
                }
            }
            start = end
        }
    }

    @discardableResult
    private mutating func run(
        _ sql: String, _ rows: RowSet, _ target: WriteTarget, more: [ColumnVector] = [],
        time: Bool,
    ) throws(SinkError) -> Int {
        var start = 0
        var changed = 0
        while start < rows.count {
            let end = chunkEnd(rows, from: start)
            changed += try run(sql, rows, start..<end, target, more, time)
            start = end
        }
        return changed
    }

    private func chunkEnd(_ rows: RowSet, from start: Int) -> Int {
        var bytes = 0
        var end = start
        while end < rows.count, end - start < Self.rowsMax, bytes < Self.bytesMax {
            for column in rows.key + rows.values where !column.ends.isEmpty {
                bytes += column.bytes(end).count
            }
            end += 1
        }
        return end
    }

    /// Runs a statement over some rows. When it is refused, its halves are tried, down to the rows
    /// that are refused alone: those become dead letters, and the others are written.
    ///
    /// - Returns: How many rows of the table were changed.
    @discardableResult
    private mutating func run(
        _ sql: String, _ rows: RowSet, _ range: Range<Int>, _ target: WriteTarget,
        _ more: [ColumnVector],
        _ time: Bool,
    ) throws(SinkError) -> Int {
        var parameters = (rows.key + rows.values).map {
            PostgresConnection.Parameter.binary(PostgresArray.encode($0, range))
        }
        parameters += more.map { .binary(PostgresArray.encode($0, 0..<$0.count)) }
        if time { parameters.append(.text("now")) }
        try connection.run("SAVEPOINT rows")
        do throws(SinkError) {
            let changed = try connection.run(sql, parameters).changed
            try connection.run("RELEASE SAVEPOINT rows")
            return changed
        } catch {
            guard PostgresCodes.isRefusal(error) else { throw error }
            try connection.run("ROLLBACK TO SAVEPOINT rows")
            try connection.run("RELEASE SAVEPOINT rows")
            guard range.count > 1 else {
                try refusals.add(
                    rows, range.lowerBound, of: target, code: error.code, message: error.message)
                return 0
            }
            let middle = range.lowerBound + range.count / 2
            let left = try run(sql, rows, range.lowerBound..<middle, target, more, time)
            return try left + run(sql, rows, middle..<range.upperBound, target, more, time)
        }
    }
}
