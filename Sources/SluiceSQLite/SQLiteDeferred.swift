internal import GRDB
internal import GRDBSQLite
internal import SluiceCore

extension Database {
    /// Whether a deferred foreign key would refuse the commit.
    ///
    /// Source: `SQLITE_DBSTATUS_DEFERRED_FKS`, https://www.sqlite.org/c3ref/c_dbstatus_options.html.
    var violatesDeferred: Bool {
        var (current, highest): (Int32, Int32) = (0, 0)
        let code = unsafe sqlite3_db_status(
            sqliteConnection, SQLITE_DBSTATUS_DEFERRED_FKS, &current, &highest, 0)
        return code == SQLITE_OK && current > 0
    }
}

extension SQLiteCodes {
    /// What a commit says that a deferred foreign key refuses.
    static let deferred = DatabaseError(
        resultCode: .SQLITE_CONSTRAINT_FOREIGNKEY, message: "FOREIGN KEY constraint failed")
    /// Its code, as a sink gives it.
    static let deferredCode = "sqlite.787"

    /// What it means that a constraint or trigger ended the whole transaction.
    static func rolledBack(_ error: DatabaseError) -> SinkError {
        SinkError(
            .halt, code: "schema.rollback",
            "a constraint or trigger rolls back all rows of a batch when it refuses one: "
                + (error.message ?? "no message"),
            hint: "declare it ON CONFLICT ABORT, or RAISE(ABORT, …), so that this row alone is set "
                + "aside; then `sluice resume`")
    }
}
