package import SluiceCore

/// What to do about PostgreSQL's codes.
///
/// Source: https://www.postgresql.org/docs/current/errcodes-appendix.html.
package enum PostgresCodes {
    /// Codes that speak of one row: data exceptions, integrity constraints, values too large, a
    /// trigger's RAISE EXCEPTION, WITH CHECK OPTION, two keys that a collation makes one.
    private static let refusals = ["21", "22", "23", "44", "54", "P0001"]
    /// Codes that pass: connection, resources, rolled-back transactions, shutdown, I/O, a server
    /// that is read-only while it fails over, a transaction that took too long.
    private static let passing = ["08", "25006", "25P03", "25P04", "40", "53", "55", "57", "58"]

    /// The server ended a statement, because it took too long or somebody asked for it.
    package static let cancelled = "postgres.57014"

    /// Whether a statement failed because of the rows it was given.
    package static func isRefusal(_ error: SinkError) -> Bool {
        refusals.contains { error.code.dropFirst("postgres.".count).hasPrefix($0) }
    }

    /// The failure that a SQLSTATE means.
    package static func error(state: String, message: String) -> SinkError {
        let response: SinkError.Response =
            passing.contains { state.hasPrefix($0) } ? .retry : .halt
        var hint: String?
        if state == "42501" {
            hint = "grant this role what docs/permissions.md lists"
        } else if state.hasPrefix("42") {
            hint = "do the tables fit the mapping? `sluice check` compares them"
        }
        return SinkError(
            response, code: "postgres.\(state)", "PostgreSQL: \(message)", hint: hint
        )
    }
}
