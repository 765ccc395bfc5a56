internal import Foundation
internal import GRDB
internal import SluiceCore

/// The rows that outlived their keys, as SQLite remembers them.
struct SQLiteKept {
    let database: Database
    let source: String

    /// What a batch's changes of a table mean for them.
    func plan(_ changes: TableChanges, _ mapping: TableMapping) throws -> KeptPlan {
        var known: [RowIdentity: Kept] = [:]
        if mapping.canKeep, try hasAny(mapping) {
            known = try look(up: KeptPlan.questions(changes), mapping)
        }
        return KeptPlan(changes, mapping: mapping, known: known)
    }

    private func hasAny(_ mapping: TableMapping) throws -> Bool {
        try Row.fetchOne(
            database,
            sql: "SELECT 1 FROM sluice_kept WHERE source = ? AND table_name = ? LIMIT 1",
            arguments: [source, mapping.name]) != nil
    }

    /// A page of a key's rows that came back after the others outlived it.
    ///
    /// - Parameter after: The member that the page before ended with, or an empty one for the first.
    func returned(
        of key: Bytes, after: Bytes, limit: Int, _ mapping: TableMapping,
    ) throws -> [RowIdentity] {
        let statement = try database.cachedStatement(
            sql: """
                SELECT member FROM sluice_kept
                WHERE source = ? AND table_name = ? AND key = ? AND member > ? AND state IN (?, ?)
                ORDER BY member LIMIT ?
                """)
        let states = ReturnedRows.states.map { Int($0.rawValue) }
        return try Row.fetchAll(
            statement,
            arguments: [
                source, mapping.name, Data(key), Data(after), states[0], states[1], limit,
            ]
        ).map { Self.identity($0, of: key) }
    }

    /// Those of some rows, their keys and the table that are remembered.
    func look(up rows: [RowIdentity], _ mapping: TableMapping) throws -> [RowIdentity: Kept] {
        var known: [RowIdentity: Kept] = [:]
        let statement = try database.cachedStatement(
            sql: """
                SELECT member, state FROM sluice_kept
                WHERE source = ? AND table_name = ? AND key = ? AND member IN (?, x'')
                """)
        for identity in rows + [RowIdentity(key: [])] {
            let found = try Row.fetchAll(
                statement,
                arguments: [
                    source, mapping.name, Data(identity.key), Data(identity.member),
                ])
            for row in found {
                known[Self.identity(row, of: identity.key)] = Self.state(row)
            }
        }
        return known
    }

    private static func identity(_ row: Row, of key: Bytes) -> RowIdentity {
        RowIdentity(key: key, member: Array((row["member"] as Data?) ?? Data()))
    }

    private static func state(_ row: Row) -> Kept? { Kept(rawValue: UInt8(row["state"] as Int)) }

    /// Remembers and forgets.
    func write(_ notes: [KeptPlan.Note], _ mapping: TableMapping) throws {
        let all = "DELETE FROM sluice_kept WHERE source = ? AND table_name = ?"
        for note in notes {
            switch note {
            case .forgetTable:
                try database.execute(sql: all, arguments: [source, mapping.name])
            case .forgetKey(let key):
                try database.cachedStatement(sql: all + " AND key = ?")
                    .execute(arguments: [source, mapping.name, Data(key)])
            case .forget(let row):
                try database.cachedStatement(sql: all + " AND key = ? AND member = ?")
                    .execute(arguments: [source, mapping.name, Data(row.key), Data(row.member)])
            case .remember(let kept):
                let (key, member) = (Data(kept.identity.key), Data(kept.identity.member))
                try database.cachedStatement(
                    sql: "INSERT OR REPLACE INTO sluice_kept VALUES (?, ?, ?, ?, ?)"
                ).execute(
                    arguments: [source, mapping.name, key, member, Int(kept.state.rawValue)])
            }
        }
    }
}
