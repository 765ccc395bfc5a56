package import SluiceCore

/// Reads a PostgreSQL database beside whoever writes it. Not for use by two threads at once.
package final class PostgresQuery {
    private let connection: PostgresConnection

    /// Connects.
    package init(url: String) throws(SinkError) {
        connection = try PostgresConnection(url: url)
    }

    /// The rows of a query as text.
    package func rows(_ sql: String) throws(SinkError) -> [[String?]] {
        try connection.run(sql).rows
    }
}
