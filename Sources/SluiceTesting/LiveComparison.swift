import SluiceCore

/// Compares rows with Redis while the application writes and Sluice commits.
///
/// What differs at first sight may be on its way. It is looked at again: a key that stays the same in
/// Redis while everything written so far is committed must be the same in the database.
public struct LiveComparison {
    /// What was found.
    public struct Outcome: Sendable {
        /// The rows that were compared.
        public var compared = 0
        /// Rows that differ.
        public var differences: [RowComparison.Difference] = []
        /// Rows that outlived their keys.
        public var kept = 0
        /// Rows that were set aside.
        public var setAside = 0
        /// Rows that changed each time that they were looked at.
        public var busy = 0
    }

    private let comparison: RowComparison
    private let source: String
    private let flush: () async throws -> Void

    /// Creates a comparison.
    ///
    /// - Parameters:
    ///   - comparison: What compares rows.
    ///   - source: The name of the source in the database.
    ///   - flush: Waits until everything that was written so far is committed.
    public init(
        _ comparison: RowComparison, source: String, flush: @escaping () async throws -> Void,
    ) {
        self.comparison = comparison
        self.source = source
        self.flush = flush
    }

    private static let roundsMax = 10

    /// Compares.
    public func run(_ redis: RedisClient) async throws -> Outcome {
        let first = try await comparison.run(redis)
        var outcome = Outcome()
        outcome.compared = first.compared
        for mapping in comparison.mappings {
            let mine = first.differences.filter { $0.table == mapping.name }
            _ = try await redis.send("SELECT", "\(mapping.database)")
            var open = Set(mine.map { Array($0.row.prefix(mapping.keys.columns.count)) })
            for _ in 0..<Self.roundsMax where !open.isEmpty {
                open = try await round(mapping, open, redis, &outcome)
            }
            outcome.busy += open.count
        }
        return outcome
    }

    // Returns the keys that changed meanwhile.
    private func round(
        _ mapping: TableMapping, _ keys: Set<[String]>, _ redis: RedisClient,
        _ outcome: inout Outcome,
    ) async throws -> Set<[String]> {
        func name(_ parts: [String]) -> String {
            String(decoding: mapping.keys.key(from: parts.map { Array($0.utf8) }), as: UTF8.self)
        }
        var before: [[String]: [[String]: [String]]] = [:]
        for key in keys {
            before[key] = try await comparison.expected(mapping, key: name(key), redis)
        }
        try await flush()
        var busy: Set<[String]> = []
        for (key, expected) in before {
            let actual = try comparison.stored(mapping, keyParts: key)
            guard try await comparison.expected(mapping, key: name(key), redis) == expected else {
                busy.insert(key)
                continue
            }
            for row in Set(expected.keys).union(actual.keys) where expected[row] != actual[row] {
                if mapping.type == .stream, expected[row] == nil { continue }
                let member = row.count > key.count ? row[key.count] : ""
                if try note("sluice_dead_letters", mapping, name(key), member) != nil {
                    outcome.setAside += 1
                    continue
                }
                // A row without a key may stay; one that its key came back to has more than Redis.
                let kept =
                    try note("sluice_kept", mapping, name(key), member)
                    .flatMap { Kept(rawValue: $0) } ?? .ended
                let stays = kept != .ended || mapping.removal.onDelete == .keep
                if kept == .back || expected[row] == nil && stays {
                    outcome.kept += 1
                } else {
                    outcome.differences.append(
                        RowComparison.Difference(
                            table: mapping.name, row: row, expected: expected[row],
                            found: actual[row], hasKey: !expected.isEmpty))
                }
            }
        }
        return busy
    }

    // What one of Sluice's own tables says of a row, its key or its table.
    private func note(
        _ table: String, _ mapping: TableMapping, _ key: String, _ member: String,
    ) throws -> UInt8? {
        func hex(_ text: String) -> String {
            text.utf8.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        }
        func quoted(_ text: String) -> String { "'" + text.replacing("'", with: "''") + "'" }
        func column(_ name: String) -> String {
            comparison.isPostgres ? "encode(\(name), 'hex')" : "lower(hex(\(name)))"
        }
        let isKept = table == "sluice_kept"
        let names = [(key, member), (key, "")] + (isKept ? [("", "")] : [])
        let state = isKept ? "state" : "1"
        for (key, member) in names {
            let rows = try comparison.query(
                "SELECT \(state) FROM \(table) WHERE source = \(quoted(source)) AND table_name = "
                    + "\(quoted(mapping.name)) AND \(column("key")) = '\(hex(key))' "
                    + "AND \(column("member")) = '\(hex(member))'")
            if let found = rows.first?.first ?? nil { return UInt8(found) }
        }
        return nil
    }
}
