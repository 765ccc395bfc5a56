internal import GRDB

/// Reads a SQLite file beside whoever writes it.
package final class SQLiteQuery: Sendable {
    private let queue: DatabaseQueue

    /// Opens a file for reading.
    package init(path: String) throws {
        var configuration = Configuration()
        configuration.readonly = true
        configuration.busyMode = .timeout(5)
        queue = try DatabaseQueue(path: path, configuration: configuration)
    }

    /// The rows of a query as text.
    package func rows(_ sql: String) throws -> [[String?]] {
        try queue.read { database in
            try Row.fetchAll(database, sql: sql).map { row in
                row.databaseValues.map { String.fromDatabaseValue($0) ?? Self.text($0) }
            }
        }
    }

    /// Changes a file beside whoever writes it; for tests.
    package static func change(path: String, _ sql: String) throws {
        var configuration = Configuration()
        configuration.busyMode = .timeout(5)
        try DatabaseQueue(path: path, configuration: configuration).write { database in
            try database.execute(sql: sql)
        }
    }

    private static func text(_ value: DatabaseValue) -> String? {
        switch value.storage {
        case .int64(let number): "\(number)"
        case .double(let number): "\(number)"
        case .blob(let data): String(decoding: data, as: UTF8.self)
        case .null, .string: nil
        }
    }
}
