internal import SluiceCore

/// The right to write for a source: an advisory lock of the session, which the server gives back when
/// the connection ends, and which is taken from a session that is not heard of for too long.
///
/// ```
/// free ──take──▶ held ──renew, each third of the lease──▶ held
///   ▲              │
///   └─ended by who waits, when nothing was heard for a lease─┘
/// ```
///
/// The lock only keeps two instances from working at the same time; that no row is written twice is the
/// work of the epoch. So a lock that is taken from a living writer costs a transaction, never a row.
struct PostgresLease {
    let connection: PostgresConnection
    let source: String
    let lease: Duration

    static func milliseconds(_ duration: Duration) -> Int64 {
        duration.components.seconds * 1_000 + duration.components.attoseconds
            / 1_000_000_000_000_000
    }

    /// Takes the lock.
    ///
    /// - Parameter epoch: The epoch that this instance took last, or nil before it took one.
    /// - Throws: ``SinkError/Response/fenced`` when another instance took over meanwhile; to be tried
    ///   again while another one holds the lock.
    func take(epoch: Int64?) throws(SinkError) {
        if try isTaken() { return }
        if try endSilent() {
            // The server ends a session in its own time.
            for _ in 0..<20 {
                try connection.run("SELECT pg_sleep(0.05)")
                if try isTaken() { return }
            }
        }
        if let epoch, try isOvertaken(epoch) {
            throw SinkError(
                .fenced, code: "sink.fenced",
                "another instance took over for the source \(source), because this one was not heard "
                    + "of for \(lease)",
            )
        }
        throw SinkError(
            .retry, code: SinkError.locked, "another instance writes for the source \(source)",
            hint: "this one takes over when the other ends",
        )
    }

    private func isTaken() throws(SinkError) -> Bool {
        let result = try connection.run(
            "SELECT pg_try_advisory_lock(hashtextextended($1, 7311))", [.text("sluice " + source)])
        return result.rows.first?.first == "t"
    }

    /// Ends the session that holds the lock if the server waits for it, and has for too long. A session
    /// that works is let be, however long its statement takes.
    private func endSilent() throws(SinkError) -> Bool {
        let result = try connection.run(
            """
            SELECT pg_terminate_backend(a.pid)
            FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended($1, 7311)
                AND a.usename = current_user AND a.wait_event_type = 'Client'
                AND clock_timestamp() - a.state_change > $2::bigint * interval '1 millisecond'
            """, [.text("sluice " + source), .text("\(Self.milliseconds(lease))")])
        return !result.rows.isEmpty
    }

    private func isOvertaken(_ epoch: Int64) throws(SinkError) -> Bool {
        let result = try connection.run(
            "SELECT epoch FROM sluice_position WHERE source = $1", [.text(source)])
        return result.rows.first?.first != "\(epoch)"
    }
}
