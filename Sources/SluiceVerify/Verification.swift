public import SluiceCore
public import SluiceRedis
public import SluiceSQL

/// Compares every mapped row of a database with Redis.
///
/// ```
///  Redis ──keys, page by page──▶ rows ─┐                ┌─▶ as Redis is
///                                      ├─▶ differ? ─────┤
///  database ──page by page─────▶ rows ─┘   looked at    └─▶ a difference, three times
///                                          at one offset
/// ```
///
/// It reads both sides with plain commands and plain SQL, page by page, and shares nothing with the way
/// that the rows went. What differs at first sight may be on its way; so an instance that runs is asked
/// to hold the stream where Redis was read, and the database is read there. Without an instance
/// whatever differs is a difference: nobody may write meanwhile.
public struct Verification {
    let mappings: [TableMapping]
    let capture: Capture
    let database: DatabaseRows
    private let endpoint: RedisEndpoint
    private let sample: Double

    /// Creates a verification.
    ///
    /// - Parameters:
    ///   - mappings: The tables.
    ///   - dialect: The database's.
    ///   - source: The name of the source in the database.
    ///   - capture: How the source says what changed.
    ///   - endpoint: The server.
    ///   - sample: The share of the keys that is compared, from 0 to 1; the same ones each time.
    ///   - query: Runs SQL, and returns rows of texts.
    public init(
        mappings: [TableMapping], dialect: Dialect, source: String,
        capture: Capture = .replication, endpoint: RedisEndpoint, sample: Double = 1,
        query: @escaping (String) throws -> [[String?]],
    ) {
        self.mappings = mappings
        self.capture = capture
        self.endpoint = endpoint
        self.sample = sample
        database = DatabaseRows(dialect, source: source, query: query)
    }

    /// Compares.
    ///
    /// - Parameters:
    ///   - instance: Who follows Redis meanwhile, or nil when nobody writes.
    ///   - repairs: Whether rows that differ are read and written again.
    public func run(
        with instance: (any RunningInstance)? = nil, repairs: Bool = false,
    ) async throws -> Outcome {
        let redis = try await RedisRows.connect(to: endpoint)
        var outcome = Outcome()
        for mapping in mappings {
            let comparison = TableComparison(
                mapping: mapping, redis: redis, database: database, instance: instance,
                isExact: capture.isExact, repairs: repairs)
            var suspects: [RowIdentity] = []
            try await redis.select(mapping.database)
            try await walkKeys(mapping, redis) { rows in
                outcome.compared += rows.count
                suspects += try await comparison.suspects(among: rows)
                try await comparison.settle(&suspects, &outcome)
            }
            // Append-only tables keep what is gone from Redis.
            if mapping.type != .stream {
                try await walkRows(mapping) { found in
                    for row in found where row.isForeign {
                        outcome.compared += 1
                        outcome.add(comparison.foreign(row))
                    }
                    let rows = found.filter { !$0.isForeign }.map(\.identity)
                    let isThere = try await redis.has(rows, mapping)
                    let extra = zip(rows, isThere).filter { !$0.1 }.map(\.0)
                    outcome.compared += extra.count
                    suspects += extra
                    try await comparison.settle(&suspects, &outcome)
                }
            }
            try await comparison.settle(&suspects, &outcome, isLast: true)
        }
        return outcome
    }

    // MARK: Walking

    /// The keys whose rows are looked for together.
    private static let keysMax = 100

    private func walkKeys(
        _ mapping: TableMapping, _ redis: RedisRows,
        _ visit: ([RowIdentity]) async throws -> Void,
    ) async throws {
        var cursor = Array("0".utf8)
        repeat {
            let found = try await redis.keys(from: cursor, matching: mapping.keys.glob)
            cursor = found.next
            let keys = found.keys.filter { key in
                mapping.keys.matches(key.span) && isSampled(key) && !Mark.isOwn(key)
            }
            for start in stride(from: 0, to: keys.count, by: Self.keysMax) {
                let part = Array(keys[start..<min(keys.count, start + Self.keysMax)])
                for (key, page) in zip(part, try await redis.firstRows(of: part, mapping)) {
                    var page = page
                    try await visit(page.rows)
                    while let next = page.next {
                        page = try await redis.rows(of: key, mapping, from: next)
                        try await visit(page.rows)
                    }
                }
            }
        } while cursor != Array("0".utf8)
    }

    private func walkRows(
        _ mapping: TableMapping, _ visit: ([DatabaseRows.Found]) async throws -> Void,
    ) async throws {
        var last: [Bytes]?
        while true {
            let page = try database.page(mapping, after: last)
            guard let end = page.last else { return }
            try await visit(page.filter { isSampled($0.identity.key) })
            last = end.parts
        }
    }

    // Decided by the key alone, so that all rows of a key are in or out on both sides.
    private func isSampled(_ key: Bytes) -> Bool {
        guard sample < 1 else { return true }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in key { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return Double((hash ^ hash >> 32) % 1_000_000) < sample * 1_000_000
    }
}
