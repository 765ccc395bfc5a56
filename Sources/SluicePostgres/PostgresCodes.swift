package import SluiceCore

/// What to do about PostgreSQL's codes.
///
/// Source: https://www.postgresql.org/docs/current/errcodes-appendix.html.
package enum PostgresCodes {
    /// Codes that speak of one row: data exceptions, integrity constraints, values too large, WITH CHECK
    /// OPTION, two keys that a collation makes one, what fails in a trigger's function.
    private static let refusals = [
        "09", "20", "21", "22", "23", "27", "2F", "38", "39", "44", "54",
    ]
    /// Codes that pass: connection, resources, rolled-back transactions, shutdown, I/O, a server
    /// that is read-only while it fails over, a transaction that took too long.
    private static let passing = ["08", "25006", "25P03", "25P04", "40", "53", "55", "57", "58"]

    /// The server ended a statement, because it took too long or somebody asked for it.
    package static let cancelled = "postgres.57014"

    /// Whether a statement failed because of the rows it was given.
    package static func isRefusal(_ error: SinkError) -> Bool {
        let prefix = "postgres."
        guard error.code.hasPrefix(prefix) else { return false }
        let state = error.code.dropFirst(prefix.count)
        // What a trigger raises: PL/pgSQL's own class P0, and those that the standard leaves to users.
        let isRaised = ("I"..."Z").contains(state.prefix(1)) && !state.hasPrefix("XX")
        return isRaised || refusals.contains { state.hasPrefix($0) }
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
