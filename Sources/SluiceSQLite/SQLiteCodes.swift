package import SluiceCore

/// What to do about SQLite's primary result codes.
///
/// Source: https://www.sqlite.org/rescode.html.
package enum SQLiteCodes {
    /// Codes that speak of one row: CONSTRAINT, MISMATCH, TOOBIG, RANGE.
    private static let refusals: Set<Int32> = [19, 20, 18, 25]
    /// Codes that pass: BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, PROTOCOL.
    private static let passing: Set<Int32> = [5, 6, 7, 9, 10, 13, 15]
    private static let error: Int32 = 1

    /// Whether a statement failed because of the row it was given.
    package static func isRefusal(_ code: Int32, message: String) -> Bool {
        // Functions on JSON say no more than "error".
        refusals.contains(code) || code == error && message.contains("JSON")
    }

    /// What to do when a transaction failed.
    package static func response(to code: Int32) -> SinkError.Response {
        passing.contains(code) ? .retry : .halt
    }
}
