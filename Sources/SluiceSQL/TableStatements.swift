public import SluiceCore

/// The SQL for one mapped table.
///
/// The parameters of each statement are the columns of its ``RowSet``: those of the key, then the
/// values. Statements that write the time of the commit take it as the last parameter.
public struct TableStatements: Sendable {
    private let mapping: TableMapping
    private let dialect: Dialect
    private let table: String

    /// Creates the statements of a table.
    public init(_ mapping: TableMapping, _ dialect: Dialect) {
        self.mapping = mapping
        self.dialect = dialect
        table = Dialect.quote(mapping.name)
    }

    private var mark: String? {
        mapping.markColumn.map(Dialect.quote)
    }
    private var settledAt: String? { mapping.settledAt.map(Dialect.quote) }

    /// Whether statements that write values take the time of the commit.
    public var takesTime: Bool { mapping.settledAt != nil }

    // MARK: Writing

    /// Writes whole rows.
    public var put: String { put(ifDifferent: false) }

    /// Writes whole rows, or only those that differ from what the table has.
    public func put(ifDifferent: Bool) -> String {
        let columns = mapping.values
        var updates = columns.map { column in
            let name = Dialect.quote(column.name)
            return "\(name) = excluded.\(name)"
        }
        if let settledAt { updates.append("\(settledAt) = excluded.\(settledAt)") }
        if let mark { updates.append("\(mark) = NULL") }
        let put = insert(columns, updates)
        guard ifDifferent else { return put }
        guard !columns.isEmpty || mark != nil else { return insert(columns, []) }
        let differs = dialect == .sqlite ? "IS NOT" : "IS DISTINCT FROM"
        var conditions = columns.map { column in
            let name = Dialect.quote(column.name)
            // PostgreSQL compares jsonb, and a table of one's own may have json.
            let (old, new) = ("\(table).\(name)", "excluded.\(name)")
            switch (dialect, column.type) {
            case (.postgres, .json): return "\(old)::jsonb \(differs) \(new)::jsonb"
            // A collation may call texts equal that are not the same.
            case (.postgres, .text):
                return "\(old)::text COLLATE \"C\" \(differs) \(new)::text COLLATE \"C\""
            case (.sqlite, _): return "\(old) COLLATE BINARY \(differs) \(new)"
            default: return "\(old) \(differs) \(new)"
            }
        }
        if let mark { conditions.append("\(table).\(mark) IS NOT NULL") }
        return put + " WHERE " + conditions.joined(separator: " OR ")
    }

    /// Appends rows that are not there.
    public var append: String { insert(mapping.values, []) }

    /// Finds rows that were to be appended but are there with other values. On PostgreSQL it returns
    /// their places in the arrays, from 1; on SQLite a row if the one row is such.
    public var findReused: String {
        let columns = mapping.primaryKey + mapping.values
        let first = mapping.primaryKey.count
        let differs = mapping.values.enumerated().map { index, column in
            let name = "\(table).\(Dialect.quote(column.name))"
            return dialect == .sqlite
                ? "\(name) IS NOT ?\(first + index + 1)"
                // A table of one's own may have json, which nothing equals.
                : "\(cast(name, column.type)) IS DISTINCT FROM "
                    + cast("s.c\(first + index)", column.type)
        }.joined(separator: " OR ")
        switch dialect {
        case .sqlite: return "SELECT 1 FROM \(table) WHERE \(keyCondition) AND (\(differs))"
        case .postgres:
            let arrays = columns.indices.map {
                "$\($0 + 1)::\(dialect.arrayType(columns[$0].type))"
            }
            let names = columns.indices.map { "c\($0)" } + ["place"]
            return "SELECT s.place FROM unnest(\(arrays.joined(separator: ", "))) WITH ORDINALITY "
                + "AS s(\(names.joined(separator: ", "))) JOIN \(table) ON \(keyCondition) "
                + "WHERE \(differs)"
        }
    }

    /// Changes some columns of rows.
    public func merge(_ merge: Merge) -> String {
        let columns = merge.columns.map { mapping.values[$0] }
        guard merge.isUpsert else { return update(columns) }
        var updates = zip(columns, merge.actions).map { column, action in
            assignment(column, merged(column, action))
        }
        if let settledAt { updates.append("\(settledAt) = excluded.\(settledAt)") }
        if let mark {
            // A row that comes back after its removal starts afresh.
            for (index, column) in mapping.values.enumerated() where !merge.columns.contains(index)
            {
                let name = Dialect.quote(column.name)
                updates.append(
                    "\(name) = CASE WHEN \(table).\(mark) IS NULL THEN \(table).\(name) END"
                )
            }
            updates.append("\(mark) = NULL")
        }
        return insert(columns, updates)
    }

    private func merged(_ column: Column, _ action: Merge.Action) -> String {
        let name = Dialect.quote(column.name)
        switch action {
        case .set: return "excluded.\(name)"
        case .add: return "coalesce(\(table).\(name), 0) + excluded.\(name)"
        case .mergeObject:
            return dialect == .sqlite
                ? "json_patch(coalesce(\(table).\(name), '{}'), excluded.\(name))"
                : "coalesce(\(cast("\(table).\(name)", .json)), '{}') || "
                    + cast("excluded.\(name)", .json)
        }
    }

    private func assignment(_ column: Column, _ value: String) -> String {
        let name = Dialect.quote(column.name)
        guard let mark, value != "excluded.\(name)" else { return "\(name) = \(value)" }
        return "\(name) = CASE WHEN \(table).\(mark) IS NULL THEN \(value) "
            + "ELSE \(dialect == .sqlite ? "excluded.\(name)" : cast("excluded.\(name)", column.type)) END"
    }

    private func insert(_ values: [Column], _ updates: [String]) -> String {
        let columns = mapping.primaryKey + values
        let key = mapping.primaryKey.map { Dialect.quote($0.name) }.joined(separator: ", ")
        var names = columns.map { Dialect.quote($0.name) }
        if let settledAt { names.append(settledAt) }
        let conflict = updates.isEmpty ? "NOTHING" : "UPDATE SET \(updates.joined(separator: ", "))"
        return "INSERT INTO \(table) (\(names.joined(separator: ", "))) \(source(columns)) "
            + "ON CONFLICT (\(key)) DO \(conflict)"
    }

    // The rows of an insert, with the time of the commit after the columns.
    private func source(_ columns: [Column]) -> String {
        switch dialect {
        case .sqlite:
            let count = columns.count + (takesTime ? 1 : 0)
            return "VALUES (\(Array(repeating: "?", count: count).joined(separator: ", ")))"
        case .postgres:
            var values = columns.indices.map { cast("s.c\($0)", columns[$0].type) }
            if takesTime { values.append("$\(columns.count + 1)::timestamptz") }
            return "SELECT \(values.joined(separator: ", ")) FROM \(unnest(columns))"
        }
    }

    private func cast(_ value: String, _ type: ColumnType) -> String {
        switch type {
        case .decimal: "\(value)::numeric"
        case .json: "\(value)::jsonb"
        default: value
        }
    }

    private func unnest(_ columns: [Column], from first: Int = 1, as name: String = "s") -> String {
        let arrays = columns.indices.map {
            "$\(first + $0)::\(dialect.arrayType(columns[$0].type))"
        }
        let names = columns.indices.map { "c\($0)" }
        return "unnest(\(arrays.joined(separator: ", "))) "
            + "AS \(name)(\(names.joined(separator: ", ")))"
    }

    private func update(_ columns: [Column]) -> String {
        let key = mapping.primaryKey
        let unmarked = mark.map { " AND \(table).\($0) IS NULL" } ?? ""
        switch dialect {
        case .sqlite:
            // Numbered, because the key comes first among the parameters.
            var sets = columns.enumerated().map { index, column in
                "\(Dialect.quote(column.name)) = ?\(key.count + index + 1)"
            }
            if let settledAt { sets.append("\(settledAt) = ?\(key.count + columns.count + 1)") }
            return "UPDATE \(table) SET \(sets.joined(separator: ", ")) "
                + "WHERE \(keyCondition)\(unmarked)"
        case .postgres:
            var sets = columns.enumerated().map { index, column in
                "\(Dialect.quote(column.name)) = \(cast("s.c\(key.count + index)", column.type))"
            }
            if let settledAt {
                sets.append("\(settledAt) = $\(key.count + columns.count + 1)::timestamptz")
            }
            return "UPDATE \(table) SET \(sets.joined(separator: ", ")) "
                + "FROM \(unnest(key + columns)) WHERE \(keyCondition)\(unmarked)"
        }
    }

    private var keyCondition: String { condition(mapping.primaryKey) }

    private func condition(_ columns: [Column], source: String = "s") -> String {
        columns.enumerated().map { index, column in
            let value = dialect == .sqlite ? "?\(index + 1)" : "\(source).c\(index)"
            return "\(table).\(Dialect.quote(column.name)) = \(value)"
        }.joined(separator: " AND ")
    }

    // MARK: Removing

    /// Deletes rows, or marks them as removed; then the time is the last parameter.
    public func remove(marks: Bool) -> String {
        remove(mapping.primaryKey, except: nil, marks: marks)
    }

    /// Removes all rows of keys.
    ///
    /// - Parameters:
    ///   - marks: Whether they are marked; then the time is the last parameter.
    ///   - keepsSome: Whether some rows stay. On PostgreSQL their key columns follow as parameters;
    ///     on SQLite they stand in the table of ``makeExceptions``.
    public func clear(marks: Bool, keepsSome: Bool) -> String {
        removeMany(mapping.keys.columns, marks: marks, keepsSome: keepsSome)
    }

    /// Removes all rows; see ``clear(marks:keepsSome:)``.
    public func wipe(marks: Bool, keepsSome: Bool) -> String {
        removeMany([], marks: marks, keepsSome: keepsSome)
    }

    private func removeMany(_ columns: [Column], marks: Bool, keepsSome: Bool) -> String {
        guard keepsSome else { return remove(columns, except: nil, marks: marks) }
        let count = columns.count
        let names = mapping.primaryKey.enumerated()
        let same = names.map { index, column in
            let name = Dialect.quote(column.name)
            return "e.\(dialect == .sqlite ? name : "c\(index)") = \(table).\(name)"
        }.joined(separator: " AND ")
        let source =
            dialect == .sqlite
            ? "temp.\(exceptions) AS e"
            : unnest(mapping.primaryKey, from: count + 1, as: "e")
        return remove(
            columns, except: "NOT EXISTS (SELECT 1 FROM \(source) WHERE \(same))", marks: marks)
    }

    private func remove(_ columns: [Column], except: String?, marks: Bool) -> String {
        var condition = columns.isEmpty ? "1 = 1" : condition(columns)
        if let except { condition += " AND \(except)" }
        let count = columns.count + (except == nil ? 0 : mapping.primaryKey.count)
        let source = columns.isEmpty ? nil : unnest(columns)
        switch (dialect, marks ? mark : nil) {
        case (.sqlite, nil): return "DELETE FROM \(table) WHERE \(condition)"
        case (.sqlite, let mark?):
            return "UPDATE \(table) SET \(mark) = ?\(columns.count + 1) "
                + "WHERE \(condition) AND \(mark) IS NULL"
        case (.postgres, nil):
            let using = source.map { " USING \($0)" } ?? ""
            return "DELETE FROM \(table)\(using) WHERE \(condition)"
        case (.postgres, let mark?):
            let from = source.map { " FROM \($0)" } ?? ""
            return "UPDATE \(table) SET \(mark) = $\(count + 1)::timestamptz"
                + "\(from) WHERE \(condition) AND \(table).\(mark) IS NULL"
        }
    }

    private var exceptions: String { Dialect.quote("sluice_except_\(mapping.name)") }

    /// SQLite's temporary table of rows that a clear leaves: made, emptied, filled.
    public var makeExceptions: (create: String, empty: String, insert: String) {
        let columns = mapping.primaryKey.map {
            "\(Dialect.quote($0.name)) \(dialect.type($0.type))"
        }
        let names = mapping.primaryKey.map { Dialect.quote($0.name) }
        let marks = Array(repeating: "?", count: columns.count).joined(separator: ", ")
        return (
            // The key makes looking one up quick, however many there are.
            "CREATE TEMP TABLE IF NOT EXISTS \(exceptions) (\(columns.joined(separator: ", ")), "
                + "PRIMARY KEY (\(names.joined(separator: ", ")))) WITHOUT ROWID",
            "DELETE FROM temp.\(exceptions)",
            "INSERT OR IGNORE INTO temp.\(exceptions) VALUES (\(marks))"
        )
    }

    // MARK: Reading and making

    /// How many rows there are.
    public var count: String { "SELECT count(*) FROM \(table)" }

    /// A page of primary keys; the last row of the page before is the parameter if there is one.
    public func page(isFirst: Bool, limit: Int) -> String {
        let names = mapping.primaryKey.map { Dialect.quote($0.name) }.joined(separator: ", ")
        var conditions: [String] = []
        if !isFirst {
            let values = mapping.primaryKey.indices.map { index in
                dialect == .sqlite
                    ? "?" : "$\(index + 1)::\(dialect.type(mapping.primaryKey[index].type))"
            }
            conditions.append("(\(names)) > (\(values.joined(separator: ", ")))")
        }
        if let mark { conditions.append("\(mark) IS NULL") }
        let filter = conditions.isEmpty ? "" : " WHERE " + conditions.joined(separator: " AND ")
        return "SELECT \(names) FROM \(table)\(filter) ORDER BY \(names) LIMIT \(limit)"
    }

    /// The last identifier of a stream's entries; the key's columns are the parameters.
    public var lastEntry: String {
        let id = Dialect.quote(mapping.member?.name ?? "")
        let conditions = mapping.keys.columns.enumerated().map { index, column in
            let place =
                dialect == .sqlite ? "?" : "$\(index + 1)::\(dialect.type(column.type))"
            return "\(Dialect.quote(column.name)) = \(place)"
        }
        // Milliseconds and sequence are numbers, and texts of numbers sort otherwise.
        let order =
            dialect == .sqlite
            ? "CAST(substr(\(id), 1, instr(\(id), '-') - 1) AS INTEGER) DESC, "
                + "CAST(substr(\(id), instr(\(id), '-') + 1) AS INTEGER) DESC"
            : "split_part(\(id), '-', 1)::numeric DESC, split_part(\(id), '-', 2)::numeric DESC"
        let filter = conditions.isEmpty ? "" : " WHERE " + conditions.joined(separator: " AND ")
        return "SELECT \(id) FROM \(table)\(filter) ORDER BY \(order) LIMIT 1"
    }

    /// Makes the table.
    public var create: String {
        var columns = mapping.primaryKey.map { column in
            // Sorted as bytes, so that rows arrive in the order in which the index has them.
            let collation = dialect == .postgres && column.type == .text ? " COLLATE \"C\"" : ""
            return "\(Dialect.quote(column.name)) \(dialect.type(column.type))\(collation) NOT NULL"
        }
        columns += mapping.values.map {
            "\(Dialect.quote($0.name)) \(dialect.type($0.type))"
        }
        let time = dialect.type(.timestamp)
        if let mark { columns.append("\(mark) \(time)") }
        if let settledAt { columns.append("\(settledAt) \(time)") }
        let key = mapping.primaryKey.map { Dialect.quote($0.name) }.joined(separator: ", ")
        columns.append("PRIMARY KEY (\(key))")
        let end = dialect == .sqlite ? " WITHOUT ROWID" : ""
        return "CREATE TABLE IF NOT EXISTS \(table) (\n    "
            + columns.joined(separator: ",\n    ") + "\n)\(end)"
    }

    /// The names of all columns that the table must have.
    public var columnNames: [String] {
        var names = (mapping.primaryKey + mapping.values).map(\.name)
        if let column = mapping.markColumn { names.append(column) }
        if let column = mapping.settledAt { names.append(column) }
        return names
    }
}
