public import SluiceCore

/// What databases write differently.
public enum Dialect: Hashable, Sendable {
    /// One row a statement, parameters `?`.
    case sqlite
    /// Many rows a statement, parameters `$1` that are arrays.
    case postgres

    /// The type of a column in a new table.
    public func type(_ type: ColumnType) -> String {
        switch (self, type) {
        case (.sqlite, .integer), (.sqlite, .boolean): "INTEGER"
        case (.sqlite, .real): "REAL"
        case (.sqlite, .bytes): "BLOB"
        // Text keeps every digit of a decimal, and is what SQLite's date functions take.
        case (.sqlite, .text), (.sqlite, .decimal), (.sqlite, .timestamp), (.sqlite, .json): "TEXT"
        case (.postgres, .text): "text"
        case (.postgres, .integer): "bigint"
        case (.postgres, .real): "double precision"
        case (.postgres, .decimal): "numeric"
        case (.postgres, .boolean): "boolean"
        case (.postgres, .timestamp): "timestamptz"
        case (.postgres, .json): "jsonb"
        case (.postgres, .bytes): "bytea"
        }
    }

    /// The type of the array that carries a column's values to PostgreSQL.
    func arrayType(_ type: ColumnType) -> String {
        switch type {
        // These are read from text by the database.
        case .text, .decimal, .json: "text[]"
        default: "\(self.type(type))[]"
        }
    }

    /// A name, quoted.
    public static func quote(_ name: String) -> String {
        "\""
            + name.split(separator: "\"", omittingEmptySubsequences: false)
            .joined(separator: "\"\"") + "\""
    }

    /// A text as a literal.
    package static func literal(_ text: String) -> String {
        "'" + text.replacing("'", with: "''") + "'"
    }
}
