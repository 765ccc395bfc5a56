package import SluiceCore

/// Reads a PostgreSQL database beside whoever writes it. Not for use by two threads at once.
package final class PostgresQuery {
    private let connection: PostgresConnection

    /// Connects.
    ///
    /// - Parameter isReadOnly: Whether the database refuses whatever would change it.
    package init(url: String, isReadOnly: Bool = false) throws(SinkError) {
        connection = try PostgresConnection(url: url)
        // What is quoted here is quoted as the standard says, whatever the server's setting.
        _ = try connection.run("SET standard_conforming_strings = on")
        if isReadOnly { _ = try connection.run("SET default_transaction_read_only = on") }
    }

    /// The rows of a query as text.
    package func rows(_ sql: String) throws(SinkError) -> [[String?]] {
        try connection.run(sql).rows
    }
}
